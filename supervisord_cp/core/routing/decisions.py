"""The latest decisions of a deployment's routing policies, with what they were made from."""

from collections import deque
from collections.abc import Iterator
from typing import Final

from supervisord_cp.core.routing.choice import Choice, Decision
from supervisord_cp.model.base import InstanceId
from supervisord_cp.model.request import Candidate, RouteDecision

MOST: Final = 1000
OLDEST_S: Final = 900.0


class Decisions:
    """Bounded in count and age."""

    def __init__(self) -> None:
        self._kept: Final[deque[Decision]] = deque(maxlen=MOST)
        self.snapshot_version = 0
        """What decisions are made from now."""

    def __len__(self) -> int:
        return len(self._kept)

    def note(
        self,
        request: str,
        at: float,
        choice: Choice,
        considered: tuple[Candidate, ...],
        asked: tuple[str, ...],
    ) -> None:
        """One was made; `asked` are the policies that made it."""
        self._kept.append(
            Decision(
                request=request,
                at=at,
                choice=choice,
                considered=considered,
                policies=asked,
                snapshot_version=self.snapshot_version,
            )
        )

    def forget(self, now: float) -> None:
        """Let go of what is too old; to be called now and then."""
        kept = self._kept
        while kept and kept[0].at < now - OLDEST_S:
            kept.popleft()

    def of(self, request: str, now: float) -> Iterator[RouteDecision]:
        """What was decided for a request, the first time and when it was sent again."""
        for decision in self._kept:
            if decision.request == request and decision.at >= now - OLDEST_S:
                yield _told(decision, now)


def _told(decision: Decision, now: float) -> RouteDecision:
    choice = decision.choice
    kept = {candidate.instance.id for candidate in choice.candidates}
    pick = choice.candidate.instance
    return RouteDecision(
        request=decision.request,
        pick=pick.id,
        incarnation=pick.incarnation,
        alternates=tuple(name for name in _names(choice.candidates) if name != pick.id),
        left_out=tuple(name for name in _names(decision.considered) if name not in kept),
        scores=dict(zip(_names(choice.candidates), choice.scores, strict=False)),
        booked={candidate.instance.id: candidate.booked for candidate in decision.considered},
        inflight={c.instance.id: c.inflight + c.foreign for c in decision.considered},
        policy=" + ".join(decision.policies),
        snapshot_version=decision.snapshot_version,
        age_s=round(now - decision.at, 3),
    )


def _names(candidates: tuple[Candidate, ...]) -> list[InstanceId]:
    return [candidate.instance.id for candidate in candidates]
