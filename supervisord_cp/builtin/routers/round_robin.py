"""Round robin: one after the other."""

from collections.abc import Sequence

from supervisord_cp.policy import Candidate, Context, RoutingRequest, picker


@picker("round_robin")
class RoundRobin:
    """The next instance in the order of their ids, whatever the work on it."""

    def __init__(self) -> None:
        self._last = ""

    def __call__(
        self,
        request: RoutingRequest,
        candidates: Sequence[Candidate],
        scores: Sequence[float],
        context: Context[None],
    ) -> int:
        ids = [candidate.instance.id for candidate in candidates]
        self._last = min((i for i in ids if i > self._last), default=min(ids))
        return ids.index(self._last)
