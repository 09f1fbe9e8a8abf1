"""When a router asks central for a whole view of the fleet, and asks again. Pure: time comes in."""

from typing import Final

AGAIN_AFTER_S: Final = 1.0
LONGEST_S: Final = 60.0


class WholeView:
    """One wish for a whole view: sent at once, and again after longer and longer waits until one comes."""

    def __init__(self) -> None:
        self._due: float | None = None
        """None: the view that we have can be gone on from."""
        self._wait_s = AGAIN_AFTER_S
        self.unreadable = False
        """Whether it is wished for because central's words could not be read."""

    def miss(self, now: float) -> None:
        """The view has a gap. A wish that stands already stands."""
        if self._due is None:
            self._due = now

    def due(self, now: float) -> bool:
        """Whether it has to be asked for now; then the wait for the next time grows."""
        if self._due is None or now < self._due:
            return False
        self._due = now + self._wait_s
        self._wait_s = min(LONGEST_S, 2 * self._wait_s)
        return True

    def came(self) -> None:
        """There is one, or a new connection brings one."""
        self._due, self._wait_s, self.unreadable = None, AGAIN_AFTER_S, False
