"""What is told of a decision besides itself: what would have led to another."""

from supervisord_cp.model.base import Value
from supervisord_cp.model.reason import NO_REASON, Reason


class Otherwise(Value, frozen=True, kw_only=True):
    """One thing that would have to change, and the number that there would be then."""

    change: Reason
    lifts: Reason = NO_REASON
    """What would no longer hold the number: the limit that was in the way."""
    wanted: int | None = None
    """None: it cannot be said without data."""
    because: Reason = NO_REASON
    """What decides then."""
    in_s: float | None = None
    """It changes by itself after this time; None: it does not."""


class Threshold(Value, frozen=True, kw_only=True):
    """Where a scaler would propose another number, if the load changed and stayed so."""

    policy: str
    replicas: int
    """What it proposes now."""
    signal: str
    """What it follows; "" for several things at once, which are then told as a share of the present ones."""
    value: float
    """Now; 1.0 for a share."""
    more_above: float | None = None
    more: int | None = None
    less_below: float | None = None
    less: int | None = None
