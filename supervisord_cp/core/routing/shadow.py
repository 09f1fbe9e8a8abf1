"""A policy that is asked beside the one in use: how often they agree, and where they did not."""

from collections import deque
from random import Random
from typing import Final, Generic

from msgspec.structs import replace

from supervisord_cp.core.routing.choice import Choice
from supervisord_cp.core.routing.pipeline import Pipeline
from supervisord_cp.core.routing.queue import Item, WaitingLine
from supervisord_cp.core.routing.scheduling import Scheduling
from supervisord_cp.model.base import Value
from supervisord_cp.model.request import Candidate, RoutingRequest
from supervisord_cp.policy.context import Context, QueueContext
from supervisord_cp.policy.scheduling import WaitingRequest

MOST_DIFFERENCES: Final = 100
_NO_BOUND: Final = 1 << 62


class Difference(Value, frozen=True, kw_only=True):
    """A decision in which the two did not agree."""

    request: str
    """Its id; of two schedulers, that of the request that went."""
    at: float
    """Monotonic seconds."""
    live: str
    """The instance, or the request, that was chosen."""
    shadow: str
    """What the other one would have chosen."""
    scores: dict[str, float] = {}
    """The other one's, by instance."""


class Agreement:
    """Counts, and the latest differences."""

    def __init__(self) -> None:
        self.decisions = 0
        self.agreed = 0
        self.differences: Final[deque[Difference]] = deque(maxlen=MOST_DIFFERENCES)

    def note(self, difference: Difference | None) -> None:
        """One more decision."""
        self.decisions += 1
        if difference is None:
            self.agreed += 1
        else:
            self.differences.append(difference)


class RouterShadow:
    """A routing policy, asked about the same candidates, and told what really becomes of requests."""

    def __init__(self, name: str, pipeline: Pipeline, rng: Random, agreement: Agreement) -> None:
        """`rng` is its own, so that the policy in use decides as if this one were not there."""
        self.name: Final = name
        self.policy: Final = pipeline
        self.agreement: Final = agreement
        self._rng: Final = rng

    def compare(
        self,
        request: RoutingRequest,
        candidates: tuple[Candidate, ...],
        live: Candidate,
        context: Context[None],
    ) -> None:
        """A request goes to `live`."""
        other = self.policy.choose(request, candidates, replace(context, random=self._rng))
        same = other.candidate.instance.incarnation == live.instance.incarnation
        self.agreement.note(None if same else _difference(request, live, other, context.now))

    def retire(self) -> None:
        """It is no longer asked."""
        self.policy.retire()


class SchedulerShadow(Generic[Item]):
    """A scheduler, with a line of its own in which the same requests wait."""

    def __init__(self, scheduling: Scheduling, agreement: Agreement) -> None:
        self.name: Final = scheduling.name
        self.agreement: Final = agreement
        self.policy: Final = scheduling
        self._line: Final[WaitingLine[Item]] = WaitingLine(most=_NO_BOUND, most_bytes=_NO_BOUND)

    def add(self, item: Item, waiting: WaitingRequest, context: QueueContext[None], *, front: bool) -> None:
        """A request waits."""
        rank = 0.0 if front else self.policy.rank(waiting, context)
        self._line.add(item, rank, front=front)

    def serve(self, item: Item, now: float) -> None:
        """A request that waited goes to an instance."""
        other = self._line.first()
        if other is None:
            return
        self.agreement.note(
            None
            if other is item
            else Difference(request=item.request.id, at=now, live=item.request.id, shadow=other.request.id)
        )
        self._line.serve(item)

    def remove(self, item: Item) -> None:
        """A request waits no longer."""
        self._line.remove(item)

    def retire(self) -> None:
        """It is no longer asked."""
        self.policy.retire()


def _difference(request: RoutingRequest, live: Candidate, other: Choice, now: float) -> Difference:
    names = (candidate.instance.id for candidate in other.candidates)
    return Difference(
        request=request.id,
        at=now,
        live=live.instance.id,
        shadow=other.candidate.instance.id,
        scores=dict(zip(names, other.scores, strict=False)),
    )
