"""Breaking off policies that do not come back: endless loops, sleeps, waits."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

from supervisord_cp.core.policies.guard import Overrun

TICK_S: Final = 0.05


class AlarmWatch:
    """Looks at the call that is in progress a few times a second, from a signal handler in the main thread.

    A call that was in progress at the look before is broken off by `Overrun`, raised where it stands: after
    one to two ticks. Between calls a look costs a few microseconds, and nothing while it is not armed, so
    it is armed only while there are policies that are not our own.

    It owns SIGALRM and the real interval timer while armed, and gives them back as they were.
    """

    def __init__(self, tick_s: float = TICK_S) -> None:
        self._tick_s = tick_s
        self._calls = 0
        self._seen = 0
        self._inside = False
        self._before: tuple[Any, tuple[float, float]] | None = None

    @property
    def armed(self) -> bool:
        return self._before is not None

    def arm(self) -> None:
        """Begin to look. In the main thread only."""
        if self._before is None:
            handler = signal.signal(signal.SIGALRM, self._look)
            signal.siginterrupt(signal.SIGALRM, False)
            self._before = handler, signal.setitimer(signal.ITIMER_REAL, self._tick_s, self._tick_s)

    def disarm(self) -> None:
        """Look no more."""
        if self._before is not None:
            handler, timer = self._before
            self._before = None
            signal.setitimer(signal.ITIMER_REAL, *timer)
            signal.signal(signal.SIGALRM, handler)

    def enter(self) -> None:
        """A call begins."""
        self._calls += 1
        self._inside = True

    def leave(self) -> None:
        """It has ended."""
        self._inside = False

    @contextmanager
    def around(self) -> Iterator[None]:
        """One call."""
        try:
            self.enter()
            yield
        finally:
            self.leave()

    def _look(self, number: int, frame: FrameType | None) -> None:
        if not self._inside:
            return
        if self._seen == self._calls:
            raise Overrun
        self._seen = self._calls
