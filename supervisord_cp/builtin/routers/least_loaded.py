"""Least loaded: the instance with the fewest requests, for its weight."""

from collections.abc import Sequence

from supervisord_cp.policy import Candidate, Context, RoutingRequest, scorer


@scorer("least_loaded")
def least_loaded(
    request: RoutingRequest, candidates: Sequence[Candidate], context: Context[None]
) -> list[float]:
    """Fewest open requests per weight, ours and those that the engine reports of others."""
    return [-(c.inflight + c.foreign + 1) / (c.instance.weight or 1.0) for c in candidates]
