"""When a policy that keeps failing is left alone for a while."""

from typing import Final

WINDOW_S: Final = 10.0
MOST_FAILURES: Final = 5
"""Within a window, before it opens."""
LEAST_SHARE: Final = 0.1
"""Of the calls in the window that failed: a policy that is asked often may fail now and then."""
FIRST_OPEN_S: Final = 15.0
LONGEST_OPEN_S: Final = 600.0


class Breaker:
    """Closed, open for a while, then closed again on trial: each time it reopens, for twice as long."""

    __slots__ = ("_calls", "_failures", "_on_trial", "_open_s", "_open_until", "_window_end")

    def __init__(self) -> None:
        self._calls = 0
        self._failures = 0
        self._window_end = 0.0
        self._open_until = 0.0
        self._open_s = FIRST_OPEN_S
        self._on_trial = False

    def blocks(self, now: float) -> bool:
        """Whether the policy is left alone now."""
        return now < self._open_until

    def succeeded(self, now: float) -> bool:
        """A call went well. True: it was the one on trial."""
        if now >= self._window_end:
            self._begin_window(now)
        self._calls += 1
        if not self._on_trial:
            return False
        self._on_trial = False
        self._open_s = FIRST_OPEN_S
        return True

    def failed(self, now: float, *, grave: bool = False) -> float:
        """A call failed. Seconds for which the policy is left alone from now on; 0: it goes on.

        `grave`: one such is enough."""
        if now >= self._window_end:
            self._begin_window(now)
        self._calls += 1
        self._failures += 1
        often = self._failures >= MOST_FAILURES and self._failures >= LEAST_SHARE * self._calls
        if not (grave or often or self._on_trial):
            return 0.0
        lasts = self._open_s
        self._open_until = now + lasts
        self._open_s = min(LONGEST_OPEN_S, 2 * lasts)
        self._on_trial = True
        self._window_end = 0.0
        return lasts

    def _begin_window(self, now: float) -> None:
        self._calls = self._failures = 0
        self._window_end = now + WINDOW_S
