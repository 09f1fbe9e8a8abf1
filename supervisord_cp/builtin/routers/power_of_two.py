"""Power of two: the better one of two that were drawn."""

from collections.abc import Sequence

from supervisord_cp.policy import Candidate, Context, RoutingRequest, picker


@picker("power_of_two")
def power_of_two(
    request: RoutingRequest,
    candidates: Sequence[Candidate],
    scores: Sequence[float],
    context: Context[None],
) -> int:
    """Of two instances at random, the one with the higher score; without a scorer, with less work."""
    if len(candidates) == 1:
        return 0
    first, second = context.random.sample(range(len(candidates)), 2)
    if scores[first] != scores[second]:
        return first if scores[first] > scores[second] else second
    mean = context.request_tokens
    return first if candidates[first].work(mean) <= candidates[second].work(mean) else second
