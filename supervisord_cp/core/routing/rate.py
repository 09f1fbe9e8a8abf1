"""A limit on requests per second, one bucket per client."""

import math
from collections import OrderedDict
from typing import Final

MOST_CLIENTS: Final = 10_000


class RateLimiter:
    """Token buckets that hold one second's worth of requests; the clients seen longest ago are forgotten."""

    def __init__(self, per_second: float) -> None:
        self._rate = per_second
        self._burst = max(1.0, per_second)
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str, now: float) -> int:
        """0 when the request may pass, else the seconds after which the next one may."""
        if self._rate <= 0:
            return 0
        tokens, at = self._buckets.pop(client, (self._burst, now))
        tokens = min(self._burst, tokens + max(0.0, now - at) * self._rate)
        allowed = tokens >= 1.0
        if allowed:
            tokens -= 1.0
        self._buckets[client] = (tokens, now)
        if len(self._buckets) > MOST_CLIENTS:
            self._buckets.popitem(last=False)
        return 0 if allowed else max(1, math.ceil((1.0 - tokens) / self._rate))
