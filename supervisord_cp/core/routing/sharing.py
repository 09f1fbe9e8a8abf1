"""What the processes of one router know of each other's work: limits hold over all of them together."""

from collections.abc import Sequence
from typing import Protocol

from supervisord_cp.model.base import Value


class OtherLine(Value, frozen=True, kw_only=True):
    """Requests of a deployment that wait in another process."""

    process: int
    turn: float
    """How much it was served lately; less goes first."""


class Entry(Protocol):
    """What is known of one instance, or of one deployment's line, in all processes."""

    turn: float
    """How much our line was served lately."""

    def tell(self, requests: int) -> None:
        """So many are open on the instance, or wait, in this process."""
        ...

    def tell_bytes(self, size: int) -> None:
        """So many bytes wait in this process."""
        ...

    def elsewhere(self) -> int:
        """Requests of the other processes."""
        ...

    def elsewhere_bytes(self) -> int:
        """Bytes that wait in the other processes."""
        ...

    def waiting(self) -> Sequence[OtherLine]:
        """The other processes' lines that are not empty, by their turns."""
        ...


class Entries(Protocol):
    """Entries by name. There may be no room for more: then each process is on its own."""

    def row(self, name: str) -> Entry | None: ...

    def drop(self, name: str) -> None: ...


def next_line(entry: Entry) -> OtherLine | None:
    """The line of another process that goes before ours; None: it is our turn."""
    others = entry.waiting()
    return others[0] if others and others[0].turn < entry.turn else None


def join(entry: Entry) -> None:
    """Our line is no longer empty: it has no claim to what others were served before."""
    if others := entry.waiting():
        entry.turn = max(entry.turn, others[0].turn)


def served(entry: Entry, keys: int) -> None:
    """A request of ours goes out. A line in which many keys wait has as many turns."""
    entry.turn += 1.0 / max(1, keys)
