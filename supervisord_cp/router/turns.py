"""Whose turn it is among the processes of one router, when requests wait in more than one of them."""

from collections.abc import Callable

from supervisord_cp.core.routing.sharing import Entry, join, next_line, served


class Turns:
    """Start-time fair queueing over the processes' lines of a deployment, weighted by the keys that wait in
    each. Inside a process its scheduler and its fair share decide, as ever."""

    def __init__(self, wake: Callable[[int], None] = lambda process: None) -> None:
        """`wake` has another process look at its lines."""
        self._wake = wake

    def others_wait(self, entry: Entry | None) -> bool:
        """Whether a new request may not just go out, though nothing waits here."""
        return entry is not None and bool(entry.waiting())

    def joined(self, entry: Entry | None) -> None:
        """Our line is no longer empty."""
        if entry is not None:
            join(entry)

    def passes(self, entry: Entry | None) -> bool:
        """Whether room is left to another process, which is told of it."""
        other = None if entry is None else next_line(entry)
        if other is not None:
            self._wake(other.process)
        return other is not None

    def served(self, entry: Entry | None, keys: int) -> None:
        """A request of ours has gone out."""
        if entry is not None:
            served(entry, keys)

    def freed(self, entry: Entry | None) -> None:
        """There is room, and nothing of ours waits."""
        if entry is not None and (others := entry.waiting()):
            self._wake(others[0].process)
