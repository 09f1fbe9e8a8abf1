"""schedule: a minimum and a maximum by the calendar."""

from datetime import UTC, datetime, tzinfo
from typing import Annotated
from zoneinfo import ZoneInfo

from msgspec import Meta

from supervisord_cp.builtin.scalers.cron import parse
from supervisord_cp.policy import (
    PolicyKind,
    Reason,
    ReasonCode,
    ScaleProposal,
    ScaleView,
    Value,
    cannot_tell,
    policy,
)

Count = Annotated[int, Meta(ge=0)]


class Period(Value, frozen=True, kw_only=True):
    """A time that comes again: from each `start` to the next `end`."""

    start: str
    """Cron expression: minute, hour, day of the month, month, day of the week."""
    end: str
    """Cron expression."""
    min: Count = 0
    max: Count | None = None
    """None: the deployment's own."""

    def __post_init__(self) -> None:
        parse(self.start)
        parse(self.end)
        _check(self.min, self.max)

    def covers(self, now: datetime) -> bool:
        """Whether it has begun and not ended; it ends first where both fall together."""
        begun = parse(self.start).last_before(now)
        ended = parse(self.end).last_before(now)
        return begun is not None and (ended is None or begun > ended)


class ScheduleParams(Value, frozen=True, kw_only=True):
    """Parameters of `schedule`."""

    periods: tuple[Period, ...]
    """Where several hold at once, the largest minimum and the smallest maximum count."""
    timezone: str = "UTC"
    """A name such as `Europe/Berlin`."""
    min: Count = 0
    """Outside of all periods."""
    max: Count | None = None
    """Outside of all periods; None: the deployment's own."""

    def __post_init__(self) -> None:
        _zone(self.timezone)
        _check(self.min, self.max)


@policy(PolicyKind.SCALER, "schedule", params=ScheduleParams)
def schedule(view: ScaleView, params: ScheduleParams) -> ScaleProposal:
    """A minimum and a maximum by cron expressions in a time zone."""
    if view.wall_s is None:
        return cannot_tell("schedule", Reason(code=ReasonCode.NO_WALL_CLOCK))
    now = datetime.fromtimestamp(view.wall_s, _zone(params.timezone))
    holding = [period for period in params.periods if period.covers(now)]
    bounds: list[Period | ScheduleParams] = [*holding] or [params]
    most = min((bound.max for bound in bounds if bound.max is not None), default=None)
    least = max(bound.min for bound in bounds)
    least = least if most is None else min(least, most)
    reason = Reason(code=ReasonCode.SCHEDULE, params={"min": least, "max": "any" if most is None else most})
    return ScaleProposal(
        policy="schedule", replicas=float(least), reason=reason, at_least=least, at_most=most
    )


def _zone(name: str) -> tzinfo:
    """The time zone of a name.

    Raises:
        ValueError: this host knows none of that name.
    """
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, OSError, ValueError) as error:
        raise ValueError(f'no time zone is called "{name}" on this host') from error


def _check(least: int, most: int | None) -> None:
    if most is not None and least > most:
        raise ValueError(f"min is {least}, more than max = {most}")
