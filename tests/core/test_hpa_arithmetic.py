"""Conformance with the arithmetic of Kubernetes' HPA v2: one row, one case."""

import pytest

from supervisord_cp.builtin.scalers.hpa_arithmetic import (
    AverageTarget,
    Readiness,
    UtilizationTarget,
    by_average_value,
    by_samples,
    by_value,
    grouped,
    milli,
)
from supervisord_cp.model.scaling import Tolerance
from supervisord_cp.model.signal import MISSING, ReplicaView
from tests.core.scaling_kit import PHASES, replicas, signal

MOST = 2**31 - 1
USUAL = Tolerance()
N = None


@pytest.mark.parametrize(
    ("value", "thousandths"),
    [
        (1.5, 1500),
        (0.0004, 1),
        (0.001, 1),
        (0.3, 300),
        (1.1, 1100),
        (0, 0),
        (-1.5, -1500),
        (1e300, 2**63 - 1),
    ],
)
def test_quantities_are_whole_thousandths(value: float, thousandths: int) -> None:
    assert milli(value) == thousandths


VALUE = [
    # value, target, current, ready, wanted
    (20, 15, 3, 3, 4),
    (50, 10, 3, 1, 5),  # only ready ones are multiplied
    (8.6, 4.4, 3, 1, 2),  # and fewer than there are can come of it
    (12, 20, 5, 5, 3),
    (8.6, 14.334, 5, 5, 3),
    (20, 10, 2, 3, 6),  # one more than the current number during a roll-out
    (10, 10, 4, 4, 4),
    (11, 10, 4, 4, 4),  # at the upper edge of the tolerance
    (11.001, 10, 4, 4, 5),
    (9, 10, 4, 4, 4),  # at the lower edge
    (8.999, 10, 10, 10, 9),
    (8.999, 10, 4, 4, 4),  # outside, but rounded up to the same number
    (0, 10, 4, 4, 0),
    (0, 10, 0, 0, 0),
    (5, 10, 0, 0, 1),  # from zero the ratio itself counts
    (10, 10, 0, 0, 1),
    (10.5, 10, 0, 0, 2),  # without tolerance
    (100, 10, 0, 0, 10),
    (1e15, 0.001, 3, 3, MOST),
    (20, 10, 3, 0, 3),  # none ready: the original would answer 0
    (90, 10, 3, 0, 9),
    (5, 10, 3, 0, 3),
]


@pytest.mark.parametrize(("value", "target", "current", "ready", "wanted"), VALUE)
def test_value(value: float, target: float, current: int, ready: int, wanted: int) -> None:
    got = by_value(milli(value), milli(target), current=current, ready=ready, tolerance=USUAL)
    assert got == wanted


AVERAGE_VALUE = [
    # value, target, current, wanted
    (20, 5, 3, 4),
    (8.6, 2.15, 3, 4),
    (6, 2, 5, 3),
    (8.6, 2.867, 5, 3),
    (10, 5, 2, 2),
    (11, 5, 2, 2),
    (11.001, 5, 2, 3),
    (9, 5, 2, 2),
    (44, 5, 10, 9),
    (0, 5, 3, 0),
    (0, 5, 0, 0),
    (1, 5, 0, 1),
    (26, 5, 0, 6),
    (5.001, 5, 0, 2),
    (1e15, 0.001, 3, MOST),
]


@pytest.mark.parametrize(("value", "target", "current", "wanted"), AVERAGE_VALUE)
def test_average_value(value: float, target: float, current: int, wanted: int) -> None:
    assert by_average_value(milli(value), milli(target), current=current, tolerance=USUAL) == wanted


@pytest.mark.parametrize(
    ("up", "down", "value", "wanted"),
    [
        (0.0, 0.0, 10.001, 11),
        (0.0, 0.0, 9.0, 9),
        (0.5, 0.1, 15, 10),
        (0.5, 0.1, 15.001, 16),
        (0.1, 0.5, 5, 10),
        (0.1, 0.5, 4.999, 5),
        (0.2, 0.05, 12, 10),
        (0.2, 0.05, 9.4, 10),
        (0.2, 0.05, 9.0, 9),
    ],
)
def test_each_direction_has_its_tolerance(up: float, down: float, value: float, wanted: int) -> None:
    tolerance = Tolerance(up=up, down=down)
    assert by_value(milli(value), milli(10), current=10, ready=10, tolerance=tolerance) == wanted
    assert by_average_value(milli(value * 10), milli(10), current=10, tolerance=tolerance) == wanted


PODS = [
    # phases, values, target, current, wanted
    ("RRR", [20, 10, 30], 15, 3, 4),
    ("RRRRR", [12] * 5, 20, 5, 3),
    ("RRU", [50, 10, 30], 15, 3, 6),  # an unready one with a sample counts
    ("RRS", [30, 30, 99], 15, 3, 4),  # one that starts does not, and counts as 0 on the way up
    ("RSS", [12, N, N], 10, 3, 3),  # which can turn the direction: no change
    ("RRSS", [6, 6, N, N], 10, 4, 2),  # on the way down it is left out
    ("RRF", [20, 20, 99], 10, 2, 4),
    ("RRD", [20, 20, 99], 10, 2, 4),
    ("RRR", [5, 5, N], 10, 3, 2),  # missing is the target on the way down
    ("RRRR", [1, N, N, N], 10, 4, 4),
    ("RRR", [30, 30, N], 10, 3, 6),  # and 0 on the way up
    ("RRR", [12, N, N], 10, 3, 3),
    ("RRS", [10, 10, 5], 10, 3, 3),
    ("RRR", [10, 10, N], 10, 3, 3),  # and nothing at all at exactly the target
    ("RRRR", [10, N, N, N], 10, 4, 4),
    ("RRSR", [30, 30, N, N], 10, 4, 6),  # unready and missing
    ("R" * 10, [11] * 10, 10, 10, 10),
    ("R" * 10, [11.001] * 10, 10, 10, 12),
    ("R" * 10, [9] * 10, 10, 10, 10),
    ("R" * 10, [8.99] * 10, 10, 10, 9),
    ("RR", [0.001, 0.002], 0.001, 2, 2),  # the average loses what is below a thousandth
    ("RR", [0, 0], 10, 2, 0),
    ("RR", [1e12, 1e12], 0.001, 2, MOST),
    ("RRRRR", [8, 8, 8, 8, N], 12, 3, 3),  # fewer asked for, but more than there are: no change
    ("RRR", [18, 18, N], 10, 6, 6),  # more asked for, but fewer than there are: no change
    ("RR", [18, 18], 10, 6, 4),  # without anything to assume it is taken as it is
    ("SS", [5, 5], 10, 2, None),
    ("RR", [N, N], 10, 2, None),
    ("FD", [5, 5], 10, 2, None),
    ("", [], 10, 0, None),
]


@pytest.mark.parametrize(("phases", "values", "target", "current", "wanted"), PODS)
def test_average_of_replicas(
    phases: str, values: list, target: float, current: int, wanted: int | None
) -> None:
    groups = grouped(replicas(phases, values, "x"), lambda r: r.signals.get("x", MISSING))
    goal = AverageTarget(target=milli(target))
    assert by_samples(groups, goal, current=current, tolerance=USUAL) == wanted


UTILIZATION = [
    # phases, values, target in percent, current, wanted
    ("RRR", [0.3, 0.5, 0.7], 30, 3, 5),
    ("SRR", [0.3, 0.5, 0.7], 30, 3, 4),
    ("RSS", [0.4, 0.5, 0.7], 30, 3, 3),
    ("RRS", [1.0, 1.0, N], 30, 3, 7),
    ("RRRRR", [0.1, 0.3, 0.5, 0.25, 0.25], 50, 5, 3),
    ("RRRSS", [0.1, 0.3, 0.5, 0.25, 0.25], 50, 5, 2),
    ("RSSSS", [0.1, N, N, N, N], 50, 5, 1),
    ("RR", [0.5, 0.5], 50, 2, 2),
    ("RR", [0.55, 0.55], 50, 2, 2),
    ("RR", [0.56, 0.56], 50, 2, 3),
    ("R" * 10, [0.45] * 10, 50, 10, 10),
    ("R" * 10, [0.44] * 10, 50, 10, 9),
    ("RRR", [0.333] * 3, 30, 3, 3),  # 33.3 % is 33 %, which is inside the tolerance
    ("RRRR", [0.1, 0.1, 0.1, N], 50, 4, 3),  # missing is all of it on the way down
    ("RRRR", [0.2, 0.2, 0.2, N], 50, 4, 4),
    ("RRRR", [0.9, 0.9, 0.9, N], 50, 4, 6),  # and nothing on the way up
    ("RRR", [0.6, N, N], 50, 3, 3),
    ("RRR", [0.5, 0.5, N], 50, 3, 3),
    ("RRR", [0.2, 0.2, N], 200, 3, 2),  # and the target where that is above all of it
    ("RRSR", [0.9, 0.9, N, N], 50, 4, 4),
    ("RRSR", [0.1, 0.1, N, N], 50, 4, 3),
    ("RRFF", [0.5, 0.7, N, N], 30, 2, 4),
    ("RRDD", [0.5, 0.7, 0.9, 0.9], 30, 2, 4),
    ("RRRRR", [0.4, 0.4, 0.4, 0.4, N], 60, 3, 3),
    ("RRR", [0.9, 0.9, N], 50, 6, 6),
    ("RR", [0, 0], 50, 2, 0),
    ("SS", [0.5, 0.5], 50, 2, None),
    ("RR", [N, N], 50, 2, None),
]


@pytest.mark.parametrize(("phases", "values", "target", "current", "wanted"), UTILIZATION)
def test_utilization(phases: str, values: list, target: int, current: int, wanted: int | None) -> None:
    groups = grouped(replicas(phases, values, "x"), lambda r: r.signals.get("x", MISSING))
    goal = UtilizationTarget(percent=target, full=milli(1.0))
    assert by_samples(groups, goal, current=current, tolerance=USUAL) == wanted


READINESS = [
    # phase, age, since it changed, age of the sample, its window, unready
    ("R", 100, 60, 5, 30, False),
    ("R", 100, 60, 30, 30, False),  # the sample begins exactly when it became ready
    ("R", 100, 60, 31, 30, True),  # the sample still has warm-up in it
    ("R", 100, 20, 0, 30, True),
    ("R", 100, 20, 0, 0, False),
    ("U", 100, 60, 5, 30, True),
    ("R", 300, 10, 60, 30, False),  # too old for warm-up
    ("R", 299, 10, 60, 30, True),
    ("U", 400, 399, 5, 30, True),  # never was ready
    ("U", 400, 371, 5, 30, True),
    ("U", 400, 370, 5, 30, False),  # was ready once: its samples count
    ("U", 400, 10, 5, 30, False),
    ("R", 400, None, 5, 30, True),
    ("R", 100, None, 5, 30, True),
]


@pytest.mark.parametrize(("phase", "age", "changed", "sampled", "window", "unready"), READINESS)
def test_samples_of_the_warm_up_do_not_count(
    phase: str, age: float, changed: float | None, sampled: float, window: float, unready: bool
) -> None:
    sample = signal(0.5, sampled, window_s=window, stale_after_s=1000)
    replica = ReplicaView(id="chat-0", phase=PHASES[phase], age_s=age, changed_s=changed)
    rule = Readiness(initialization_s=300, initial_delay_s=30)
    groups = grouped([replica], lambda _: sample, rule)
    assert (replica.id in groups.unready) is unready
    assert (replica.id in groups.samples) is not unready


def test_without_the_rule_an_unready_replica_with_a_sample_counts() -> None:
    groups = grouped(replicas("U", [0.5], "x"), lambda r: r.signals["x"])
    assert groups.samples == {"chat-0": 500}


def test_a_sample_without_a_value_is_missing() -> None:
    stale, no_number = signal(1.0, 60), signal(float("nan"))
    for sample in (stale, no_number, MISSING):
        groups = grouped(replicas("R", [1.0], "x"), lambda _, sample=sample: sample)
        assert groups.missing == {"chat-0"}
