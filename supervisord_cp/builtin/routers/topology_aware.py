"""Topology aware: work, width and distance in one number."""

from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta

from supervisord_cp.policy import Candidate, Context, RoutingRequest, Value, scorer


class TopologyParams(Value, frozen=True, kw_only=True):
    """Parameters of `topology_aware`."""

    hop_tokens: Annotated[float, Meta(ge=0)] = 200.0
    """What one step of distance is worth, in tokens of work: 1 to another node of the zone, 2 to another
    zone."""
    width: Annotated[float, Meta(ge=0, le=1)] = 1.0
    """How well the GPUs of one instance work together: 1, twice as many do twice the work; 0, width does
    not count."""
    node: str = ""
    """"": the router's node."""
    zone: str = ""
    """"": the router's zone."""


@scorer("topology_aware", params=TopologyParams)
def topology_aware(
    request: RoutingRequest, candidates: Sequence[Candidate], context: Context[TopologyParams]
) -> list[float]:
    """Least work for the GPUs that the instance spans, with distance as so much more work."""
    params, own, mean = context.params, request.prompt_tokens, context.request_tokens
    node, zone = params.node or context.node, params.zone or context.zone
    return [
        -(c.work(mean) + own) / c.instance.gpus**params.width - params.hop_tokens * _hops(c, node, zone)
        for c in candidates
    ]


def _hops(candidate: Candidate, node: str, zone: str) -> int:
    if node and candidate.instance.node == node:
        return 0
    return 1 if not zone or candidate.instance.zone == zone else 2
