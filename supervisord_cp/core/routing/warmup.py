"""The share of the work that a new instance gets: little at first, as its first requests compile and fill
caches, and all of it after `warmup_s`."""

from typing import Final

LEAST_SHARE: Final = 0.1


def share(age_s: float, warmup_s: float) -> float:
    """Of what an old instance gets, between `LEAST_SHARE` and 1; grows evenly with age."""
    if age_s >= warmup_s:
        return 1.0
    return max(LEAST_SHARE, age_s / warmup_s)


def most_at_once(share: float, weight: float, peers_inflight: int, peers_weight: float) -> int:
    """Requests that a new instance may have at once, by its weight and what its peers have; at least 1."""
    if peers_weight <= 0:
        return 1
    return max(1, int(share * weight * peers_inflight / peers_weight))
