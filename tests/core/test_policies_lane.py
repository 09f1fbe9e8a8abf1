"""A deployment's line under a scheduler: who goes, where to, who is refused, while policies come and go."""

from collections.abc import Sequence
from random import Random
from typing import Any

import pytest

from supervisord_cp.core.policies.breaker import FIRST_OPEN_S, MOST_FAILURES
from supervisord_cp.core.routing.decisions import MOST, OLDEST_S
from supervisord_cp.core.routing.lane_policies import LanePolicies
from supervisord_cp.core.routing.shadow import Agreement, RouterShadow, SchedulerShadow
from supervisord_cp.model.instance import InstanceState
from supervisord_cp.model.request import Candidate
from supervisord_cp.plugin_host.catalog import builtin_specs
from supervisord_cp.policy.conformance import made
from supervisord_cp.policy.params import read_params
from supervisord_cp.policy.routing import Outcome
from supervisord_cp.policy.scheduling import WaitingRequest
from supervisord_cp.policy.testing import instance
from tests.core.policies_kit import Bench, Item, TestLane


def built_in(name: str, **params: Any) -> dict[str, Any]:
    spec = builtin_specs()[name]
    given = read_params(params, spec.params)
    return {"scheduler": made(spec, given), "params": given}


def wait(there: TestLane, *items: Item, now: float = 0.0) -> None:
    for item in items:
        there.lane.wait(item, now)


def test_the_scheduler_says_who_goes_first() -> None:
    there = Bench().lane(
        instance(0, max_concurrency=1), scheduler=lambda waiting, ctx: -waiting.request.prompt_tokens
    )
    wait(there, Item("small", prompt_tokens=1), Item("large", prompt_tokens=9))
    assert there.drain() == [("large", "chat-0")]


class Sends:
    """A scheduler that lets each request go to certain instances only."""

    def __init__(self, where: dict[str, Sequence[int]]) -> None:
        self.where = where

    def __call__(self, waiting: WaitingRequest, ctx: object) -> float:
        return waiting.arrived

    def instances(
        self, waiting: WaitingRequest, candidates: Sequence[Candidate], ctx: object
    ) -> list[Candidate]:
        allowed = {f"chat-{n}" for n in self.where.get(waiting.request.id, ())}
        return [c for c in candidates if c.instance.id in allowed]


def test_a_request_waits_for_the_instances_it_may_have_and_lets_others_go_first() -> None:
    there = Bench().lane(
        instance(0, max_concurrency=1),
        instance(1, max_concurrency=9),
        scheduler=Sends({"picky": [0], "second": [0]}),
    )
    there.fill(0)
    wait(there, Item("picky"), Item("second"), Item("easy", arrived=1.0))
    assert there.drain() == [("easy", "chat-1")]
    there.free(0)
    assert there.drain() == [("picky", "chat-0")]
    assert [item.request.id for item in there.lane.line] == ["second"]


def test_the_scheduler_restricts_requests_that_need_not_wait_too() -> None:
    there = Bench().lane(instance(0), instance(1), scheduler=Sends({"a": [1]}))
    assert {there.lane.choose(Item("a"), 0.0).incarnation for _ in range(20)} == {"chat-1.a"}  # type: ignore[union-attr]
    assert len({there.lane.choose(Item("b"), 0.0).incarnation for _ in range(50)}) == 2  # type: ignore[union-attr]


def test_fair_share_is_outside_of_the_scheduler() -> None:
    there = Bench().lane(instance(0, max_concurrency=40), **built_in("priority"))
    urgent = [Item(f"u{n}", key="loud", priority=0, decode=2000) for n in range(20)]
    calm = [Item(f"c{n}", key="calm", priority=4, decode=2000) for n in range(20)]
    wait(there, *urgent, *calm)
    first = [name[0] for name, _ in there.drain()[:10]]
    assert sorted(first) == ["c"] * 5 + ["u"] * 5


def test_hopeless_requests_are_found_while_they_wait() -> None:
    there = Bench().lane(instance(0, max_concurrency=1), **built_in("slo_aware"))
    there.lane.work.seconds = 2.0
    late, patient = Item("late", deadline_ms=3000), Item("patient")
    wait(there, late, patient)
    assert there.lane.look_over(0.5) == []
    assert there.lane.look_over(2.9) == [late]


@pytest.mark.parametrize(
    ("scheduler", "fields", "too_late"),
    [
        ("fifo", {"deadline_ms": 15_000}, True),
        ("fifo", {"deadline_ms": 60_000}, False),
        ("fifo", {}, False),
        ("priority", {"deadline_ms": 15_000, "priority": 0}, False),
        ("slo_aware", {"deadline_ms": 100, "priority": 0}, True),
    ],
)
def test_whoever_would_wait_for_longer_than_the_deadline_is_told_at_once(
    scheduler: str, fields: dict[str, Any], too_late: bool
) -> None:
    there = Bench().lane(instance(0, max_concurrency=1), **built_in(scheduler))
    there.lane.work.seconds = 2.0
    there.fill(0)
    wait(there, *(Item(f"w{n}", deadline_ms=500_000) for n in range(20)))
    assert there.lane.comes_too_late(Item("new", arrived=0.0, **fields), 0.0) is too_late


def test_cheap_instances_are_waited_for_as_long_as_patience_lasts() -> None:
    there = Bench().lane(
        instance(0, max_concurrency=1, cost_per_gpu_hour=1.0),
        instance(1, max_concurrency=9, cost_per_gpu_hour=5.0),
        **built_in("cost_optimized", patience_s=2.0),
    )
    there.fill(0)
    wait(there, Item("a"))
    assert there.drain(now=1.9) == []
    assert there.drain(now=2.1) == [("a", "chat-1")]


def test_ranks_are_asked_for_again_when_the_scheduler_wants_that() -> None:
    bench, order = Bench(), {"a": 0.0, "b": 1.0}
    there = bench.lane(instance(0, max_concurrency=1))
    scheduling = bench.scheduling(lambda w, ctx: order[w.request.id], refresh_s=1.0)
    there.lane.use(LanePolicies(router=bench.pipeline(), scheduler=scheduling), 0.0)
    wait(there, Item("a"), Item("b"))
    order["a"] = 2.0
    there.lane.look_over(0.9)
    assert there.lane.line.first().request.id == "a"  # type: ignore[union-attr]
    there.lane.look_over(1.1)
    assert there.lane.line.first().request.id == "b"  # type: ignore[union-attr]


def test_a_scheduler_that_fails_is_first_come_first_served_and_comes_back() -> None:
    bench, broken = Bench(), [True]

    def newest_first(waiting: WaitingRequest, ctx: object) -> float:
        if broken[0]:
            raise RuntimeError
        return -waiting.arrived

    there = bench.lane(instance(0, max_concurrency=1), scheduler=newest_first)
    broken[0] = False
    wait(there, *(Item(f"early-{n}", arrived=float(n)) for n in range(3)))
    broken[0] = True
    wait(there, *(Item(f"late-{n}", arrived=10.0 + n) for n in range(MOST_FAILURES)))
    assert bench.listener.said == ["s opened"]
    there.lane.look_over(5.0)
    there.fill(0)
    out = []
    for _ in range(3 + MOST_FAILURES - 1):
        there.free(0)
        out += [name for name, _ in there.drain()]
    assert out == ["early-0", "early-1", "early-2", *(f"late-{n}" for n in range(MOST_FAILURES - 1))]
    broken[0] = False
    wait(there, Item("last", arrived=30.0), now=FIRST_OPEN_S)
    there.lane.look_over(FIRST_OPEN_S)
    assert bench.listener.said == ["s opened", "s closed"]
    assert there.lane.line.first().request.id == "last"  # type: ignore[union-attr]


@pytest.mark.parametrize("answer", [None, "x", float("nan"), float("inf"), [1.0]])
def test_a_rank_that_is_none_makes_nobody_wait_for_ever(answer: object) -> None:
    bench = Bench()
    there = bench.lane(instance(0, max_concurrency=1), scheduler=lambda waiting, ctx: answer)
    wait(there, Item("a"), Item("b", arrived=1.0))
    assert there.drain() == [("a", "chat-0")]
    assert bench.figures["s"].failures == 2


@pytest.mark.parametrize("answer", [None, [], ["chat-0"], [instance(0)]])
def test_instances_that_are_none_are_all(answer: Any) -> None:
    class Odd(Sends):
        def instances(self, waiting: Any, candidates: Any, ctx: Any) -> Any:
            return answer

    there = Bench().lane(instance(0, max_concurrency=1), instance(1, max_concurrency=1), scheduler=Odd({}))
    wait(there, Item("a"), Item("b"))
    assert sorted(where for _, where in there.drain()) == ["chat-0", "chat-1"]


# --- policies come and go


def test_what_waits_is_put_in_the_new_schedulers_order() -> None:
    bench = Bench()
    there = bench.lane(instance(0, max_concurrency=1))
    wait(there, Item("a"), Item("b", arrived=1.0))
    newest = bench.scheduling(lambda waiting, ctx: -waiting.arrived)
    there.lane.use(LanePolicies(router=bench.pipeline(), scheduler=newest), 2.0)
    assert there.drain() == [("b", "chat-0")]


def test_policies_are_told_of_requests_and_of_incarnations_that_go() -> None:
    told: list[Any] = []

    class Watching:
        def __call__(self, request: Any, candidates: Any, ctx: Any) -> list[float]:
            return [0.0] * len(candidates)

        def on_dispatch(self, request: Any, candidate: Any, ctx: Any) -> None:
            told.append(("on its way", request.id, candidate.instance.id))

        def on_first_byte(self, request: Any, candidate: Any, ctx: Any) -> None:
            told.append(("begins", request.id))

        def on_complete(self, request: Any, candidate: Any, outcome: Outcome, ctx: Any) -> None:
            told.append(("done", request.id, outcome.ok))

        def on_instance_reset(self, incarnation: str) -> None:
            told.append(("gone", incarnation))

    bench = Bench()
    shadow = RouterShadow("w", bench.pipeline(bench.step("scorer", Watching())), Random(0), Agreement())
    there = bench.lane(instance(0), instance(1), steps=[bench.step("scorer", Watching())], shadow=shadow)
    item = Item("a")
    there.lane.dispatched(item.request, there.account(0), 0.0)
    there.lane.first_byte(item.request, there.account(0), 1.0)
    there.lane.done(item.request, there.account(0), Outcome(ok=True, seconds=2.0), 2.0)
    there.serve(instance(0, life="b"), instance(1))
    expected = [("on its way", "a", "chat-0"), ("begins", "a"), ("done", "a", True), ("gone", "chat-0.a")]
    assert told == [event for event in expected for _ in range(2)]


def test_an_instance_that_goes_to_sleep_has_nothing_cached_when_it_wakes() -> None:
    told: list[str] = []

    class Watching:
        def __call__(self, request: Any, candidates: Any, ctx: Any) -> list[float]:
            return [0.0] * len(candidates)

        def on_instance_reset(self, incarnation: str) -> None:
            told.append(incarnation)

    bench = Bench()
    asleep = instance(0, state=InstanceState.SLEEPING)
    there = bench.lane(instance(0), instance(1), steps=[bench.step("scorer", Watching())])
    there.serve(asleep, instance(1))
    there.serve(asleep, instance(1))
    assert told == ["chat-0.a"], "once"
    there.serve(instance(0), instance(1))
    there.serve(asleep, instance(1))
    assert told == ["chat-0.a"] * 2


def test_arrivals_are_told_to_schedulers_that_count_them() -> None:
    seen: list[str] = []

    class Counts:
        def __call__(self, waiting: WaitingRequest, ctx: object) -> float:
            return waiting.arrived

        def on_arrival(self, waiting: WaitingRequest, ctx: object) -> None:
            seen.append(waiting.request.id)

    there = Bench().lane(instance(0), scheduler=Counts())
    there.lane.arrived(Item("a"), 0.0)
    assert seen == ["a"]
    assert (there.lane.arrivals, there.lane.prompt_tokens) == (1, 100)


# --- shadows


def test_a_routing_shadow_is_asked_what_the_live_one_was() -> None:
    bench, agreement = Bench(), Agreement()
    last = bench.step("scorer", lambda r, c, x: [float(n) for n in range(len(c))])
    shadow = RouterShadow("last", bench.pipeline(last), Random(0), agreement)
    there = bench.lane(instance(0), instance(1, weight=5.0), shadow=shadow)
    there.lane.choose(Item("a"), 0.0)
    assert (agreement.decisions, agreement.agreed) == (1, 1)
    there.account(1).open(10_000, 0)
    there.lane.choose(Item("b"), 0.0)
    assert (agreement.decisions, agreement.agreed) == (2, 1)
    assert [d.request for d in agreement.differences] == ["b"]


def test_a_scheduling_shadow_has_a_line_of_its_own() -> None:
    bench, agreement = Bench(), Agreement()
    newest = bench.scheduling(lambda waiting, ctx: -waiting.arrived, "newest")
    shadow: SchedulerShadow[Any] = SchedulerShadow(newest, agreement)
    there = bench.lane(instance(0, max_concurrency=2), shadow=shadow)
    items = [Item(name, arrived=float(n)) for n, name in enumerate("abcd")]
    wait(there, *items)
    there.lane.line.remove(items[3])
    assert [name for name, _ in there.drain()] == ["a", "b"]
    assert [(d.live, d.shadow) for d in agreement.differences] == [("a", "c"), ("b", "c")]
    there.free(0)
    assert [name for name, _ in there.drain()] == ["c"]
    assert (agreement.decisions, agreement.agreed) == (3, 1)


# --- what was decided


def test_decisions_can_be_looked_up_with_what_they_were_made_from() -> None:
    bench = Bench()
    steps = [
        bench.step("filter", lambda r, c, x: c[:2], "first_two"),
        bench.step("scorer", lambda r, c, x: [1.0, 2.0], "second"),
    ]
    there = bench.lane(instance(0), instance(1), instance(2), steps=steps)
    there.lane.decisions.snapshot_version = 7
    there.account(0).open(30, 12)
    there.lane.choose(Item("a"), 100.0)
    (told,) = there.lane.decisions.of("a", 102.5)
    assert (told.pick, told.incarnation, told.alternates, told.left_out) == (
        "chat-1",
        "chat-1.a",
        ("chat-0",),
        ("chat-2",),
    )
    assert told.scores == {"chat-0": 1.0, "chat-1": 2.0}
    assert (told.booked, told.inflight) == (
        {"chat-0": 42, "chat-1": 0, "chat-2": 0},
        {"chat-0": 1, "chat-1": 0, "chat-2": 0},
    )
    assert (told.policy, told.snapshot_version, told.age_s) == ("first_two + second", 7, 2.5)
    assert list(there.lane.decisions.of("b", 102.5)) == []


def test_a_request_that_is_sent_again_has_several_decisions() -> None:
    there = Bench().lane(instance(0))
    for now in (1.0, 2.0):
        there.lane.choose(Item("a"), now)
    assert [(told.pick, told.policy, told.age_s) for told in there.lane.decisions.of("a", 3.0)] == [
        ("chat-0", "", 2.0),
        ("chat-0", "", 1.0),
    ]


def test_decisions_are_bounded_in_count_and_age() -> None:
    there = Bench().lane(instance(0))
    for n in range(2 * MOST):
        there.lane.choose(Item(str(n)), float(n) / MOST)
    assert len(there.lane.decisions) == MOST
    assert list(there.lane.decisions.of(str(2 * MOST - 1), 1.0 + OLDEST_S + 2.0)) == []
    for _ in range(10):
        there.lane.choose(Item("new"), 10 * OLDEST_S)
    there.lane.look(10 * OLDEST_S)
    assert len(there.lane.decisions) == 10
    for _ in range(MOST):
        there.lane.choose(Item("newer"), 20 * OLDEST_S)
    assert len(list(there.lane.decisions.of("newer", 20 * OLDEST_S))) == MOST
