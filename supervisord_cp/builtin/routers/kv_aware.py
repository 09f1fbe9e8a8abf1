"""KV aware: keeps away from instances whose KV cache is nearly full."""

from collections.abc import Sequence
from typing import Final

from supervisord_cp.policy import Candidate, Context, RoutingRequest, Value, scorer

FULLEST: Final = 0.99
"""A cache that is full for good must not outweigh everything without end."""


class KvAwareParams(Value, frozen=True, kw_only=True):
    """Parameters of `kv_aware`."""

    max_age_s: float = 5.0
    """A report older than this says nothing."""
    unknown: float = 0.5
    """Usage that is assumed without a report, 0 to 1."""


@scorer("kv_aware", params=KvAwareParams)
def kv_aware(
    request: RoutingRequest, candidates: Sequence[Candidate], context: Context[KvAwareParams]
) -> list[float]:
    """Least booked work, made dearer as the KV cache fills: by 1 / (1 - usage).

    An engine whose cache is full puts requests back and works on them twice: half full counts twice, nine
    tenths ten times. What was dispatched since the report counts through its tokens.
    """
    params, own, mean = context.params, request.prompt_tokens, context.request_tokens
    return [-(c.work(mean) + own + mean) / (1.0 - min(FULLEST, _usage(c, params))) for c in candidates]


def _usage(candidate: Candidate, params: KvAwareParams) -> float:
    load = candidate.instance.load
    if load is None or load.kv_cache_usage is None or load.age_ms > 1000 * params.max_age_s:
        return params.unknown
    return min(1.0, max(0.0, load.kv_cache_usage))
