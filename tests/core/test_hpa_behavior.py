"""Conformance with `behavior` of Kubernetes' HPA v2: windows, rates, several metrics, bounds."""

import msgspec
import pytest
from msgspec.structs import replace

from supervisord_cp.config.schema import BehaviorConfig, ScalingPolicy, ScalingRules
from supervisord_cp.core.scaling.behavior import down_limit, stabilized, up_limit
from supervisord_cp.core.scaling.envelope import decide
from supervisord_cp.model.reason import ReasonCode
from supervisord_cp.model.scaling import (
    Behavior,
    DirectionRules,
    Recommendation,
    ScaleEvent,
    ScaleHistory,
    ScaleLimits,
    SelectPolicy,
    Tolerance,
)
from tests.core.scaling_kit import BUSY, FREE, START, at, behavior, percent, pods, proposal, view

MAX, MIN, OFF = SelectPolicy.MAX, SelectPolicy.MIN, SelectPolicy.DISABLED


def events(*changes: tuple[int, float]) -> list[ScaleEvent]:
    """(change, age) of each event."""
    return [ScaleEvent(change=change, at_s=START - age) for change, age in changes]


UP = [
    # current, policies, select, events (change, age), the most now
    (1, (), MAX, (), 5),  # the defaults: 4 pods or 100 percent in 15 s
    (4, (), MAX, (), 8),
    (10, (), MAX, (), 20),
    (0, (), MAX, (), 4),
    (9, (), MAX, ((5, 14),), 9),  # 4 at the start of the period
    (9, (), MAX, ((5, 15),), 18),
    (5, (pods(2),), MAX, (), 7),
    (5, (percent(50),), MAX, (), 8),  # rounded up
    (1, (percent(10),), MAX, (), 2),
    (10, (percent(10),), MAX, (), 11),
    (100, (percent(10),), MAX, (), 111),  # 100 x 1.1 is a hair more than 110 in floating point, there too
    (5, (pods(2), percent(50)), MAX, (), 8),
    (5, (pods(2), percent(50)), MIN, (), 7),
    (2, (pods(3),), MIN, (), 5),
    (5, (pods(2), percent(50)), OFF, (), 5),
    (6, (pods(4),), MAX, ((3, 30),), 7),
    (6, (pods(4),), MAX, ((3, 59.9),), 7),
    (6, (pods(4),), MAX, ((3, 60),), 10),  # exactly one period old: it no longer counts
    (6, (pods(4),), MAX, ((1, 10), (2, 20), (1, 90)), 7),
    (6, (pods(4),), MAX, ((-2, 10),), 12),  # what was taken away in the period was there at its start
    (6, (pods(4),), MAX, ((3, 10), (-1, 20)), 8),
    (8, (pods(2),), MAX, ((5, 10),), 8),  # used up: never below the current number
    (7, (pods(2, 10), pods(5, 60)), MAX, ((4, 30),), 9),
    (7, (pods(2, 10), pods(5, 60)), MIN, ((4, 30),), 8),
    (0, (percent(100),), MAX, (), 0),
    (12, (percent(100),), MAX, ((4, 5),), 16),
]


@pytest.mark.parametrize(("current", "policies", "select", "past", "most"), UP)
def test_the_most_that_may_be_added(
    current: int, policies: tuple, select: SelectPolicy, past: tuple, most: int
) -> None:
    rules = DirectionRules(policies=policies, select_policy=select)
    assert up_limit(current, events(*past), rules, START) == most


DOWN = [
    # current, policies, select, events (change, age), the fewest now
    (10, (), MAX, (), 0),  # the default: 100 percent in 15 s
    (10, (pods(2),), MAX, (), 8),
    (5, (percent(50),), MAX, (), 2),  # cut off
    (5, (percent(10),), MAX, (), 4),
    (1, (percent(10),), MAX, (), 0),
    (10, (percent(10),), MAX, (), 9),
    (10, (percent(100),), MAX, (), 0),
    (10, (pods(4), percent(50)), MAX, (), 5),
    (10, (pods(4), percent(50)), MIN, (), 6),
    (10, (pods(4), percent(50)), OFF, (), 10),
    (8, (pods(4),), MAX, ((-2, 30),), 6),
    (8, (pods(4),), MAX, ((-2, 60),), 4),
    (8, (pods(4),), MAX, ((3, 5),), 1),  # what was added in the period was not there at its start
    (8, (pods(4),), MAX, ((3, 5), (-2, 20)), 3),
    (4, (pods(4),), MAX, ((-6, 5),), 4),  # used up: never above the current number
    (5, (pods(20),), MAX, (), 0),
    (7, (pods(2, 10), pods(5, 60)), MAX, ((-4, 30),), 5),
    (7, (pods(2, 10), pods(5, 60)), MIN, ((-4, 30),), 6),
]


@pytest.mark.parametrize(("current", "policies", "select", "past", "fewest"), DOWN)
def test_the_most_that_may_be_taken_away(
    current: int, policies: tuple, select: SelectPolicy, past: tuple, fewest: int
) -> None:
    rules = DirectionRules(policies=policies, select_policy=select)
    assert down_limit(current, events(*past), rules, START) == fewest


STABLE = [
    # current, desired, window up, window down, recommendations (number, age), result
    (5, 8, None, None, (), 8),
    (5, 2, None, None, (), 2),
    (5, 5, None, None, (), 5),
    (5, 2, None, None, ((5, 10),), 5),
    (5, 2, None, None, ((5, 299),), 5),
    (5, 2, None, None, ((5, 300),), 2),  # exactly one window old: it no longer counts
    (5, 2, None, None, ((4, 10),), 4),
    (5, 2, None, None, ((3, 10), (4, 200)), 4),
    (5, 2, None, None, ((1, 10),), 2),
    (5, 3, None, None, ((8, 10),), 5),  # never above the current number on the way down
    (5, 5, None, None, ((9, 10),), 5),
    (5, 8, None, None, ((1, 1),), 8),  # up without a window
    (5, 8, 60, None, ((6, 10),), 6),
    (5, 8, 60, None, ((5, 10),), 5),
    (5, 8, 60, None, ((3, 10),), 5),  # never below it on the way up
    (5, 8, 60, None, ((7, 10), (6, 30)), 6),
    (5, 8, 60, None, ((5, 60),), 8),
    (5, 8, 60, None, ((5, 59.9),), 5),
    (5, 8, 60, None, ((9, 10),), 8),
    (5, 8, 60, 300, ((4, 10), (9, 100)), 5),
    (5, 2, 60, 300, ((4, 10), (9, 100)), 5),
    (5, 2, 60, 0, ((9, 10),), 2),  # down without a window
    (0, 3, None, None, ((0, 10),), 3),
    (3, 0, None, 60, ((1, 59),), 1),
]


@pytest.mark.parametrize(("current", "desired", "up", "down", "past", "result"), STABLE)
def test_windows(
    current: int, desired: int, up: float | None, down: float | None, past: tuple, result: int
) -> None:
    rules = Behavior(
        scale_up=DirectionRules(stabilization_window_s=up),
        scale_down=DirectionRules(stabilization_window_s=down),
    )
    log = [Recommendation(replicas=n, at_s=START - age) for n, age in past]
    assert stabilized(current, desired, log, rules, START) == result


SEVERAL = [
    # current, proposals, wanted, held
    (3, (3, 5), 5, False),
    (3, (2, 1), 2, False),
    (3, (2, 7), 7, False),
    (3, (None, 5), 5, False),  # one metric is missing: up it goes
    (3, (None, 3), 3, False),
    (3, (None, 2), 3, True),  # but not down
    (3, (2, None), 3, True),
    (3, (None, None), 3, True),
    (3, (), 3, True),
    (3, (None, None, 4), 4, False),
    (20, (5,), 10, False),  # above the maximum: metrics are not asked
    (20, (None,), 10, False),
    (1, (9,), 2, False),  # below the minimum neither
    (1, (None,), 2, False),
    (10, (50,), 10, False),
    (2, (0,), 2, False),
]


@pytest.mark.parametrize(("current", "numbers", "wanted", "held"), SEVERAL)
def test_several_metrics_and_bounds(current: int, numbers: tuple, wanted: int, held: bool) -> None:
    seen = view(low=2, wanted=current, ready=current, signals=BUSY)
    settled = ScaleHistory(recommendations=(Recommendation(replicas=0, at_s=START - 1),))
    decision, _ = decide(seen, [proposal(n) for n in numbers], ScaleLimits(behavior=FREE), settled)
    assert (decision.wanted, decision.held) == (wanted, held)


def run(numbers: list[tuple[float, float | None]], rules: Behavior, current: int) -> list[int]:
    """The decisions of a run, each one's number being the next one's current; (time, proposal)."""
    history, wanted = ScaleHistory(), []
    for seconds, number in numbers:
        seen = at(view(high=100, signals=BUSY), seconds, wanted=current, ready=current)
        decision, history = decide(seen, [proposal(number)], ScaleLimits(behavior=rules), history)
        current = decision.wanted
        wanted.append(current)
    return wanted


BOTH = {"policies": (pods(2, 10), pods(3, 60)), "select_policy": MIN}


def up_by(**rules: object) -> Behavior:
    return behavior(up=DirectionRules(**rules))


def down_by(**rules: object) -> Behavior:
    return behavior(down=DirectionRules(stabilization_window_s=0, **rules))


RUNS = [
    # defaults: up at once within the rates, down after five minutes
    (1, [(0, 100), (5, 100), (15, 100), (30, 100), (45, 100)], Behavior(), [5, 5, 10, 20, 40]),
    (9, [(0, 2), (299, 2), (300, 2)], Behavior(), [9, 9, 2]),
    (9, [(0, 2), (299, 9), (300, 2), (598, 2), (599, 2)], Behavior(), [9, 9, 9, 9, 2]),
    (9, [(0, 9), (100, 7), (250, 5), (300, 5), (399, 3), (400, 3)], Behavior(), [9, 9, 9, 7, 7, 5]),
    # an hour of data that is missing counts as the number that there was
    (9, [(0, 2), (200, None), (400, None), (450, 2), (699, 2), (700, 2)], Behavior(), [9, 9, 9, 9, 9, 2]),
    # rates
    (2, [(0, 50), (10, 50), (60, 50), (119, 50), (120, 50)], up_by(policies=(pods(3),)), [5, 5, 8, 8, 11]),
    (20, [(0, 1), (30, 1), (60, 1), (90, 1), (120, 1)], down_by(policies=(percent(50),)), [10, 10, 5, 5, 2]),
    (2, [(0, 9), (10, 9), (20, 9), (59, 9), (60, 9)], up_by(**BOTH), [4, 5, 5, 5, 7]),
    (5, [(0, 9), (1, 9), (100, 1)], up_by(select_policy=OFF), [5, 5, 1]),
    (5, [(0, 1), (1000, 1), (1001, 9)], down_by(select_policy=OFF), [5, 5, 9]),
    # a window on the way up
    (2, [(0, 4), (10, 4), (59, 6), (60, 6), (70, 6)], up_by(stabilization_window_s=60), [2, 2, 2, 4, 6]),
]


@pytest.mark.parametrize(("current", "numbers", "rules", "wanted"), RUNS)
def test_runs(current: int, numbers: list, rules: Behavior, wanted: list[int]) -> None:
    assert run(numbers, rules, current) == wanted


@pytest.mark.parametrize(
    ("rules", "number", "code"),
    [
        (Behavior(), 1, ReasonCode.STABILIZED_DOWN),
        (up_by(stabilization_window_s=60), 9, ReasonCode.STABILIZED_UP),
        (Behavior(), 90, ReasonCode.RATE_UP),
        (down_by(policies=(pods(1),)), 1, ReasonCode.RATE_DOWN),
        (up_by(select_policy=OFF), 9, ReasonCode.SCALING_DISABLED),
        (down_by(select_policy=OFF), 1, ReasonCode.SCALING_DISABLED),
    ],
)
def test_each_limit_says_its_name(rules: Behavior, number: int, code: ReasonCode) -> None:
    seen = view(high=100, wanted=5, ready=5, signals=BUSY)
    decision, _ = decide(seen, [proposal(number)], ScaleLimits(behavior=rules), ScaleHistory())
    assert [limit.reason.code for limit in decision.limits] == [code]
    assert (decision.limits[0].before, decision.limits[0].after) == (number, decision.wanted)
    assert decision.reason.code is code


def test_a_change_that_was_cut_by_the_budget_is_recorded_as_it_was_made() -> None:
    rules = behavior(up=DirectionRules(policies=(pods(3),)))
    seen = view(high=100, wanted=2, ready=2, signals=BUSY)
    limits = ScaleLimits(behavior=rules, gpus_left=3)
    decision, history = decide(seen, [proposal(50)], limits, ScaleHistory())
    assert decision.wanted == 3
    later = replace(at(seen, 10), wanted=3, ready=3)
    decision, _ = decide(later, [proposal(50)], ScaleLimits(behavior=rules), history)
    assert decision.wanted == 5


def test_what_a_configuration_says_is_taken_as_it_is() -> None:
    written = BehaviorConfig(
        scale_up=ScalingRules(tolerance=0.2, select_policy="Min"),
        scale_down=ScalingRules(
            stabilization_window_s=60.0,
            policies=(ScalingPolicy(type="Percent", value=50, period_s=30.0),),
        ),
    )
    rules = msgspec.convert(written, Behavior, from_attributes=True)
    assert rules == Behavior(
        scale_up=DirectionRules(tolerance=0.2, select_policy=MIN),
        scale_down=DirectionRules(stabilization_window_s=60.0, policies=(percent(50, 30.0),)),
    )
    assert rules.tolerance == Tolerance(up=0.2, down=0.1)
    assert msgspec.convert(BehaviorConfig(), Behavior, from_attributes=True) == Behavior()
