"""The built-in schedulers: who goes first, who goes where, who is refused."""

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from supervisord_cp.builtin.schedulers.adaptive import Adaptive, AdaptiveParams
from supervisord_cp.builtin.schedulers.cost_optimized import CostOptimized, CostParams
from supervisord_cp.builtin.schedulers.fifo import fifo
from supervisord_cp.builtin.schedulers.priority import PriorityParams, priority
from supervisord_cp.builtin.schedulers.slo_aware import SloAware, SloParams
from supervisord_cp.model.request import Candidate, RequestPriority
from supervisord_cp.policy.context import Pace
from supervisord_cp.policy.scheduling import WaitingRequest
from supervisord_cp.policy.testing import candidate, queue_context, waiting

PRIORITIES = st.sampled_from(list(RequestPriority))
ARRIVALS = st.floats(0, 1000)


def test_fifo_is_the_order_of_arrival() -> None:
    assert fifo(waiting(arrived=1.0), queue_context()) < fifo(waiting(arrived=1.1), queue_context())


# --- priority


def rank(arrived: float, level: RequestPriority, now: float = 0.0, ageing_s: float = 20.0) -> float:
    ctx = queue_context(PriorityParams(ageing_s=ageing_s), now=now)
    return priority(waiting(arrived=arrived, priority=level), ctx)


@given(ARRIVALS, ARRIVALS, PRIORITIES)
def test_of_equals_the_older_goes_first(one: float, other: float, level: RequestPriority) -> None:
    assume(one == other or abs(one - other) > 1e-6)  # less is lost in the sum with the level's step
    assert (rank(one, level) < rank(other, level)) is (one < other)


@given(ARRIVALS, PRIORITIES, PRIORITIES)
def test_of_two_that_came_together_the_more_urgent_goes_first(
    arrived: float, one: RequestPriority, other: RequestPriority
) -> None:
    assert (rank(arrived, one) < rank(arrived, other)) is (one < other)


@given(ARRIVALS, PRIORITIES, PRIORITIES, st.floats(0.1, 100), st.floats(0, 5000))
def test_nobody_is_overtaken_by_those_who_came_much_later(
    arrived: float, mine: RequestPriority, theirs: RequestPriority, ageing_s: float, now: float
) -> None:
    """No starvation: whoever came `ageing_s` for each class between us later comes after me, at any time."""
    later = arrived + ageing_s * (len(RequestPriority) - 1) + 1e-3 * (1 + arrived + ageing_s)
    assert rank(arrived, mine, now, ageing_s) < rank(later, theirs, now, ageing_s)


@given(ARRIVALS, PRIORITIES, st.floats(0, 1e6), st.floats(0, 1e6))
def test_a_rank_does_not_change_with_time(
    arrived: float, level: RequestPriority, one: float, other: float
) -> None:
    assert rank(arrived, level, now=one) == rank(arrived, level, now=other)


# --- slo_aware


def context(**fields: Any) -> Any:
    return queue_context(**({"now": 100.0, "request_s": 2.0, "request_tokens": 200.0} | fields))


def order(scheduler: Any, requests: dict[str, WaitingRequest], **fields: Any) -> list[str]:
    return sorted(requests, key=lambda name: scheduler(requests[name], context(**fields)))


def test_least_slack_goes_first() -> None:
    requests = {
        "much time": waiting(arrived=90.0, deadline_ms=60_000),
        "little time": waiting(arrived=95.0, deadline_ms=9_500),
        "as little, and more work": waiting(arrived=95.0, deadline_ms=9_500, decode_tokens=300),
        "no deadline": waiting(arrived=80.0),
    }
    assert order(SloAware(SloParams(default_s=30.0)), requests) == [
        "as little, and more work",
        "little time",
        "no deadline",
        "much time",
    ]


def test_without_a_deadline_the_deployments_objective_counts() -> None:
    requests = {
        "deadline": waiting(arrived=100.0, deadline_ms=10_000),
        "objective": waiting(arrived=100.0, prompt_tokens=100),
    }
    scheduler = SloAware(SloParams(default_s=30.0))
    assert order(scheduler, requests) == ["deadline", "objective"]
    assert order(scheduler, requests, slo_ttft_s=2.0) == ["objective", "deadline"]


def test_what_is_too_late_goes_behind_those_that_are_not_and_does_not_wait_for_ever() -> None:
    scheduler = SloAware(SloParams(default_s=30.0))
    late, fresh = waiting(arrived=95.0), waiting(arrived=99.5)
    assert order(scheduler, {"late": late, "fresh": fresh}, slo_ttft_s=3.0) == ["fresh", "late"]
    assert order(scheduler, {"late": late, "fresh": fresh}, slo_ttft_s=3.0, now=130.0) == ["late", "fresh"]
    much_later = waiting(arrived=125.0)
    assert order(scheduler, {"late": late, "later": much_later}, slo_ttft_s=3.0, now=125.0) == [
        "late",
        "later",
    ]


def test_times_are_those_that_streams_have_shown() -> None:
    pace = Pace(prompt_token_s=0.001, answer_token_s=0.05)
    short, long = (
        waiting(arrived=100.0, prompt_tokens=1000, deadline_ms=4_000, decode_tokens=tokens)
        for tokens in (10, 100)
    )
    scheduler = SloAware(SloParams())
    assert scheduler(short, context(pace=pace)) == pytest.approx(104.0 - 1.0 - 0.5)
    assert scheduler.hopeless(long, context(pace=pace))
    assert not scheduler.hopeless(short, context(pace=pace))


@pytest.mark.parametrize(
    ("fields", "refuse", "hopeless"),
    [
        ({"arrived": 99.0, "deadline_ms": 2_500}, True, True),
        ({"arrived": 99.0, "deadline_ms": 3_500}, True, False),
        ({"arrived": 99.0, "deadline_ms": 2_500, "decode_tokens": 20}, True, False),
        ({"arrived": 99.0, "deadline_ms": 2_500}, False, False),
        ({"arrived": 0.0}, True, False),
        ({"arrived": 90.0, "deadline_ms": 0}, True, True),
    ],
)
def test_what_cannot_be_in_time_is_refused(fields: dict[str, Any], refuse: bool, hopeless: bool) -> None:
    scheduler = SloAware(SloParams(refuse=refuse))
    assert scheduler.hopeless(waiting(**fields), context()) is hopeless


@given(st.integers(0, 60_000), st.integers(1, 10_000), st.floats(0.0, 20.0))
def test_what_is_hopeless_stays_so(deadline_ms: int, tokens: int, later: float) -> None:
    scheduler = SloAware(SloParams())
    request = waiting(arrived=100.0, deadline_ms=deadline_ms, decode_tokens=tokens)
    if scheduler.hopeless(request, context()):
        assert scheduler.hopeless(request, context(now=100.0 + later))


# --- cost_optimized


CHEAP = candidate(0, cost_per_gpu_hour=1.0, limit=4)
CHEAP_FULL = candidate(0, cost_per_gpu_hour=1.0, limit=4, inflight=4)
WIDE = candidate(1, cost_per_gpu_hour=1.0, gpus=4, limit=4)
DEAR = candidate(2, cost_per_gpu_hour=9.0, limit=4)
DEAR_FULL = candidate(2, cost_per_gpu_hour=9.0, limit=4, foreign=4)
OWNED = candidate(3, limit=4)


@pytest.mark.parametrize(
    ("request_", "candidates", "allowed"),
    [
        (waiting(arrived=100.0), [DEAR, CHEAP, WIDE], [CHEAP]),
        (waiting(arrived=100.0), [DEAR, OWNED, CHEAP], [OWNED]),
        (waiting(arrived=100.0), [DEAR, CHEAP_FULL], [CHEAP_FULL]),
        (waiting(arrived=97.0), [DEAR, CHEAP_FULL], [CHEAP_FULL, DEAR]),
        (waiting(arrived=97.0), [DEAR, CHEAP_FULL, WIDE], [CHEAP_FULL, WIDE]),
        (waiting(arrived=97.0), [DEAR_FULL, CHEAP_FULL], [CHEAP_FULL, DEAR_FULL]),
        (waiting(arrived=100.0, deadline_ms=60_000), [DEAR, CHEAP_FULL], [CHEAP_FULL]),
        (waiting(arrived=100.0, deadline_ms=3_000), [DEAR, CHEAP_FULL], [CHEAP_FULL]),
        (waiting(arrived=99.4, deadline_ms=3_000), [DEAR, CHEAP_FULL], [CHEAP_FULL, DEAR]),
        (waiting(arrived=100.0, deadline_ms=3_000), [DEAR, CHEAP], [CHEAP]),
        (waiting(arrived=90.0, cost_budget=0.001), [DEAR, CHEAP_FULL, WIDE], [CHEAP_FULL]),
        (waiting(arrived=90.0, cost_budget=0.0), [DEAR, CHEAP], [CHEAP]),
        (waiting(arrived=90.0, cost_budget=1.0), [DEAR, CHEAP_FULL], [CHEAP_FULL, DEAR]),
    ],
)
def test_requests_go_to_the_cheapest_that_are_in_time(
    request_: WaitingRequest, candidates: list[Candidate], allowed: list[Candidate]
) -> None:
    scheduler = CostOptimized(CostParams(patience_s=2.0))
    found = scheduler.instances(request_, candidates, context())
    assert {c.instance.id for c in found} == {c.instance.id for c in allowed}


def test_what_an_unknown_cost_counts_as_can_be_said() -> None:
    scheduler = CostOptimized(CostParams(unknown_cost=5.0))
    assert scheduler.instances(waiting(arrived=100.0), [OWNED, CHEAP], context()) == [CHEAP]


@given(
    st.lists(
        st.tuples(st.floats(0, 10) | st.none(), st.integers(1, 8), st.integers(0, 4)), min_size=1, max_size=6
    ),
    st.floats(0, 20),
    st.none() | st.integers(0, 20_000),
)
def test_nothing_dearer_is_allowed_while_something_cheaper_has_room(
    fleet: list[tuple[float | None, int, int]], waited: float, deadline_ms: int | None
) -> None:
    candidates = [
        candidate(n, cost_per_gpu_hour=cost, gpus=gpus, inflight=inflight, limit=4)
        for n, (cost, gpus, inflight) in enumerate(fleet)
    ]
    request_ = waiting(arrived=100.0 - waited, deadline_ms=deadline_ms)
    allowed = CostOptimized(CostParams()).instances(request_, candidates, context())
    costs = {c.instance.id: c.instance.cost_per_hour or 0.0 for c in candidates}
    assert allowed
    dearest = max(costs[c.instance.id] for c in allowed)
    assert {c.instance.id for c in allowed} == {name for name, cost in costs.items() if cost <= dearest}
    roomy = [costs[c.instance.id] for c in candidates if not c.full]
    assert not roomy or dearest <= max(min(roomy), min(costs.values()))


# --- adaptive


class Told:
    """An adaptive scheduler and a clock."""

    def __init__(self, **params: Any) -> None:
        self.params = AdaptiveParams(**params)
        self.scheduler = Adaptive(self.params)
        self.now = 100.0

    def context(self, **fields: Any) -> Any:
        return queue_context(self.params, now=self.now, **fields)

    def come(self, count: int, *, inflight: int = 0, queued: int = 0, **fields: Any) -> str:
        """Requests arrive, one each 10 ms; the mode after them."""
        for _ in range(count):
            self.now += 0.01
            ctx = self.context(inflight=inflight, queued=queued, slots=10)
            self.scheduler.on_arrival(waiting(arrived=self.now, **fields), ctx)
        return self.mode

    @property
    def mode(self) -> str:
        return self.scheduler.describe().partition(":")[0]


def test_adaptive_follows_load_and_mix() -> None:
    told = Told(hold_s=0.0)
    assert told.mode == "fifo"
    assert told.come(20, inflight=2) == "cost_optimized"
    assert told.come(20, inflight=8) == "fifo"
    assert told.come(10, inflight=10, queued=4, priority=RequestPriority.HIGH) == "priority"
    assert told.come(20, inflight=10, queued=4, deadline_ms=5000) == "slo_aware"
    assert told.come(1, inflight=1) == "cost_optimized"


def test_adaptive_says_why() -> None:
    told = Told(hold_s=0.0)
    told.come(10, inflight=10, queued=4, deadline_ms=5000)
    assert told.scheduler.describe() == (
        "slo_aware: 140% of the slots are in use, 100% of the requests have a deadline"
    )


def test_adaptive_does_not_flutter() -> None:
    told = Told(hold_s=10.0)
    assert told.come(20, inflight=2) == "cost_optimized"
    assert told.come(1, inflight=10) == "fifo", "when it gets busy, at once"
    assert told.come(20, inflight=2) == "fifo"
    told.now += 10.0
    assert told.come(1, inflight=2) == "cost_optimized"


def test_adaptive_forgets_the_mix_of_long_ago() -> None:
    told = Told(hold_s=0.0, memory_s=60.0)
    assert told.come(50, inflight=10, deadline_ms=5000) == "slo_aware"
    told.now += 600.0
    assert told.come(20, inflight=10) == "fifo"


def test_adaptive_ranks_and_restricts_as_the_one_it_has_chosen() -> None:
    told = Told(hold_s=0.0, ageing_s=20.0)
    told.come(10, inflight=10, queued=4, priority=RequestPriority.HIGH)
    full = told.context(inflight=10, queued=4, slots=10)
    urgent = waiting(arrived=told.now, priority=RequestPriority.CRITICAL)
    assert told.scheduler(urgent, full) < told.scheduler(waiting(arrived=told.now - 10), full)
    assert list(told.scheduler.instances(urgent, [DEAR, CHEAP], full)) == [DEAR, CHEAP]
    assert not told.scheduler.hopeless(waiting(arrived=0.0, deadline_ms=1), full)
    told.come(1, inflight=0)
    assert list(told.scheduler.instances(urgent, [DEAR, CHEAP], told.context(slots=10))) == [CHEAP]
    told.come(99, inflight=10, queued=4, deadline_ms=5000)
    assert told.scheduler.hopeless(waiting(arrived=0.0, deadline_ms=1), full)
