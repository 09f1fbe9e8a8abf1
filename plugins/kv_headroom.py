"""Prefer instances whose KV cache has room: a scorer, to be used beside others.

router = ["load_balanced", { use = "kv_headroom", weight = 0.5, params = { max_age_s = 3.0 } }]
"""

from collections.abc import Sequence

from supervisord_cp.policy import Candidate, Context, RoutingRequest, Value, scorer


class Params(Value, frozen=True, kw_only=True):
    """What the configuration may say in `params`; its mistakes are told with their lines."""

    max_age_s: float = 5.0
    """A report that is older says nothing."""
    unknown: float = 0.5
    """Room that is assumed where nothing is known, 0 to 1."""


@scorer("kv_headroom", params=Params)
def kv_headroom(
    request: RoutingRequest, candidates: Sequence[Candidate], context: Context[Params]
) -> list[float]:
    """The share of the KV cache that is free, as engines report it."""
    return [free_share(candidate, context.params) for candidate in candidates]


def free_share(candidate: Candidate, params: Params) -> float:
    load = candidate.instance.load
    if load is None or load.kv_cache_usage is None or load.age_ms > 1000 * params.max_age_s:
        return params.unknown
    return 1.0 - load.kv_cache_usage
