"""What the envelope adds to HPA's behaviour: zero, waking, what is starting, checks, bounds of policies."""

import math

import pytest
from msgspec.structs import replace

from supervisord_cp.core.scaling.envelope import decide
from supervisord_cp.core.scaling.history import MOST_EVENTS, changed
from supervisord_cp.model.assignment import Override
from supervisord_cp.model.reason import Reason, ReasonCode, render
from supervisord_cp.model.scaling import (
    Carried,
    DirectionRules,
    Recommendation,
    ScaleDecision,
    ScaleEvent,
    ScaleHistory,
    ScaleLimits,
    ScaleProposal,
    ScaleView,
    ShrinkCheck,
)
from supervisord_cp.model.signal import ReplicaPhase, ReplicaView, Signal
from supervisord_cp.policy import pending_replicas
from tests.core.scaling_kit import (
    BUSY,
    FREE,
    HPA_DEFAULTS,
    IDLE,
    START,
    at,
    behavior,
    demand,
    percent,
    proposal,
    signal,
    view,
)

LIMITS = ScaleLimits(behavior=FREE, idle_s=600)


def settled(**fields: object) -> ScaleHistory:
    """A history in which no window holds anything back."""
    return ScaleHistory(
        recommendations=(Recommendation(replicas=0, at_s=START - 1),), last_s=START - 1, **fields
    )


def decided(
    seen: ScaleView,
    *proposals: ScaleProposal,
    limits: ScaleLimits = LIMITS,
    history: ScaleHistory | None = None,
) -> ScaleDecision:
    made, _ = decide(seen, proposals, limits, settled() if history is None else history)
    assert "?" not in render(made.reason)
    return made


def codes(made: ScaleDecision) -> list[ReasonCode]:
    return [limit.reason.code for limit in made.limits]


# The last replica


@pytest.mark.parametrize(
    ("idle_for", "signals", "wanted"),
    [
        (600, IDLE, 0),
        (599, IDLE, 1),
        (None, IDLE, 1),
        (900, BUSY, 1),
        (900, demand(queued=None), 1),  # unknown is not idle
        (900, {}, 1),
        (900, demand(generated=5), 1),  # somebody uses the engine past the routers
        (900, demand(generated=None), 0),
    ],
)
def test_the_last_replica_stays_until_nothing_was_asked_for_long_enough(
    idle_for: float | None, signals: dict, wanted: int
) -> None:
    seen = view(low=0, wanted=1, ready=1, signals=signals)
    since = None if idle_for is None else START - idle_for
    made = decided(seen, proposal(0), history=settled(idle_since_s=since))
    assert made.wanted == wanted
    assert codes(made) == ([] if wanted == 0 else [ReasonCode.IDLE_WAIT])


def test_idle_time_begins_anew_with_each_request() -> None:
    history, seen = ScaleHistory(), view(low=0, wanted=1, ready=1)
    wanted = []
    for seconds, signals in [(0, IDLE), (500, BUSY), (550, IDLE), (1149, IDLE), (1150, IDLE)]:
        made, history = decide(at(seen, seconds, signals=signals), [proposal(0)], LIMITS, history)
        wanted.append(made.wanted)
    assert wanted == [1, 1, 1, 1, 0]


def test_idle_time_is_not_measured_on_another_clock() -> None:
    seen = view(low=0, wanted=1, ready=1, signals=IDLE)
    _, history = decide(at(seen, 5000), [proposal(0)], ScaleLimits(), ScaleHistory())
    _, history = decide(seen, [proposal(0)], ScaleLimits(), history)
    assert history.idle_since_s == START


def test_several_replicas_go_down_to_the_last_one_first() -> None:
    made = decided(view(low=0, wanted=5, ready=5, signals=IDLE), proposal(0))
    assert (made.wanted, codes(made)) == (1, [ReasonCode.IDLE_WAIT])


def test_with_a_minimum_there_is_no_zero() -> None:
    made = decided(
        view(low=1, wanted=1, ready=1, signals=IDLE), proposal(0), history=settled(idle_since_s=0.0)
    )
    assert (made.wanted, codes(made)) == (1, [ReasonCode.BOUND_MIN])
    assert render(made.reason).startswith("raised to the minimum of 1: ")


# Waking


@pytest.mark.parametrize(
    ("signals", "proposals", "wanted"),
    [
        (demand(queued=3), (proposal(0),), 1),
        (demand(queued=3), (proposal(None),), 1),  # even when no scaler knows anything
        (demand(queued=3), (), 1),
        (demand(queued=3), (proposal(4),), 4),
        (IDLE, (proposal(0),), 0),
        (IDLE, (proposal(None),), 0),
        (demand(queued=None), (proposal(0),), 0),
        ({"queued": signal(3, age=60)}, (proposal(0),), 0),
    ],
)
def test_a_request_that_waits_at_zero_brings_a_replica(signals: dict, proposals: tuple, wanted: int) -> None:
    assert decided(view(low=0, wanted=0, signals=signals), *proposals).wanted == wanted


def test_neither_window_nor_rate_delays_waking() -> None:
    slow = behavior(up=DirectionRules(stabilization_window_s=3600, policies=(percent(10),)))
    seen = view(low=0, wanted=0, signals=demand(queued=1))
    made = decided(seen, proposal(0), limits=ScaleLimits(behavior=slow), history=ScaleHistory())
    assert (made.wanted, made.reason.code) == (1, ReasonCode.WAKE)


def test_who_was_woken_stays_for_the_window() -> None:
    rules = behavior(down=DirectionRules(stabilization_window_s=60))
    limits, history = ScaleLimits(behavior=rules, idle_s=0), ScaleHistory()
    asleep, awake = view(low=0, wanted=0), view(low=0, wanted=1, ready=1)
    wanted = []
    for seconds, seen, signals in [
        (0, asleep, IDLE),
        (100, asleep, demand(queued=1)),
        (101, awake, IDLE),
        (159, awake, IDLE),
        (160, awake, IDLE),
    ]:
        made, history = decide(at(seen, seconds, signals=signals), [proposal(0)], limits, history)
        wanted.append(made.wanted)
    assert wanted == [0, 1, 1, 1, 0]


WOKEN = demand(queued=2)
COMING = {"wanted": 1, "starting": 1}
ASKS = proposal(1)
CALM = ScaleLimits(behavior=behavior(down=DirectionRules(stabilization_window_s=300)), idle_s=600)


@pytest.mark.parametrize(
    ("low", "after", "waits", "made", "cancelled_after"),
    [
        (0, COMING, IDLE, proposal(0), 10),
        (0, COMING, IDLE, proposal(None), 10),
        (0, COMING, WOKEN, proposal(0), None),
        (0, COMING, demand(queued=None), proposal(0), None),
        (0, COMING, demand(queued=0, inflight=1), proposal(0), None),
        (0, COMING, IDLE, ASKS, None),
        (0, COMING, IDLE, proposal(0, at_least=1), None),
        (1, COMING, IDLE, proposal(0), None),
        (0, {"wanted": 1, "ready": 1}, IDLE, proposal(0), None),
    ],
)
def test_a_start_that_nobody_waits_for_is_cancelled(
    low: int, after: dict, waits: dict, made: ScaleProposal, cancelled_after: int | None
) -> None:
    history, cancelled = ScaleHistory(), None
    decision, history = decide(at(view(low=0, wanted=0), 0, signals=WOKEN), [proposal(0)], CALM, history)
    assert decision.wanted == 1
    for seconds in range(1, 60):
        seen = at(view(low=low, **after), seconds, signals=WOKEN if seconds < 5 else waits)
        decision, history = decide(seen, [made], CALM, history)
        if decision.wanted == 0:
            assert decision.reason.code is ReasonCode.NOBODY_WAITS
            cancelled = seconds - 5
            break
    assert cancelled == cancelled_after


def test_who_comes_back_in_time_is_waited_for() -> None:
    _, history = decide(at(view(low=0, wanted=0), 0, signals=WOKEN), [proposal(0)], CALM, ScaleHistory())
    for seconds in range(1, 60):
        seen = at(view(low=0, **COMING), seconds, signals=WOKEN if seconds % 8 == 0 else IDLE)
        decision, history = decide(seen, [proposal(0)], CALM, history)
        assert decision.wanted == 1


def test_what_a_scaler_ordered_is_not_cancelled() -> None:
    _, history = decide(at(view(low=0, wanted=0), 0, signals=IDLE), [proposal(2)], CALM, ScaleHistory())
    for seconds in range(1, 60):
        seen = at(view(low=0, wanted=2, starting=2), seconds, signals=IDLE)
        decision, history = decide(seen, [proposal(0)], CALM, history)
        assert decision.wanted == 2


@pytest.mark.parametrize(
    ("closed", "limits"),
    [(proposal(0, at_most=0), LIMITS), (proposal(0), replace(LIMITS, gpus_left=0))],
)
def test_waking_keeps_to_maximum_and_budget(closed: ScaleProposal, limits: ScaleLimits) -> None:
    assert decided(view(low=0, wanted=0, signals=demand(queued=9)), closed, limits=limits).wanted == 0


# What is starting


def starting(ready: int, coming: int, age: float = 10.0, **fields: object) -> ScaleView:
    each = tuple(ReplicaView(id=f"chat-{n}") for n in range(ready)) + tuple(
        ReplicaView(id=f"chat-{ready + n}", phase=ReplicaPhase.STARTING, age_s=age) for n in range(coming)
    )
    given: dict = {"wanted": ready + coming, "start_s": 240.0, **fields}
    return view(ready=ready, starting=coming, replicas=each, **given)


ONE_CARRIES = Carried(signal="prompt_tokens_per_s", per_replica=1000.0)


@pytest.mark.parametrize(
    ("ready", "coming", "age", "arriving", "carried", "asked", "wanted"),
    [
        (1, 2, 10, 3000, ONE_CARRIES, 9, 3),  # ordered for what arrives: not ordered again
        (1, 2, 10, 3200, ONE_CARRIES, 9, 3),  # within the tolerance
        (1, 2, 10, 4500, ONE_CARRIES, 9, 5),  # more arrives by now
        (1, 2, 10, 4500, ONE_CARRIES, 4, 4),
        (1, 1, 10, 3000, ONE_CARRIES, 9, 3),  # the first order was too small
        (1, 2, 480, 3000, ONE_CARRIES, 9, 3),
        (1, 2, 481, 3000, ONE_CARRIES, 9, 9),  # late: twice what a start takes
        (3, 0, 10, 3000, ONE_CARRIES, 9, 9),  # all are ready, and it is not enough
        (1, 2, 10, 3000, None, 9, 9),  # nobody has seen what one carries
        (1, 2, 10, None, ONE_CARRIES, 9, 9),
        (1, 2, 10, 3000, Carried(signal="requests_per_s", per_replica=1.0), 9, 9),
        (1, 2, 10, 3000, Carried(signal="prompt_tokens_per_s", per_replica=0.0), 9, 9),
        (1, 2, 10, 500, ONE_CARRIES, 2, 2),  # it holds nothing up on the way down
    ],
)
def test_what_is_starting_is_not_ordered_twice(
    ready: int,
    coming: int,
    age: float,
    arriving: float | None,
    carried: Carried | None,
    asked: int,
    wanted: int,
) -> None:
    seen = starting(ready, coming, age, signals={**demand(queued=50, inflight=20, rps=None, tokens=arriving)})
    made = decided(seen, proposal(asked), history=settled(carried=carried))
    assert made.wanted == wanted
    assert codes(made) == ([ReasonCode.PENDING] if wanted < asked else [])


def test_what_cannot_be_placed_is_not_ordered_twice() -> None:
    seen = view(wanted=3, ready=1, signals=demand(queued=50, tokens=3000))
    assert pending_replicas(seen) == 2
    assert decided(seen, proposal(9), history=settled(carried=ONE_CARRIES)).wanted == 3


def test_what_failed_is_not_on_its_way() -> None:
    failed = ReplicaView(id="chat-1", phase=ReplicaPhase.FAILED)
    seen = view(
        wanted=2,
        ready=1,
        starting=1,
        replicas=(ReplicaView(id="chat-0"), failed),
        signals=demand(queued=50, tokens=2000),
    )
    assert decided(seen, proposal(3), history=settled(carried=ONE_CARRIES)).wanted == 3


def test_what_a_replica_carries_is_learned_while_nothing_waits() -> None:
    history = ScaleHistory()
    calm = view(wanted=2, ready=2, signals=demand(inflight=4, tokens=1000))
    for n in range(600):
        _, history = decide(at(calm, n), [proposal(2)], LIMITS, history)
    assert history.carried is not None
    assert history.carried.per_replica == pytest.approx(500)
    before = history.carried
    waiting = at(calm, 600, signals=demand(queued=1, tokens=9000))
    unknown = at(calm, 600, signals=demand(queued=None, tokens=9000))
    in_engine = at(calm, 600, signals={**demand(tokens=9000), "waiting": signal(3)})
    coming = at(starting(1, 1), 600, signals=demand(tokens=9000))
    for unsettled in (waiting, unknown, in_engine, coming):
        _, after = decide(unsettled, [proposal(2)], LIMITS, history)
        assert after.carried == before
    busier = at(calm, 660, signals=demand(tokens=2000))
    _, after = decide(busier, [proposal(2)], LIMITS, history)
    assert after.carried is not None
    assert after.carried.per_replica == pytest.approx(500 + 500 * 0.638, rel=0.01)


# Whether fewer would do


def check(load: Signal, per_replica: Signal, fill: float = 0.8) -> ScaleLimits:
    return replace(LIMITS, shrink_check=ShrinkCheck(load=load, per_replica=per_replica, fill=fill))


@pytest.mark.parametrize(
    ("load", "per_replica", "asked", "wanted", "code"),
    [
        (signal(24), signal(10), 2, 3, ReasonCode.SHRINK_UNSAFE),  # 24 / (10 x 0.8)
        (signal(16), signal(10), 2, 2, None),
        (signal(33), signal(10), 1, 5, ReasonCode.SHRINK_UNSAFE),
        (signal(990), signal(10), 1, 5, ReasonCode.SHRINK_UNSAFE),  # it orders nothing
        (signal(990), signal(10), 7, 7, None),
        (signal(0), signal(None), 1, 1, None),  # nothing is carried by anything
        (signal(16), signal(None), 2, 5, ReasonCode.SHRINK_UNKNOWN),
        (signal(16), signal(0), 2, 5, ReasonCode.SHRINK_UNKNOWN),
        (signal(None), signal(10), 2, 5, ReasonCode.SHRINK_UNKNOWN),
        (signal(16, age=99), signal(10), 2, 5, ReasonCode.SHRINK_UNKNOWN),
        (signal(float("nan")), signal(10), 2, 5, ReasonCode.SHRINK_UNKNOWN),
    ],
)
def test_it_shrinks_only_to_what_can_carry_the_load(
    load: Signal, per_replica: Signal, asked: int, wanted: int, code: ReasonCode | None
) -> None:
    seen = view(wanted=5, ready=5, signals=BUSY)
    made = decided(seen, proposal(asked), limits=check(load, per_replica))
    assert (made.wanted, codes(made)) == (wanted, [] if code is None else [code])
    assert made.held is (code is ReasonCode.SHRINK_UNKNOWN)


# Bounds that policies set


@pytest.mark.parametrize(
    ("current", "proposals", "wanted", "code"),
    [
        (2, (proposal(2, at_least=4),), 4, ReasonCode.POLICY_MIN),
        (6, (proposal(6, at_most=3),), 3, ReasonCode.POLICY_MAX),
        (3, (proposal(9, at_most=5),), 5, ReasonCode.POLICY_MAX),
        (5, (proposal(1, at_least=4),), 4, ReasonCode.POLICY_MIN),
        (2, (proposal(2, at_least=40),), 10, ReasonCode.POLICY_MIN),  # not beyond the configuration
        (6, (proposal(6, at_most=0),), 1, ReasonCode.POLICY_MAX),
        (5, (proposal(5, at_least=7), proposal(5, at_most=4)), 4, ReasonCode.POLICY_MAX),
        (4, (proposal(4, at_least=7), proposal(4, at_most=4)), 4, ReasonCode.NONE),
        (5, (proposal(5, at_most=8), proposal(9, at_most=6)), 6, ReasonCode.POLICY_MAX),
        (5, (proposal(5, at_least=5, at_most=5), proposal(None)), 5, ReasonCode.NONE),
        (5, (proposal(None), proposal(0, at_most=3)), 3, ReasonCode.POLICY_MAX),  # the calendar is known
    ],
)
def test_bounds_of_policies(current: int, proposals: tuple, wanted: int, code: ReasonCode) -> None:
    made = decided(view(wanted=current, ready=current, signals=BUSY), *proposals)
    assert (made.wanted, made.reason.code) == (wanted, code)


def test_a_minimum_by_the_calendar_does_not_wait_for_windows() -> None:
    slow = behavior(up=DirectionRules(stabilization_window_s=3600, policies=(percent(10),)))
    made = decided(view(wanted=1, ready=1), proposal(1, at_least=6), limits=ScaleLimits(behavior=slow))
    assert made.wanted == 6


# Holding, overrides and restarts


def test_holding_says_what_is_missing() -> None:
    made = decided(view(wanted=4, ready=2, starting=1, signals=BUSY), proposal(None))
    assert (made.wanted, made.held, made.reason.code) == (4, True, ReasonCode.HOLD)
    assert render(made.reason) == "held: no data"


def test_holding_tells_the_reason_of_the_one_that_does_not_know() -> None:
    loaded = Reason(code=ReasonCode.HOLD, params={"why": "no scaler named x is loaded"})
    made = decided(view(wanted=4, ready=4), proposal(2), proposal(None, reason=loaded))
    assert render(made.reason) == "held: no scaler named x is loaded"
    late = Reason(code=ReasonCode.SIGNAL_STALE, params={"signal": "q", "age": 20.5})
    made = decided(view(wanted=4, ready=4), proposal(None), proposal(None, reason=late))
    assert render(made.reason) == "held: no data: q is 20.5 s old"


def test_before_anything_was_decided_it_starts_from_what_there_is() -> None:
    made = decided(view(ready=2, starting=1, signals=BUSY), proposal(None))
    assert (made.current, made.wanted) == (3, 3)


def test_the_whole_way_of_a_number_is_listed() -> None:
    seen = view(high=20, wanted=4, ready=4, signals=BUSY)
    limits = ScaleLimits(behavior=HPA_DEFAULTS, gpus_per_replica=2, gpu_share=14, gpus_left=12)
    made = decided(seen, proposal(99), limits=limits)
    assert [(limit.reason.code, limit.before, limit.after) for limit in made.limits] == [
        (ReasonCode.BOUND_MAX, 99, 20),
        (ReasonCode.RATE_UP, 20, 8),
        (ReasonCode.GPU_SHARE, 8, 7),
        (ReasonCode.GPU_BUDGET, 7, 6),
    ]
    assert made.wanted == 6
    assert made.reason == made.limits[-1].reason


def test_after_an_override_the_windows_begin_anew() -> None:
    limits, history = ScaleLimits(behavior=HPA_DEFAULTS), ScaleHistory()
    seen = view(wanted=2, ready=2, signals=BUSY)
    for n in range(0, 400, 10):
        _, history = decide(at(seen, n), [proposal(2)], limits, history)
    by_hand = replace(limits, override=Override(deployment="chat", replicas=7))
    made, history = decide(at(seen, 400), [proposal(2)], by_hand, history)
    assert (made.wanted, made.reason.code) == (7, ReasonCode.OVERRIDE)
    after = replace(seen, wanted=7, ready=7)
    wanted = []
    for n in (410, 709, 710):
        made, history = decide(at(after, n), [proposal(2)], limits, history)
        wanted.append(made.wanted)
    assert wanted == [7, 7, 2]


@pytest.mark.parametrize("lost", [ScaleHistory(), ScaleHistory(last_s=START + 9999)])
def test_without_a_history_the_present_number_fills_the_window(lost: ScaleHistory) -> None:
    limits = ScaleLimits(behavior=HPA_DEFAULTS)
    seen = view(ready=6, signals=BUSY)
    made, history = decide(seen, [proposal(1)], limits, lost)
    assert (made.wanted, made.reason.code) == (6, ReasonCode.STABILIZED_DOWN)
    made, history = decide(at(seen, 299, wanted=6), [proposal(1)], limits, history)
    assert made.wanted == 6
    made, history = decide(at(seen, 300, wanted=6), [proposal(1)], limits, history)
    assert made.wanted == 1


def test_a_gap_longer_than_the_window_is_like_a_restart() -> None:
    limits, seen = ScaleLimits(behavior=HPA_DEFAULTS), view(wanted=6, ready=6, signals=BUSY)
    _, history = decide(seen, [proposal(6)], limits, ScaleHistory())
    made, _ = decide(at(seen, 3000), [proposal(1)], limits, history)
    assert made.wanted == 6


def test_the_history_is_bounded() -> None:
    history, current = ScaleHistory(), 50
    limits = ScaleLimits(behavior=behavior())
    for n in range(2000):
        asked = (n * 37) % 100
        seen = at(view(low=0, high=100, signals=BUSY), n * 0.05, wanted=current, ready=current)
        made, history = decide(seen, [proposal(asked)], limits, history)
        current = made.wanted
    assert len(history.events) <= MOST_EVENTS
    assert len(history.recommendations) <= 101


def test_too_many_events_become_fewer_and_still_count() -> None:
    history = ScaleHistory(events=tuple(ScaleEvent(change=1, at_s=START + n) for n in range(MOST_EVENTS)))
    after = changed(history, -2, START + MOST_EVENTS)
    assert len(after.events) == MOST_EVENTS
    assert after.events[0] == ScaleEvent(change=2, at_s=START + 1)
    assert sum(event.change for event in after.events) == MOST_EVENTS - 2
    assert changed(history, 0, START) == history


# what a replica takes in while requests wait


@pytest.mark.parametrize(
    ("signals", "ready", "before", "after"),
    [
        (demand(queued=5) | {"prefill_tokens_per_s": signal(3000.0)}, 2, None, 1500.0),
        (demand() | {"waiting": signal(4.0), "prefill_tokens_per_s": signal(3000.0)}, 2, None, 1500.0),
        (demand(queued=5) | {"prefill_tokens_per_s": signal(3000.0)}, 2, 1500.0, 1500.0),
        (demand(queued=5) | {"prefill_tokens_per_s": signal(3000.0)}, 0, 900.0, 900.0),
        (demand(queued=0) | {"prefill_tokens_per_s": signal(3000.0)}, 2, 900.0, 900.0),
        (demand(queued=5) | {"prefill_tokens_per_s": signal(0.0)}, 2, 900.0, 900.0),
        (demand(queued=5) | {"prefill_tokens_per_s": signal(None)}, 2, 900.0, 900.0),
        (demand(queued=5) | {"prefill_tokens_per_s": signal(3000.0, age=60)}, 2, None, None),
    ],
)
def test_prefill_capacity_is_learned_while_requests_wait(signals, ready, before, after) -> None:
    past = ScaleHistory(taken_in=before, last_s=START - 1.0)
    seen = view(wanted=2, ready=ready, starting=2 - ready, signals=signals)
    assert decide(seen, [proposal(2)], LIMITS, past)[1].taken_in == after
    assert decide(seen, [proposal(2)], ScaleLimits(), past)[1].taken_in == after


def test_prefill_capacity_follows_slowly() -> None:
    past = ScaleHistory(taken_in=1000.0, last_s=START - 60.0)
    signals = demand(queued=5) | {"prefill_tokens_per_s": signal(4000.0)}
    seen = view(wanted=2, ready=2, signals=signals)
    after = decide(seen, [proposal(2)], LIMITS, past)[1].taken_in
    assert after == pytest.approx(1000 + (1 - math.exp(-1)) * 1000)


def test_a_bound_says_whose_number_it_changed() -> None:
    asked = decided(view(high=3, wanted=2, ready=2, signals=BUSY), proposal(9))
    assert render(asked.limits[0].reason) == f"lowered to the maximum of 3: {proposal(9).policy} asks for 9"
    found = decided(view(high=3, wanted=5, ready=5, signals=BUSY), proposal(9))
    assert render(found.reason) == "lowered to the maximum of 3: there were 5"
