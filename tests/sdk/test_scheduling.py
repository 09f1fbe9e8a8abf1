"""How a policy of the user's own is asked by the router's core."""

from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisord_cp.model.base import DeploymentName, Incarnation, InstanceId
from supervisord_cp.model.fleet import RoutedInstance
from supervisord_cp.model.request import Candidate, RoutingRequest
from supervisord_cp.policy import QueueContext, WaitingRequest
from supervisord_cp.sdk.scheduling import Adapter, between, ordered
from supervisord_cp.sdk.types import ExecutionInstance, RequestMetadata
from tests.sdk.test_policies import LongestFirst, Only

MODEL = DeploymentName("m")


class Asked(LongestFirst):
    """Counts how often it is asked."""

    def __init__(self) -> None:
        self.count = 0

    def prioritize(self, requests: list[RequestMetadata]) -> list[RequestMetadata]:
        self.count += 1
        return super().prioritize(requests)


class Line:
    """What waits, and an adapter that is asked about it."""

    def __init__(self, policy: Asked) -> None:
        self.waiting: list[RequestMetadata] = []
        self.known: dict[str, RequestMetadata] = {}
        self.ranks: dict[str, float] = {}
        self.now = 0.0
        self.adapter = Adapter(policy, self.known.get, lambda model: list(self.waiting), {})

    def rank(self, name: str) -> float:
        request = RoutingRequest(id=name, deployment=MODEL)
        context = QueueContext(now=self.now, random=Random(0), params=None)
        return self.adapter(WaitingRequest(request=request, arrived=0.0), context)

    def arrive(self, length: int) -> None:
        """One more begins to wait."""
        self.now += 1.0
        metadata = RequestMetadata(request_id=f"r-{int(self.now) - 1}", prompt="p", max_tokens=length)
        self.known[metadata.request_id] = metadata
        self.ranks[metadata.request_id] = self.rank(metadata.request_id)
        self.waiting.append(metadata)

    def leave(self, index: int) -> None:
        """One waits no longer."""
        gone = self.waiting.pop(index % len(self.waiting))
        del self.known[gone.request_id], self.ranks[gone.request_id]

    def refresh(self) -> None:
        """All are asked for again."""
        self.now += 1.0
        self.ranks = {one.request_id: self.rank(one.request_id) for one in self.waiting}

    def lengths(self) -> list[int]:
        """In the order of the ranks, equal ones in that of arrival."""
        ordered = sorted(self.waiting, key=lambda one: self.ranks[one.request_id])
        return [one.max_tokens or 0 for one in ordered]


def requests(*names: str) -> list[RequestMetadata]:
    return [RequestMetadata(request_id=name, prompt="p") for name in names]


@pytest.mark.parametrize(
    ("answer", "order"),
    [("cab", "cab"), ("", "abc"), ("c", "cab"), ("bb", "bac")],
)
def test_what_is_left_out_goes_last(answer: str, order: str) -> None:
    assert ordered(requests(*answer), requests(*"abc")) == list(order)


def test_what_does_not_wait_cannot_be_ordered() -> None:
    with pytest.raises(ValueError, match="'x', which does not wait"):
        ordered(requests("a", "x"), requests("a"))


@pytest.mark.parametrize(
    ("order", "ranks", "rank"),
    [
        ("x", {}, 0.0),
        ("ax", {"a": 3.0}, 4.0),
        ("xa", {"a": 3.0}, 2.0),
        ("axb", {"a": 1.0, "b": 2.0}, 1.5),
        ("apxqb", {"a": 1.0, "b": 2.0}, 1.5),
        ("px", {}, 0.0),
    ],
)
def test_between(order: Sequence[str], ranks: dict[str, float], rank: float) -> None:
    assert between(order, ranks, "x") == rank


@given(st.lists(st.tuples(st.sampled_from(["arrive", "leave", "refresh"]), st.integers(0, 9)), max_size=40))
def test_the_line_has_the_policys_order(steps: list[tuple[str, int]]) -> None:
    line = Line(Asked())
    for what, number in steps:
        if what == "arrive":
            line.arrive(number)
        elif line.waiting:
            line.leave(number) if what == "leave" else line.refresh()
        assert line.lengths() == sorted(line.lengths(), reverse=True)


def test_all_that_wait_are_ordered_once() -> None:
    policy = Asked()
    line = Line(policy)
    for length in range(50):
        line.arrive(length)
    asked = policy.count
    line.refresh()
    assert policy.count == asked + 1


def test_models_have_lines_of_their_own() -> None:
    line = Line(Asked())
    line.arrive(1)
    rank = line.rank("r-0")
    other = RoutingRequest(id="nobody", deployment=DeploymentName("other"))
    context = QueueContext(now=line.now, random=Random(0), params=None)
    assert line.adapter(WaitingRequest(request=other, arrived=0.0), context) == 0.0
    assert line.rank("r-0") == rank


def candidate(name: str, **more: int) -> Candidate:
    instance = RoutedInstance(
        id=InstanceId(name), deployment=MODEL, incarnation=Incarnation(f"{name}.1"), url="http://h:1"
    )
    return Candidate(instance=instance, **more)


def chosen(target: str, candidates: Sequence[Candidate], *, known: bool = True) -> list[str]:
    metadata = RequestMetadata(request_id="r", prompt="p")
    instances = {name: ExecutionInstance(name, "h", 1, "m", is_healthy=False) for name in "abc"}
    adapter = Adapter(Only(target), lambda name: metadata if known else None, lambda model: [], instances)
    waiting = WaitingRequest(request=RoutingRequest(id="r", deployment=MODEL), arrived=0.0)
    context = QueueContext(now=0.0, random=Random(0), params=None)
    return [one.instance.id for one in adapter.instances(waiting, candidates, context)]


def test_where_the_policy_wants_it() -> None:
    assert chosen("b", [candidate("a"), candidate("b")]) == ["b"]


def test_where_it_cannot_be() -> None:
    with pytest.raises(ValueError, match="chose c, not among"):
        chosen("c", [candidate("a"), candidate("b")])


def test_a_request_that_is_over_goes_anywhere() -> None:
    assert chosen("b", [candidate("a"), candidate("b")], known=False) == ["a", "b"]


def test_instances_are_shown_as_they_are_now() -> None:
    policy = Only("a")
    metadata = RequestMetadata(request_id="r", prompt="p")
    instances = {"a": ExecutionInstance("a", "h", 1, "m", is_healthy=False)}
    adapter = Adapter(policy, lambda name: metadata, lambda model: [], instances)
    waiting = WaitingRequest(request=RoutingRequest(id="r", deployment=MODEL), arrived=0.0)
    context = QueueContext(now=0.0, random=Random(0), params=None)
    adapter.instances(waiting, [candidate("a", inflight=2, foreign=1), candidate("gone")], context)
    ((seen,),) = policy.asked
    assert (seen.instance_id, seen.is_healthy, seen.active_requests) == ("a", True, 3)
