"""Random: any instance, each as likely as the next."""

from collections.abc import Sequence

from supervisord_cp.policy import Candidate, PolicyKind, RouteContext, RoutingRequest, policy


@policy(PolicyKind.PICKER, "random")
def random(
    request: RoutingRequest,
    candidates: Sequence[Candidate],
    scores: Sequence[float],
    context: RouteContext,
) -> int:
    """One of the candidates at random."""
    return context.rng.randrange(len(candidates))
