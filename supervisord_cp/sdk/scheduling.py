"""Scheduling policies of the user's own, and how the router's core asks them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from supervisord_cp.model.request import Candidate
from supervisord_cp.policy import QueueContext, WaitingRequest
from supervisord_cp.sdk.types import ExecutionInstance, RequestMetadata, SchedulingDecision

REFRESH_S: Final = 0.25
"""How often a policy is asked again about requests that wait already."""


class SchedulingPolicy:
    """To be derived from. Override `prioritize`, `schedule`, or both; both are asked of one model's requests.

    They are called on the event loop and have to be quick. A policy that raises, or answers nonsense, is
    passed over: no request fails because of it.
    """

    name: str = ""
    """What it is called in statuses and logs; the class's name unless given."""

    def __init__(self, name: str = "") -> None:
        self.name = name or self.name or type(self).__name__

    def prioritize(self, requests: list[RequestMetadata]) -> list[RequestMetadata]:
        """The requests that wait, in the order in which they are to go. They come in the order of
        submission, which stays among those that are left out."""
        return requests

    def schedule(
        self, requests: list[RequestMetadata], instances: list[ExecutionInstance]
    ) -> list[SchedulingDecision]:
        """Which instance each request is to go to, full or not: it waits for that one. The routing strategy
        decides for requests without a decision. Asked for one request at a time, when its turn has come."""
        return []


class Adapter:
    """Asks a policy as a scheduler of the router's core is asked: for ranks in place of an order, and for the
    instances of one request."""

    def __init__(
        self,
        policy: SchedulingPolicy,
        metadata: Callable[[str], RequestMetadata | None],
        waiting: Callable[[str], list[RequestMetadata]],
        instances: Mapping[str, ExecutionInstance],
    ) -> None:
        """`metadata` of a request by its id, None when it is over; `waiting`: those that wait for a model's
        instances, in the order of submission; `instances`: all that are registered, by id."""
        self._policy: Final = policy
        self._metadata: Final = metadata
        self._waiting: Final = waiting
        self._known: Final = instances
        self._ranks: dict[str, dict[str, float]] = {}
        """Of the requests that wait, by model and id."""
        self._ranked_at: dict[str, float] = {}

    def __call__(self, waiting: WaitingRequest, context: QueueContext[Any]) -> float:
        """The rank of a request. When it has begun to wait before, all that wait are being asked for, one
        after the other: the policy orders them once."""
        model, name = waiting.request.deployment, waiting.request.id
        ranks = self._ranks.get(model, {})
        if context.now == self._ranked_at.get(model) and name in ranks:
            return ranks[name]
        line = self._waiting(model)
        if any(one.request_id == name for one in line):
            order = ordered(self._policy.prioritize(list(line)), line)
            ranks = self._ranks[model] = {one: float(place) for place, one in enumerate(order)}
            self._ranked_at[model] = context.now
            return ranks[name]
        metadata = self._metadata(name)
        if metadata is None:
            return 0.0
        line.append(metadata)
        order = ordered(self._policy.prioritize(list(line)), line)
        kept = {one: ranks[one] for one in order if one in ranks and one != name}
        rank = between(order, kept, name)
        self._ranks[model] = {**kept, name: rank}
        return rank

    def instances(
        self, waiting: WaitingRequest, candidates: Sequence[Candidate], context: QueueContext[Any]
    ) -> Sequence[Candidate]:
        """Where a request may go: where the policy wants it, everywhere when it does not say."""
        metadata = self._metadata(waiting.request.id)
        if metadata is None:
            return candidates
        decisions = self._policy.schedule(
            [metadata],
            [
                replace(known, is_healthy=True, active_requests=candidate.inflight + candidate.foreign)
                for candidate in candidates
                if (known := self._known.get(candidate.instance.id)) is not None
            ],
        )
        targets = {d.target_instance_id for d in decisions if d.request_id == metadata.request_id}
        kept = [candidate for candidate in candidates if candidate.instance.id in targets]
        if targets and not kept:
            raise ValueError(f"schedule() chose {', '.join(sorted(targets))}, not among its instances")
        return kept or candidates


def ordered(answer: Sequence[RequestMetadata], line: Sequence[RequestMetadata]) -> list[str]:
    """The ids of `line` in the order of `answer`, those that it leaves out at the end.

    Raises:
        ValueError: it has a request that does not wait.
    """
    wanted = dict.fromkeys(one.request_id for one in answer)
    left_out = dict.fromkeys(one.request_id for one in line)
    for name in wanted:
        if name not in left_out:
            raise ValueError(f"prioritize() returned {name!r}, which does not wait")
        del left_out[name]
    return [*wanted, *left_out]


def between(order: Sequence[str], ranks: Mapping[str, float], name: str) -> float:
    """A rank for `name` that puts it where `order` has it, next to those that have ranks already."""
    place = order.index(name)
    before = next((ranks[one] for one in reversed(order[:place]) if one in ranks), None)
    after = next((ranks[one] for one in order[place + 1 :] if one in ranks), None)
    if before is None:
        return 0.0 if after is None else after - 1.0
    return before + 1.0 if after is None else (before + after) / 2
