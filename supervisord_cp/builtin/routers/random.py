"""Random: any instance, each as likely as the next."""

from collections.abc import Sequence

from supervisord_cp.policy import Candidate, Context, RoutingRequest, picker


@picker("random")
def random(
    request: RoutingRequest,
    candidates: Sequence[Candidate],
    scores: Sequence[float],
    context: Context[None],
) -> int:
    """One of the candidates at random."""
    return context.random.randrange(len(candidates))
