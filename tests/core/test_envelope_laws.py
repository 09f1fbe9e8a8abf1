"""Laws of scaling over generated histories: gaps, noise, NaN, stale data, restarts, clocks that jump."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisord_cp.core.scaling.behavior import down_window_s
from supervisord_cp.core.scaling.history import MOST_EVENTS
from supervisord_cp.core.scaling.scalers import Scaler
from supervisord_cp.core.scaling.step import recomputed, step
from supervisord_cp.model.assignment import Override
from supervisord_cp.model.reason import render
from supervisord_cp.model.scaling import (
    Behavior,
    DirectionRules,
    RateKind,
    RatePolicy,
    ScaleLimits,
    ScaleRecord,
    ScaleState,
    SelectPolicy,
    ShrinkCheck,
)
from supervisord_cp.model.signal import SignalName
from tests.core.scaling_kit import KNOWN, START, behavior, demand, scaler, signal, view

RATES = st.tuples(
    st.builds(
        RatePolicy,
        type=st.sampled_from(RateKind),
        value=st.integers(1, 200),
        period_s=st.sampled_from([15.0, 60.0, 600.0]),
    )
)
DIRECTIONS = st.builds(
    DirectionRules,
    stabilization_window_s=st.sampled_from([None, 0.0, 30.0, 300.0]),
    select_policy=st.sampled_from(SelectPolicy),
    policies=st.one_of(st.just(()), RATES),
)
BEHAVIORS = st.builds(Behavior, scale_up=DIRECTIONS, scale_down=DIRECTIONS)


@dataclass(frozen=True)
class Moment:
    """What a step sees."""

    later_s: float
    load: float | None
    queued: int | None
    inflight: int | None
    age: float
    ready: float
    """Share of the wanted ones that are."""
    restart: bool


LATER = st.sampled_from([1.0, 0.1, 1.0, 10.0, 45.0, 299.0, 300.0, 2000.0, -5000.0])
RESTARTS = st.integers(0, 20).map(lambda n: n == 20)
BUSY = st.builds(
    Moment,
    later_s=LATER,
    load=st.floats(1, 2000),
    queued=st.integers(0, 50),
    inflight=st.integers(0, 50),
    age=st.just(0.0),
    ready=st.sampled_from([1.0, 0.5, 0.0]),
    restart=RESTARTS,
)
QUIET = st.builds(
    Moment,
    later_s=LATER,
    load=st.just(0.0),
    queued=st.just(0),
    inflight=st.just(0),
    age=st.just(0.0),
    ready=st.just(1.0),
    restart=RESTARTS,
)
BROKEN = st.builds(
    Moment,
    later_s=LATER,
    load=st.sampled_from([None, math.nan, math.inf, 1e300, 5.0]),
    queued=st.sampled_from([0, 3, None]),
    inflight=st.sampled_from([0, 3, None]),
    age=st.sampled_from([0.0, 14.0, 16.0, 600.0]),
    ready=st.floats(0, 1),
    restart=RESTARTS,
)
PHASES = st.one_of(*(st.lists(kind, min_size=1, max_size=12) for kind in (BUSY, QUIET, BROKEN)))
MOMENTS = st.lists(PHASES, min_size=1, max_size=6).map(lambda phases: [m for p in phases for m in p])
USES = st.lists(
    st.sampled_from(
        [
            scaler("hpa", query="q", target_average_value=100),
            scaler("hpa", query="q", target_value=500),
            scaler("hpa", signal="concurrency", target_average_value=5),
            scaler("kpa", target=10),
            scaler("kpa", metric="rps", target=10, scale_down_delay_s=60),
            scaler("queue_slo"),
            scaler("fixed", replicas=2),
        ]
    ),
    min_size=1,
    max_size=3,
)


def history(
    moments: list[Moment],
    scalers: list[Scaler],
    limits: ScaleLimits,
    *,
    low: int = 0,
    high: int = 10,
    keep: Callable[[bytes], None] = lambda text: None,
) -> list[ScaleRecord]:
    """The records of a run in which every decision is carried out."""
    state, now, wanted, records = ScaleState(), START, 2, []
    known: int | None = None
    for moment in moments:
        now += moment.later_s
        if moment.restart:
            state, known = ScaleState(), None
        load = signal(moment.load, moment.age)
        ready = round(wanted * moment.ready)
        signals = {
            **demand(queued=moment.queued, inflight=moment.inflight, queued_tokens=moment.queued),
            SignalName.REQUESTS_PER_S: load,
            SignalName.PROMPT_TOKENS_PER_S: load,
            SignalName.PREFILL_CAPACITY: signal(200.0),
        }
        seen = view(
            low=low,
            high=high,
            now_s=now,
            wanted=known,
            ready=ready,
            starting=wanted - ready,
            signals=signals,
            queries={"q": load},
            slo_ttft_s=2.0,
            start_s=60.0,
        )
        record, state = step(seen, scalers, limits, state)
        records.append(record)
        keep(msgspec.json.encode(state))
        wanted = known = record.decision.wanted
    return records


@settings(max_examples=60, deadline=None)
@given(MOMENTS, USES, BEHAVIORS, st.integers(0, 3), st.integers(0, 8), st.integers(0, 30), st.integers(1, 3))
def test_never_outside_of_bounds_or_above_the_budget(moments, scalers, rules, low, span, gpus, each) -> None:
    limits = ScaleLimits(behavior=rules, gpus_left=gpus, gpu_share=24, gpus_per_replica=each)
    for record in history(moments, scalers, limits, low=low, high=low + span):
        made = record.decision
        assert 0 <= made.wanted <= low + span
        assert made.wanted * each <= min(gpus, 24)
        assert made.wanted >= min(low, min(gpus, 24) // each)


@settings(max_examples=100, deadline=None)
@given(MOMENTS, USES, BEHAVIORS)
def test_never_down_on_data_that_is_not_known(moments, scalers, rules) -> None:
    for record in history(moments, scalers, ScaleLimits(behavior=rules)):
        made = record.decision
        if any(proposal.replicas is None for proposal in made.proposals):
            assert made.wanted >= min(made.current, 10)
        if made.held:
            assert made.wanted >= made.current


@settings(max_examples=100, deadline=None)
@given(MOMENTS, USES, BEHAVIORS)
def test_never_down_because_memory_is_gone(moments, scalers, rules) -> None:
    """The first step after a restart, or on another clock, keeps what there is where there is a window."""
    waits = down_window_s(rules) > 0
    for record in history(moments, scalers, ScaleLimits(behavior=rules)):
        forgot = record.history.last_s is None or record.view.now_s < record.history.last_s
        if forgot and waits and record.view.current <= 10:
            assert record.decision.wanted >= record.view.current


@settings(max_examples=60, deadline=None)
@given(MOMENTS, USES, BEHAVIORS)
def test_a_restart_that_keeps_its_state_changes_nothing(moments, scalers, rules) -> None:
    """What is kept as text is all that there is to keep."""
    limits = ScaleLimits(behavior=rules)
    states: list[bytes] = []
    calm = [replace(moment, restart=False) for moment in moments]
    first = history(calm, scalers, limits, keep=states.append)
    for record, text in zip(first[1:], states, strict=False):
        again, _ = step(record.view, scalers, limits, msgspec.json.decode(text, type=ScaleState))
        assert again == record


@settings(max_examples=100, deadline=None)
@given(MOMENTS, USES, st.sampled_from([60.0, 300.0]))
def test_no_decrease_within_the_window_of_an_increase(moments, scalers, window) -> None:
    rules = behavior(down=DirectionRules(stabilization_window_s=window))
    rose = before = -math.inf
    for record in history(moments, scalers, ScaleLimits(behavior=rules, idle_s=0.0)):
        made, now = record.decision, record.view.now_s
        if now < before:  # another clock
            rose = -math.inf
        if made.wanted < made.current and made.current <= 10:
            assert now - rose >= window
        if made.wanted > made.current:
            rose = now
        before = now


@settings(max_examples=60, deadline=None)
@given(MOMENTS, USES, BEHAVIORS)
def test_the_last_replica_goes_only_when_nothing_is_asked_for(moments, scalers, rules) -> None:
    for record in history(moments, scalers, ScaleLimits(behavior=rules, idle_s=5.0)):
        if record.decision.wanted == 0 < record.decision.current:
            routers = [record.view.signal(n) for n in (SignalName.QUEUED, SignalName.INFLIGHT)]
            assert all(counted.known and counted.value == 0 for counted in routers)


@settings(max_examples=60, deadline=None)
@given(MOMENTS, USES, BEHAVIORS, st.booleans(), st.one_of(st.none(), st.integers(0, 12)))
def test_every_decision_can_be_made_again_from_its_record(moments, scalers, rules, check, by_hand) -> None:
    shrink = ShrinkCheck(load=signal(30.0), per_replica=signal(10.0)) if check else None
    override = None if by_hand is None else Override(deployment="chat", replicas=by_hand)
    limits = ScaleLimits(behavior=rules, shrink_check=shrink, override=override, gpus_left=8)
    for record in history(moments, scalers, limits):
        stored = msgspec.json.decode(msgspec.json.encode(record), type=ScaleRecord)
        assert stored == record
        assert recomputed(stored, KNOWN) == record.decision


@settings(max_examples=60, deadline=None)
@given(MOMENTS, USES, BEHAVIORS)
def test_the_way_of_a_number_is_without_gaps(moments, scalers, rules) -> None:
    """Each limit begins where the one before ended, the last ends at the decision, and each can be told."""
    for record in history(moments, scalers, ScaleLimits(behavior=rules, gpus_left=7)):
        made = record.decision
        steps = [(limit.before, limit.after) for limit in made.limits]
        assert all(before != after for before, after in steps)
        assert all(one[1] == two[0] for one, two in pairwise(steps))
        if steps:
            assert steps[-1][1] == made.wanted
            assert made.reason == made.limits[-1].reason
        assert all("?" not in render(limit.reason) for limit in made.limits)
        assert render(made.reason)


@settings(max_examples=30, deadline=None)
@given(MOMENTS, USES, BEHAVIORS)
def test_what_is_remembered_is_bounded(moments, scalers, rules) -> None:
    for record in history(moments * 5, scalers, ScaleLimits(behavior=rules)):
        assert len(record.history.recommendations) <= 11
        assert len(record.history.events) <= MOST_EVENTS
        assert len(msgspec.json.encode(record.calls)) < 20_000
