"""Policies by name and of one's own: what is looked up, and what is decided by them."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from supervisord_cp.errors import UsageError
from supervisord_cp.policy import Candidate, RequestPriority, picker, scheduler
from supervisord_cp.sdk import (
    ControlPlaneManager,
    ExecutionInstance,
    PolicyUse,
    RequestMetadata,
    SchedulingDecision,
    SchedulingPolicy,
)
from tests.sdk.kit import Cluster, cluster
from tests.waiting import until

pytestmark = pytest.mark.asyncio


class LongestFirst(SchedulingPolicy):
    def prioritize(self, requests: list[RequestMetadata]) -> list[RequestMetadata]:
        return sorted(requests, key=lambda request: -(request.max_tokens or 0))


class Only(SchedulingPolicy):
    """Sends everything to one instance."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.asked: list[list[ExecutionInstance]] = []

    def schedule(
        self, requests: list[RequestMetadata], instances: list[ExecutionInstance]
    ) -> list[SchedulingDecision]:
        self.asked.append(instances)
        return [
            SchedulingDecision(request_id=request.request_id, target_instance_id=self.target)
            for request in requests
        ]


class Broken(SchedulingPolicy):
    def prioritize(self, requests: list[RequestMetadata]) -> list[RequestMetadata]:
        raise RuntimeError("broken")

    def schedule(
        self, requests: list[RequestMetadata], instances: list[ExecutionInstance]
    ) -> list[SchedulingDecision]:
        raise RuntimeError("broken")


@scheduler("shortest_first")
def shortest_first(waiting: Any, context: Any) -> float:
    return float(waiting.request.max_tokens or 0)


@picker("last")
class Last:
    def __call__(
        self, request: object, candidates: Sequence[Candidate], scores: Sequence[float], context: object
    ) -> int:
        names = [candidate.instance.id for candidate in candidates]
        return names.index(max(names))


async def order_of(c: Cluster, requests: Sequence[dict[str, Any]]) -> list[int]:
    """`max_tokens` of requests in the order in which a busy engine gets them."""
    engine = await c.add("a", max_concurrent_requests=1)
    await c.fill("a")
    for request in requests:
        await c.submit(**request)
    engine.gate.set()
    await until(lambda: len(engine.seen) == len(requests) + 1)
    return [seen["max_tokens"] for seen in engine.seen[1:]]


LENGTHS = [{"max_tokens": number} for number in (3, 1, 4, 2, 5)]


@pytest.mark.parametrize(
    ("policy", "order"),
    [
        ("fifo", [3, 1, 4, 2, 5]),
        (LongestFirst, [5, 4, 3, 2, 1]),
        (Broken, [3, 1, 4, 2, 5]),
        (lambda: shortest_first, [1, 2, 3, 4, 5]),
    ],
)
async def test_who_goes_first(policy: str | Callable[[], Any], order: list[int]) -> None:
    async with cluster(policy if isinstance(policy, str) else policy()) as c:
        assert await order_of(c, LENGTHS) == order


async def test_priorities() -> None:
    async with cluster("priority") as c:
        given = [RequestPriority.LOW, RequestPriority.NORMAL, RequestPriority.CRITICAL]
        requests = [{"max_tokens": int(priority), "priority": priority} for priority in given]
        assert await order_of(c, requests) == sorted(int(priority) for priority in given)


async def test_deadlines() -> None:
    async with cluster("slo_aware") as c:
        requests = [{"max_tokens": n, "slo_deadline_ms": n * 100_000} for n in (3, 1, 2)]
        assert await order_of(c, requests) == [1, 2, 3]


async def test_a_policy_is_asked_with_what_is_known() -> None:
    policy = Only("b")
    async with cluster(policy) as c:
        await c.add("a", zone="here", gpu_count=2, gpu_memory_gb=80.0)
        await c.add("b")
        await c.fill("b")
        policy.asked.clear()
        await c.submit()
        (instances,) = policy.asked[:1]
        assert [(one.instance_id, one.active_requests) for one in instances] == [("a", 0), ("b", 1)]
        assert (instances[0].zone, instances[0].gpu_memory_gb) == ("here", 80.0)


async def test_a_policy_decides_where_requests_go() -> None:
    async with cluster(Only("b")) as c:
        for name in "abc":
            await c.add(name)
        assert {await c.ask() for _ in range(6)} == {"b"}


async def test_requests_wait_for_the_instance_that_the_policy_wants() -> None:
    async with cluster(Only("b")) as c:
        await c.add("a")
        engine = await c.add("b", max_concurrent_requests=1)
        await c.fill("b")
        name = await c.submit()
        assert c.plane.get_metrics().queued_requests == 1
        engine.gate.set()
        assert (await c.plane.get_result(name, timeout=10)).instance_id == "b"


@pytest.mark.parametrize("policy", [Only("nobody"), Broken()])
async def test_a_policy_that_fails_costs_no_request(policy: SchedulingPolicy) -> None:
    async with cluster(policy) as c:
        await c.add("a")
        await c.add("b")
        assert {await c.ask() for _ in range(20)} <= {"a", "b"}


async def test_a_routing_policy_of_ones_own() -> None:
    async with cluster("fifo", Last) as c:
        for name in "abc":
            await c.add(name)
        assert {await c.ask() for _ in range(4)} == {"c"}
        assert c.plane.get_status()["routing_strategy"] == "last"


async def test_what_a_request_says_reaches_policies() -> None:
    seen = []

    @scheduler("watching")
    def watching(waiting: Any, context: Any) -> float:
        seen.append(waiting.request)
        return 0.0

    async with cluster(watching) as c:
        await c.add("a", max_concurrent_requests=1)
        await c.fill("a")
        await c.submit(
            "r",
            max_tokens=7,
            user_id="u",
            session_id="s",
            cost_budget=0.25,
            slo_deadline_ms=60_000,
            priority=RequestPriority.HIGH,
        )
    request = seen[-1]
    assert (request.id, request.user, request.session, request.max_tokens) == ("r", "u", "s", 7)
    assert (request.cost_budget, request.priority) == (0.25, RequestPriority.HIGH)
    assert 59_000 < request.deadline_ms <= 60_000


async def test_a_user_stays_on_an_instance() -> None:
    async with cluster(routing_strategy="affinity") as c:
        for name in "abcd":
            await c.add(name)
        users = [f"user-{number}" for number in range(8)]
        first = [await c.ask(user_id=user) for user in users]
        assert [await c.ask(user_id=user) for user in users] == first
        assert len(set(first)) > 1


async def test_sessions_count_before_users() -> None:
    async with cluster(routing_strategy="affinity") as c:
        for name in "abcd":
            await c.add(name)
        used = {await c.ask(user_id=f"user-{number}", session_id="s") for number in range(8)}
        assert len(used) == 1


async def test_cheap_instances_come_first() -> None:
    async with cluster("cost_optimized") as c:
        await c.add("dear", cost_per_gpu_hour=10.0)
        await c.add("cheap", cost_per_gpu_hour=1.0)
        assert {await c.ask() for _ in range(6)} == {"cheap"}


async def test_a_change_puts_what_waits_in_the_new_order() -> None:
    async with cluster("fifo") as c:
        engine = await c.add("a", max_concurrent_requests=1)
        await c.fill("a")
        for request in LENGTHS:
            await c.submit(**request)
        c.plane.update_policy(LongestFirst())
        assert c.plane.get_status()["scheduling_policy"] == "LongestFirst"
        engine.gate.set()
        await until(lambda: len(engine.seen) == 6)
        assert [seen["max_tokens"] for seen in engine.seen[1:]] == [5, 4, 3, 2, 1]


async def test_one_policy_changes_and_the_other_stays() -> None:
    async with cluster(LongestFirst(), "round_robin") as c:
        c.plane.update_policy(routing_strategy="random")
        assert c.plane.get_status()["scheduling_policy"] == "LongestFirst"
        c.plane.update_policy("priority")
        status = c.plane.get_status()
        assert (status["scheduling_policy"], status["routing_strategy"]) == ("priority", "random")


async def test_a_change_to_what_is_not_there_changes_nothing() -> None:
    async with cluster("fifo") as c:
        with pytest.raises(UsageError, match="prioritty"):
            c.plane.update_policy("prioritty", "random")
        status = c.plane.get_status()
        assert (status["scheduling_policy"], status["routing_strategy"]) == ("fifo", "load_balanced")


@pytest.mark.parametrize(
    ("scheduling", "routing", "message"),
    [
        ("priorities", "load_balanced", 'no scheduler is called "priorities"; did you mean "priority"'),
        ("zzz", "load_balanced", "known: adaptive, cost_optimized, fifo, priority, slo_aware"),
        ("load_balanced", "load_balanced", "not a scheduler"),
        ("fifo", "fifo", "not a routing policy"),
        ("fifo", "balanced", 'did you mean "load_balanced"'),
        ("fifo", ["load_balanced", "zzz"], "known: affinity, "),
        (PolicyUse(use="priority", params={"x": 1}), "load_balanced", 'no parameter "x"'),
        ("fifo", PolicyUse(use="affinity", params={"x": 1}), 'no parameter "x"'),
        (7, "load_balanced", "7 is no policy"),
        ("fifo", lambda: None, "is no policy"),
        (Last, "load_balanced", "not a scheduler"),
    ],
)
async def test_what_is_not_there(scheduling: Any, routing: Any, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        ControlPlaneManager(scheduling, routing)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("policy", "name"),
    [
        (LongestFirst(), "LongestFirst"),
        (LongestFirst("mine"), "mine"),
        (Only("b"), "Only"),
        (LongestFirst("fifo"), "fifo"),
        (shortest_first, "shortest_first"),
    ],
)
async def test_names_of_ones_own(policy: Any, name: str) -> None:
    assert ControlPlaneManager(policy).get_status()["scheduling_policy"] == name


async def test_steps() -> None:
    steps = ["affinity", PolicyUse(use="load_balanced", weight=2.0)]
    assert ControlPlaneManager("fifo", steps).get_status()["routing_strategy"] == "affinity + load_balanced"
