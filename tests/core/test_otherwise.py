"""What would have to change for another number: each answer is held against the decision itself."""

import math

import pytest
from hypothesis import given, settings
from msgspec.structs import replace

from supervisord_cp.core.scaling.otherwise import otherwise
from supervisord_cp.core.scaling.scalers import Scaler
from supervisord_cp.core.scaling.step import step
from supervisord_cp.core.scaling.thresholds import thresholds
from supervisord_cp.model.assignment import Override
from supervisord_cp.model.explanation import Otherwise
from supervisord_cp.model.reason import ReasonCode, render
from supervisord_cp.model.scaling import (
    Carried,
    DirectionRules,
    Recommendation,
    ScaleEvent,
    ScaleHistory,
    ScaleLimits,
    ScaleRecord,
    ScaleState,
    ScaleView,
    SelectPolicy,
    ShrinkCheck,
)
from tests.core.scaling_kit import (
    BUSY,
    FREE,
    HPA_DEFAULTS,
    IDLE,
    KNOWN,
    START,
    at,
    behavior,
    demand,
    pods,
    replicas,
    scaler,
    signal,
    view,
)
from tests.core.scaling_world import World
from tests.core.test_envelope_laws import BEHAVIORS, MOMENTS, USES, history

TOKENS = scaler("hpa", signal="prompt_tokens_per_s", target_average_value=800)
QUERY = scaler("hpa", query="q", target_average_value=10)


def record(
    seen: ScaleView, *scalers: Scaler, limits: ScaleLimits | None = None, past: ScaleHistory | None = None
) -> ScaleRecord:
    limits = limits or ScaleLimits(behavior=FREE)
    made, _ = step(seen, scalers, limits, ScaleState(history=past or ScaleHistory()))
    return made


def of(made: ScaleRecord, code: ReasonCode) -> Otherwise:
    found = [one for one in otherwise(made, KNOWN) if one.change.code is code]
    assert len(found) == 1, [render(one.change) for one in otherwise(made, KNOWN)]
    return found[0]


def test_the_maximum_binds_and_what_there_would_be_without_it() -> None:
    made = record(view(high=8, wanted=8, ready=8, signals=demand(inflight=1, tokens=8800)), TOKENS)
    assert made.decision.wanted == 8
    found = of(made, ReasonCode.WITHOUT_MAX)
    assert (found.wanted, render(found.change)) == (11, "without the maximum of 8")


def test_the_minimum_binds() -> None:
    made = record(view(low=3, wanted=3, ready=3, signals=demand(tokens=100)), TOKENS)
    assert of(made, ReasonCode.WITHOUT_MIN).wanted == 1


def test_a_number_outside_of_its_bounds_is_asked_for_all_the_same() -> None:
    made = record(view(high=4, wanted=9, ready=9, signals=demand(inflight=1, tokens=8000)), TOKENS)
    assert made.decision.wanted == 4
    assert of(made, ReasonCode.WITHOUT_MAX).wanted == 10


def test_bounds_that_a_policy_sets() -> None:
    night = scaler("schedule", periods=[{"start": "0 0 * * *", "end": "59 23 * * *", "max": 2, "min": 1}])
    seen = view(wanted=2, ready=2, wall_s=1_700_000_000.0, signals=demand(tokens=4000))
    found = of(record(seen, TOKENS, night), ReasonCode.WITHOUT_POLICY_BOUND)
    assert (found.wanted, render(found.change)) == (5, "without the bound that schedule sets for now")


@pytest.mark.parametrize(
    ("limits", "code"),
    [({"gpus_left": 4}, ReasonCode.WITHOUT_GPU_BUDGET), ({"gpu_share": 4}, ReasonCode.WITHOUT_GPU_SHARE)],
)
def test_gpus_bind(limits: dict, code: ReasonCode) -> None:
    seen = view(wanted=2, ready=2, signals=demand(tokens=4000))
    made = record(seen, TOKENS, limits=ScaleLimits(behavior=FREE, gpus_per_replica=2, **limits))
    assert (made.decision.wanted, of(made, code).wanted) == (2, 5)


def test_a_limit_behind_a_limit_is_told() -> None:
    """Lifting one alone changes nothing, and the answer names the next."""
    seen = view(high=4, wanted=4, ready=4, signals=demand(tokens=8000))
    found = of(record(seen, TOKENS, limits=ScaleLimits(behavior=FREE, gpus_left=4)), ReasonCode.WITHOUT_MAX)
    assert (found.wanted, found.because.code) == (4, ReasonCode.GPU_BUDGET)


def test_how_long_the_window_holds_a_decrease() -> None:
    past = ScaleHistory(
        recommendations=(
            Recommendation(replicas=8, at_s=START - 88.0),
            Recommendation(replicas=5, at_s=START - 20.0),
        ),
        last_s=START - 1.0,
    )
    seen = view(wanted=8, ready=8, signals=demand(inflight=1, tokens=1600))
    rules = behavior(down=DirectionRules(stabilization_window_s=300.0))
    made = record(seen, TOKENS, limits=ScaleLimits(behavior=rules), past=past)
    assert made.decision.wanted == 8
    found = of(made, ReasonCode.AFTER_WINDOW)
    assert (found.in_s, found.wanted) == (pytest.approx(280.0), 2)
    assert "280 s" in render(found.change)


def test_the_window_of_a_world_ends_when_it_was_said_to() -> None:
    world = World([TOKENS]).begin(5).run(100, arriving=4000).run(20, arriving=1600)
    found = of(world.records[-1], ReasonCode.AFTER_WINDOW)
    assert found.in_s is not None
    said = world.now + found.in_s
    world.run(400, arriving=1600)
    ((when, change),) = world.changes()
    assert (when + START, 5 + change) == (pytest.approx(said, abs=1.01), found.wanted)


def test_how_long_the_window_holds_an_increase() -> None:
    past = ScaleHistory(recommendations=(Recommendation(replicas=2, at_s=START - 10.0),), last_s=START - 1)
    rules = behavior(up=DirectionRules(stabilization_window_s=60.0, policies=(pods(100),)))
    seen = view(wanted=2, ready=2, signals=demand(tokens=4000))
    found = of(record(seen, TOKENS, limits=ScaleLimits(behavior=rules), past=past), ReasonCode.AFTER_WINDOW)
    assert (found.in_s, found.wanted) == (pytest.approx(50.0), 5)


def test_when_the_rate_limits_allow_the_next_step() -> None:
    rules = behavior(up=DirectionRules(stabilization_window_s=0.0, policies=(pods(2, 60.0),)))
    past = ScaleHistory(events=(ScaleEvent(change=2, at_s=START - 45.0),), last_s=START - 1)
    seen = view(wanted=4, ready=4, signals=demand(tokens=8000))
    made = record(seen, TOKENS, limits=ScaleLimits(behavior=rules), past=past)
    assert made.decision.wanted == 4
    found = of(made, ReasonCode.AFTER_RATE)
    assert (found.in_s, found.wanted) == (pytest.approx(15.0), 6)
    assert of(made, ReasonCode.WITHOUT_RATE).wanted == 10


def test_a_direction_that_is_disabled() -> None:
    rules = behavior(up=DirectionRules(select_policy=SelectPolicy.DISABLED))
    seen = view(wanted=4, ready=4, signals=demand(tokens=8000))
    made = record(seen, TOKENS, limits=ScaleLimits(behavior=rules))
    assert of(made, ReasonCode.IF_ENABLED).wanted == 8  # by the rate limits then


def test_starting_replicas_that_are_counted_on() -> None:
    past = ScaleHistory(carried=Carried(signal="prompt_tokens_per_s", per_replica=1000.0), last_s=START - 1)
    seen = view(
        wanted=4,
        ready=2,
        starting=2,
        signals=demand(queued=80, tokens=4000, inflight=9) | {"waiting": signal(40.0)},
    )
    waiting = scaler("hpa", signal="waiting", target_average_value=5)
    found = of(record(seen, waiting, past=past), ReasonCode.WITHOUT_PENDING)
    assert found.wanted == 8


def test_the_load_below_which_it_may_shrink() -> None:
    check = ShrinkCheck(load=signal(30.0), per_replica=signal(10.0), fill=0.8)
    seen = view(wanted=6, ready=6, signals=demand(tokens=800, inflight=1))
    made = record(seen, TOKENS, limits=ScaleLimits(behavior=FREE, shrink_check=check))
    assert made.decision.wanted == 4
    found = of(made, ReasonCode.IF_LOAD_BELOW)
    assert (found.wanted, found.change.params["value"]) == (3, 24)
    assert of(made, ReasonCode.WITHOUT_SHRINK_CHECK).wanted == 1


def test_a_shrink_check_that_knows_nothing() -> None:
    check = ShrinkCheck(load=signal(None), per_replica=signal(10.0))
    seen = view(wanted=6, ready=6, signals=demand(tokens=800, inflight=1))
    made = record(seen, TOKENS, limits=ScaleLimits(behavior=FREE, shrink_check=check))
    assert of(made, ReasonCode.WITHOUT_SHRINK_CHECK).wanted == 1


@pytest.mark.parametrize(("since", "left"), [(START - 400.0, 200.0), (None, 600.0)])
def test_the_last_replica_waits_to_be_idle(since: float | None, left: float) -> None:
    signals = IDLE if since is not None else demand(inflight=1)
    seen = view(low=0, wanted=1, ready=1, signals=signals)
    nothing = scaler("fixed", replicas=0)
    past = ScaleHistory(idle_since_s=since, last_s=START - 1)
    made = record(seen, nothing, limits=ScaleLimits(behavior=FREE, idle_s=600.0), past=past)
    found = of(made, ReasonCode.IF_IDLE)
    assert (found.wanted, found.in_s) == (0, pytest.approx(left))


def test_stale_data_and_what_it_would_say_as_fresh() -> None:
    stale = signal(80.0, age=34.0)
    seen = view(wanted=4, ready=4, signals=BUSY, queries={"q": stale})
    made = record(seen, QUERY)
    assert made.decision.held
    found = of(made, ReasonCode.IF_FRESH)
    assert found.wanted == 8
    assert render(found.change) == "if q (34 s old, at most 15 s count) were still 80"


@pytest.mark.parametrize("value", [None, math.nan])
def test_data_that_is_missing_is_named_and_nothing_is_guessed(value: float | None) -> None:
    seen = view(wanted=4, ready=4, signals=BUSY, queries={"q": signal(value)})
    found = of(record(seen, QUERY), ReasonCode.IF_KNOWN)
    assert found.wanted is None
    assert "q" in render(found.change)


def test_an_override_hides_what_automatic_would_do() -> None:
    limits = ScaleLimits(behavior=FREE, override=Override(deployment="chat", replicas=7))
    seen = view(wanted=7, ready=7, signals=demand(tokens=1600))
    found = of(record(seen, TOKENS, limits=limits), ReasonCode.WITHOUT_OVERRIDE)
    assert (found.wanted, render(found.change)) == (2, "after `supervisord-cp scale chat auto`")


def test_the_load_at_which_a_scaler_asks_for_one_more_and_one_less() -> None:
    seen = view(wanted=5, ready=5, signals=demand(tokens=4000, inflight=9))
    (mine,) = thresholds(record(seen, TOKENS), KNOWN)
    assert (mine.policy, mine.signal, mine.value) == ("hpa", "prompt_tokens_per_s", 4000)
    assert (mine.more_above, mine.more) == (pytest.approx(4400, rel=1e-3), 6)
    assert (mine.less_below, mine.less) == (pytest.approx(3200, rel=1e-3), 4)


def test_thresholds_are_those_that_matter_within_the_bounds() -> None:
    """At the maximum no load brings more, and what brings fewer is less than what it asks for at all."""
    seen = view(high=4, wanted=4, ready=4, signals=demand(tokens=8000, inflight=9))
    (mine,) = thresholds(record(seen, TOKENS), KNOWN)
    assert (mine.replicas, mine.more_above, mine.more) == (10, None, None)
    assert (mine.less_below, mine.less) == (pytest.approx(2400, rel=1e-3), 3)


def test_thresholds_of_a_query_that_is_zero() -> None:
    seen = view(low=1, wanted=1, ready=1, signals=BUSY, queries={"q": signal(0.0)})
    (mine,) = thresholds(record(seen, QUERY), KNOWN)
    assert (mine.more_above, mine.more) == (pytest.approx(11.0, rel=1e-3), 2)
    assert mine.less_below is None


def test_thresholds_from_samples_of_replicas() -> None:
    busy = scaler("hpa", signal="kv_cache_usage", target_utilization=80)
    seen = view(wanted=2, ready=2, replicas=replicas("RR", [0.8, 0.8], "kv_cache_usage"), signals=BUSY)
    (mine,) = thresholds(record(seen, busy), KNOWN)
    assert mine.value == 80
    assert (mine.more_above, mine.more) == (pytest.approx(88, rel=0.02), 3)
    assert (mine.less_below, mine.less) == (pytest.approx(40, rel=0.03), 1)


def test_thresholds_of_windows_are_those_of_a_load_that_lasts() -> None:
    world = World([scaler("kpa", target=10)], load_s=1).begin(2).run(200, arriving=1000)
    (mine,) = thresholds(world.records[-1], KNOWN)
    assert mine.signal == "concurrency"
    assert mine.more_above is not None
    assert mine.more_above > mine.value
    number = world.records[-1].decision.proposals[0].replicas
    assert mine.more_above == pytest.approx(7 * (number or 0), rel=0.01)


def test_thresholds_of_work_in_several_signals_are_a_share_of_it() -> None:
    slo = scaler("queue_slo")
    signals = demand(tokens=1600, inflight=4) | {"prefill_capacity": signal(1000.0)}
    seen = view(wanted=2, ready=2, signals=signals, slo_ttft_s=2.0, start_s=30.0)
    (mine,) = thresholds(record(seen, slo), KNOWN)
    assert (mine.signal, mine.value) == ("", 1.0)
    assert (mine.more_above, mine.more) == (pytest.approx(1.1, rel=1e-3), 3)


def test_a_fixed_number_has_no_thresholds() -> None:
    assert thresholds(record(view(wanted=2, ready=2, signals=BUSY), scaler("fixed", replicas=2)), KNOWN) == ()


def test_a_scaler_that_is_gone_stops_nothing() -> None:
    made = record(view(high=4, wanted=4, ready=4, signals=demand(tokens=8000)), TOKENS)
    call = replace(made.calls[0], use="gone")
    gone = replace(made, calls=(call,))
    assert thresholds(gone, KNOWN) == ()
    assert of(gone, ReasonCode.WITHOUT_MAX).wanted == 10


@settings(max_examples=60, deadline=None)
@given(MOMENTS, USES, BEHAVIORS)
def test_every_limit_and_every_hold_has_its_otherwise(moments, scalers, rules) -> None:
    for made in history(moments[:6], scalers, ScaleLimits(behavior=rules, gpus_left=7), high=5):
        found = otherwise(made, KNOWN)
        for limit in made.decision.limits:
            if limit.reason.code is not ReasonCode.WAKE:
                assert any(limit.reason == one.lifts for one in found), limit
        if made.decision.held:
            assert any(one.change.code in (ReasonCode.IF_KNOWN, ReasonCode.IF_FRESH) for one in found)
        for one in found:
            assert render(one.change)
            assert "?" not in render(one.change)
            assert one.in_s is None or one.in_s >= 0
            assert one.wanted is None or one.wanted >= 0


def test_later_views_do_not_change_the_record() -> None:
    made = record(at(view(wanted=5, ready=5, signals=demand(tokens=4000)), 3), TOKENS)
    before = repr(made)
    otherwise(made, KNOWN)
    thresholds(made, KNOWN)
    assert repr(made) == before
    assert HPA_DEFAULTS.scale_down.policies == ()
