"""Time as an argument: everything that decides is given `now` in monotonic seconds."""

import time
from typing import Protocol


class Clock(Protocol):
    """A monotonic clock."""

    def now(self) -> float:
        """Monotonic seconds; only differences mean anything."""
        ...


class SystemClock:
    """The machine's monotonic clock."""

    def now(self) -> float:
        return time.monotonic()


class ManualClock:
    """A clock that moves when told to; for tests and simulation."""

    def __init__(self, start: float = 1000.0) -> None:
        self._now = start

    def now(self) -> float:
        return self._now

    def advance(self, seconds: float) -> float:
        """Move forward and return the new time."""
        if seconds < 0:
            raise ValueError("a monotonic clock does not run backwards")
        self._now += seconds
        return self._now
