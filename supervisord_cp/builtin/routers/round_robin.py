"""Round robin: one after the other."""

from collections.abc import Sequence

from supervisord_cp.policy import Candidate, PolicyKind, RouteContext, RoutingRequest, policy


@policy(PolicyKind.PICKER, "round_robin")
class RoundRobin:
    """The next instance in the order of their ids, whatever the work on it."""

    def __init__(self) -> None:
        self._last = ""

    def __call__(
        self,
        request: RoutingRequest,
        candidates: Sequence[Candidate],
        scores: Sequence[float],
        context: RouteContext,
    ) -> int:
        order = sorted(range(len(candidates)), key=lambda i: candidates[i].instance.id)
        index = next((i for i in order if candidates[i].instance.id > self._last), order[0])
        self._last = candidates[index].instance.id
        return index
