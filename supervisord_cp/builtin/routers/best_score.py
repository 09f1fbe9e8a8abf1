"""Best score: what chooses when a deployment's steps name no picker."""

from collections.abc import Sequence

from supervisord_cp.policy import Candidate, Context, RoutingRequest, picker


@picker("best_score")
def best_score(
    request: RoutingRequest,
    candidates: Sequence[Candidate],
    scores: Sequence[float],
    context: Context[None],
) -> int:
    """The highest score; equal ones at random, so that several routers do not all choose alike."""
    best = max(scores)
    if scores.count(best) == 1:
        return scores.index(best)
    ties = [i for i, score in enumerate(scores) if score == best]
    return ties[int(context.random.random() * len(ties))]
