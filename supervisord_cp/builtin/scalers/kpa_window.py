"""Averages over a sliding window of buckets, as the Knative pod autoscaler forms them.

A bucket is a number: its time divided by its width. Values are totals over the deployment, so that a
bucket holds one value, the newest. A young window is not diluted: it is divided by the buckets that
have passed since the first one.
"""

import math
from typing import Final

from supervisord_cp.policy import Value

_DIGITS: Final = 6


class Window(Value, frozen=True, kw_only=True):
    """The values of the last buckets."""

    buckets: tuple[tuple[int, float], ...] = ()
    """(bucket, value), ascending; a bucket between two of them counts as 0."""
    first: int = 0
    """The first bucket since there was silence for a whole window."""


def put(window: Window, bucket: int, value: float, size: int) -> Window:
    """The window of `size` buckets with a value in one of them.

    Silence for a whole window starts it anew. A late value still gets into its bucket; one that is older
    than the window is left out.
    """
    if not window.buckets:
        return Window(buckets=((bucket, value),), first=bucket)
    last = window.buckets[-1][0]
    if bucket - last >= size:
        return Window(buckets=((bucket, value),), first=bucket)
    if bucket <= last - size:
        return window
    kept = {b: v for b, v in window.buckets if b > max(last, bucket) - size}
    kept[bucket] = value
    return Window(buckets=tuple(sorted(kept.items())), first=min(window.first, bucket))


def bridged(window: Window, bucket: int, value: float, size: int) -> Window:
    """The window with the buckets filled that nobody measured before `bucket`.

    They get the larger of their neighbours: a loop that comes late has not seen zeros.
    """
    if not window.buckets:
        return window
    last, before = window.buckets[-1]
    if bucket - last >= size:
        return window
    for missed in range(last + 1, bucket):
        window = put(window, missed, max(before, value), size)
    return window


def average(window: Window, bucket: int, size: int) -> float | None:
    """The mean over the `size` buckets up to `bucket`; None when there is nothing in them.

    What has not been reported yet makes the divisor smaller.
    """
    if not window.buckets or bucket - window.buckets[-1][0] >= size:
        return None
    last = window.buckets[-1][0]
    behind = max(0, bucket - last)
    oldest = max(last, bucket) - size
    total = sum(value for b, value in window.buckets if b > oldest)
    elapsed = last - _first(window, size) + 1
    scale = 10**_DIGITS
    return math.floor(total / min(elapsed, size - behind) * scale) / scale


def age(window: Window, bucket: int, size: int) -> int:
    """Buckets up to `bucket` since the first that counts."""
    return max(bucket, window.buckets[-1][0]) - _first(window, size) + 1


def _first(window: Window, size: int) -> int:
    """The first bucket since silence of `size` buckets, which a narrow window sees more often."""
    first = window.buckets[-1][0]
    for bucket, _ in reversed(window.buckets):
        if first - bucket >= size:
            return first
        first = bucket
    return min(first, window.first)
