"""Fewer replicas at night, more only when something waits: a scaler.

[[deployments.chat.autoscale.scalers]]
use = "night_shift"
params = { night = [22, 6], day_replicas = 4, utc_offset_h = 1.0 }
"""

import math
from datetime import UTC, datetime, timedelta

from supervisord_cp.policy import (
    Reason,
    ReasonCode,
    ScaleProposal,
    ScaleView,
    SignalName,
    Value,
    cannot_tell,
    scaler,
    why_unknown,
)


class Params(Value, frozen=True, kw_only=True):
    """What the configuration may say in `params`."""

    day_replicas: int = 2
    night_replicas: int = 1
    night: tuple[int, int] = (22, 6)
    """The hours at which night begins and ends."""
    utc_offset_h: float = 0.0
    queued_per_replica: int = 8
    """At night, one replica more for so many requests that wait."""

    def __post_init__(self) -> None:
        if not all(0 <= hour <= 23 for hour in self.night):
            raise ValueError("night are two hours, 0 to 23")
        if self.queued_per_replica < 1:
            raise ValueError("queued_per_replica must be at least 1")


@scaler("night_shift", params=Params)
def night_shift(view: ScaleView, params: Params) -> ScaleProposal:
    """`day_replicas` by day; by night `night_replicas` and what the queue asks for.

    A proposal is a wish: bounds, budget, and how fast replicas come and go are not its business.
    """
    if view.wall_s is None:
        return cannot_tell("night_shift", Reason(code=ReasonCode.NO_WALL_CLOCK))
    now = datetime.fromtimestamp(view.wall_s, UTC) + timedelta(hours=params.utc_offset_h)
    if not is_night(now.hour, *params.night):
        return proposed(params.day_replicas)
    queued = view.signal(SignalName.QUEUED)
    if not queued.known:  # unknown is not zero: the number stays as it is
        return cannot_tell("night_shift", why_unknown(SignalName.QUEUED, queued))
    return proposed(params.night_replicas + math.ceil(queued.value / params.queued_per_replica))


def proposed(replicas: int) -> ScaleProposal:
    reason = Reason(code=ReasonCode.SCHEDULE, params={"min": replicas, "max": "any"})
    return ScaleProposal(policy="night_shift", replicas=replicas, reason=reason)


def is_night(hour: int, begins: int, ends: int) -> bool:
    if begins <= ends:
        return begins <= hour < ends
    return hour >= begins or hour < ends
