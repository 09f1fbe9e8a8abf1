"""Nearest: instances of the router's own node first, then of its zone, while they have not too much work."""

from collections.abc import Sequence

from supervisord_cp.builtin.routers.within_load import LoadBound
from supervisord_cp.policy import Candidate, Context, RoutingRequest, filter  # noqa: A004


class NearestParams(LoadBound, frozen=True, kw_only=True):
    """Parameters of `nearest`: how much more work than the mean near ones may have before others get it,
    and where "here" is."""

    node: str = ""
    """"": the router's node."""
    zone: str = ""
    """"": the router's zone."""


@filter("nearest", params=NearestParams)
def nearest(
    request: RoutingRequest, candidates: Sequence[Candidate], context: Context[NearestParams]
) -> list[Candidate]:
    """Instances of the same node within the load bound; else those of the same zone; else all within it."""
    params = context.params
    node, zone = params.node or context.node, params.zone or context.zone
    fitting = params.leaves(candidates, context.request_tokens)
    on_node = [c for c in fitting if node and c.instance.node == node]
    return on_node or [c for c in fitting if zone and c.instance.zone == zone] or fitting
