"""Cron expressions: minute, hour, day of the month, month, day of the week."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo
from typing import Final

_MONTHS: Final = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DAYS: Final = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
_LOOK_BACK_DAYS: Final = 8 * 366
"""Far enough for the 29th of February over a century without a leap day."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cron:
    """The moments at which an expression is due."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    """0 is Sunday."""
    either_day: bool
    """Both kinds of day are restricted: a day is due when one of them fits."""

    def due_on(self, day: date) -> bool:
        if day.month not in self.months:
            return False
        of_month, of_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return of_month or of_week if self.either_day else of_month and of_week

    def last_before(self, now: datetime) -> float | None:
        """When it was due last, `now` included, in seconds since 1970; None: not for years.

        `now` is in the time zone of the expression. A time that the clock skips falls as much later; of
        one that it repeats the first counts.
        """
        moment = now.timestamp()
        zone = now.tzinfo
        for back in range(_LOOK_BACK_DAYS):
            day = now.date() - timedelta(days=back)
            if not self.due_on(day):
                continue
            for hour in reversed(self.hours):
                if _stamp(day, hour, self.minutes[0], zone) > moment:
                    continue
                stamps = (_stamp(day, hour, minute, zone) for minute in reversed(self.minutes))
                return next(stamp for stamp in stamps if stamp <= moment)
        return None


def _stamp(day: date, hour: int, minute: int, zone: tzinfo | None) -> float:
    return datetime(day.year, day.month, day.day, hour, minute, tzinfo=zone).timestamp()


def parse(text: str) -> Cron:
    """The expression that five fields make.

    A field is `*`, a number or name, a range `a-b`, any of them with a step `/n`, or a list of these.

    Raises:
        ValueError: it is none.
    """
    fields = text.split()
    if len(fields) != 5:
        raise ValueError(f'"{text}" has {len(fields)} fields, a cron expression has five')
    minute, hour, day, month, weekday = fields
    months = {name: number for number, name in enumerate(_MONTHS, 1)}
    names = {name: number for number, name in enumerate(_DAYS)}
    return Cron(
        minutes=tuple(sorted(_field(minute, 0, 59, {}))),
        hours=tuple(sorted(_field(hour, 0, 23, {}))),
        days=frozenset(_field(day, 1, 31, {})),
        months=frozenset(_field(month, 1, 12, months)),
        weekdays=frozenset(n % 7 for n in _field(weekday, 0, 7, names)),
        either_day=not day.startswith("*") and not weekday.startswith("*"),
    )


def _field(text: str, low: int, high: int, names: Mapping[str, int]) -> set[int]:
    found: set[int] = set()
    for part in text.split(","):
        span, stepped, step_text = part.partition("/")
        step = _number(step_text, 1, high, {}) if stepped else 1
        if span == "*":
            first, last = low, high
        else:
            start, ranged, end = span.partition("-")
            first = _number(start, low, high, names)
            last = _number(end, low, high, names) if ranged else (high if stepped else first)
        if first > last:
            raise ValueError(f'"{part}" runs backwards')
        found.update(range(first, last + 1, step))
    return found


def _number(text: str, low: int, high: int, names: Mapping[str, int]) -> int:
    number = names.get(text.lower())
    if number is None:
        if not (text.isascii() and text.isdigit()):
            raise ValueError(f'"{text}" is no number')
        number = int(text)
    if not low <= number <= high:
        raise ValueError(f"{number} is not between {low} and {high}")
    return number
