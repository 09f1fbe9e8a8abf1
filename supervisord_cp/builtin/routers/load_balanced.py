"""Load balanced: the instance with the least work booked, in tokens, for its weight."""

from collections.abc import Sequence

from supervisord_cp.policy import Candidate, Context, RoutingRequest, scorer


@scorer("load_balanced")
def load_balanced(
    request: RoutingRequest, candidates: Sequence[Candidate], context: Context[None]
) -> list[float]:
    """Least booked work in tokens per weight, this request's own prompt included.

    Work is counted the moment it is dispatched, so that the requests between two reports of an engine do
    not all go to the same one. Requests that the engine reports and we did not send count as mean ones.
    """
    own = request.prompt_tokens
    mean = context.request_tokens
    return [
        -(c.booked_prefill + c.booked_decode + c.foreign * mean + own) / (c.instance.weight or 1.0)
        for c in candidates
    ]
