"""What the processes of one router tell each other: memory that they share.

Each process has a column that it alone writes, so nothing is locked. A cell is an aligned eight-byte word,
stored and loaded at once. Readers may see a state that is some microseconds old, never half of one.
"""

import mmap
import os
from hashlib import blake2b
from typing import Final

from supervisord_cp.core.routing.sharing import OtherLine

COLUMNS: Final = 64
ROWS: Final = 4096
_WORD: Final = 8
_HEAD: Final = 8
"""Words at the top of a column: heartbeat (monotonic ns, 0 = nobody), layout, connections plus one (0: takes
none), and room for more."""
_ROW: Final = 5
"""Words of a row: tag (0 = free), requests, bytes, the turn (a float), and room for more."""
_COLUMN: Final = _HEAD + ROWS * _ROW
BUCKETS: Final = 8192
"""Clients whose rate is limited: a tag and a time for each. These alone are written by every process."""
_SIZE: Final = (COLUMNS * _COLUMN + 2 * BUCKETS) * _WORD


def tag_of(name: str) -> int:
    """What a name is called on the board; never 0."""
    return int.from_bytes(blake2b(name.encode(), digest_size=_WORD).digest(), "little") or 1


class Board:
    """The memory, by its descriptor. What is never written takes no memory."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._memory = memoryview(mmap.mmap(descriptor, _SIZE)).cast("B")
        self.words = self._memory.cast("Q")
        self.floats = self._memory.cast("d")
        first = COLUMNS * _COLUMN
        self.bucket_tags = self.words[first : first + BUCKETS]
        self.bucket_times = self.floats[first + BUCKETS : first + 2 * BUCKETS]

    @classmethod
    def make(cls) -> "Board":
        """An empty one."""
        descriptor = os.memfd_create("supervisord-cp-router")
        os.ftruncate(descriptor, _SIZE)
        return cls(descriptor)

    def heartbeat(self, column: int) -> int:
        """When its process was last alive, in monotonic ns; 0: there is none."""
        return self.words[column * _COLUMN]

    def beat(self, column: int, now_ns: int) -> None:
        """Its process is alive."""
        self.words[column * _COLUMN] = now_ns

    def clear(self, column: int) -> None:
        """Its process has ended, and all that it had with it."""
        start = column * _COLUMN * _WORD
        self._memory[start : start + _COLUMN * _WORD] = bytes(_COLUMN * _WORD)


class Row:
    """One entry of our own column: an instance's, or a deployment's line."""

    __slots__ = ("_at", "_floats", "_words", "others", "tag")

    def __init__(self, board: Board, at: int, tag: int, others: "Others") -> None:
        self._words = board.words
        self._floats = board.floats
        self._at = at
        self.tag = tag
        self.others = others

    @property
    def turn(self) -> float:
        """How much we were served lately, next to others that wait."""
        return self._floats[self._at + 3]

    @turn.setter
    def turn(self, value: float) -> None:
        self._floats[self._at + 3] = value

    def tell(self, requests: int) -> None:
        """So many requests are open on the instance, or wait for the deployment."""
        self._words[self._at + 1] = requests

    def tell_bytes(self, size: int) -> None:
        """So many bytes wait for the deployment."""
        self._words[self._at + 2] = size

    def elsewhere(self) -> int:
        """Requests that the other processes have told."""
        if not self.others.any:
            return 0
        words = self._words
        return sum(words[at + 1] for at in self.others.places(self.tag))

    def elsewhere_bytes(self) -> int:
        """Bytes that wait in the other processes."""
        words = self._words
        return sum(words[at + 2] for at in self.others.places(self.tag))

    def waiting(self) -> list[OtherLine]:
        """The other processes with requests in line, those whose turn comes first before the others."""
        return self._waiting() if self.others.any else []

    def _waiting(self) -> list[OtherLine]:
        words, floats = self._words, self._floats
        found = [
            OtherLine(process=at // _COLUMN + 1, turn=floats[at + 3])
            for at in self.others.places(self.tag)
            if words[at + 1]
        ]
        return sorted(found, key=lambda one: one.turn) if len(found) > 1 else found


class Others:
    """Where the other processes keep what."""

    def __init__(self, board: Board, column: int) -> None:
        self._words = board.words
        self._board = board
        self._own = column
        self._columns: list[int] = []
        self._layouts: dict[int, int] = {}
        self._rows: dict[int, dict[int, int]] = {}
        self.any = False
        """Whether there are others."""

    def look(self) -> None:
        """See who is there and where each keeps its rows; to be called some times a second, and before
        counts matter."""
        alive = [c for c in range(COLUMNS) if c != self._own and self._board.heartbeat(c)]
        if alive != self._columns:
            self._columns = alive
            self.any = bool(alive)
            self._rows = {column: rows for column, rows in self._rows.items() if column in alive}
        for column in alive:
            layout = self._words[column * _COLUMN + 1]
            if column not in self._rows or self._layouts.get(column) != layout:
                self._layouts[column] = layout
                self._rows[column] = self._read(column)

    def fewest(self) -> int | None:
        """The connections of the process that has the fewest; None: no other one takes any."""
        counts = [count for column in self._columns if (count := self._words[column * _COLUMN + 2])]
        return min(counts) - 1 if counts else None

    def places(self, tag: int) -> list[int]:
        """Where the others keep an entry."""
        return [at for rows in self._rows.values() if (at := rows.get(tag)) is not None]

    def _read(self, column: int) -> dict[int, int]:
        first = column * _COLUMN + _HEAD
        words = self._words
        return {tag: at for at in range(first, first + ROWS * _ROW, _ROW) if (tag := words[at])}


class Column:
    """Our own, with a view of the others."""

    def __init__(self, board: Board, column: int) -> None:
        board.clear(column)
        self.number = column
        self.others = Others(board, column)
        self._board = board
        self._rows: dict[str, Row] = {}
        self._free = [column * _COLUMN + _HEAD + row * _ROW for row in reversed(range(ROWS))]
        self._places: dict[str, int] = {}

    def beat(self, now_ns: int) -> None:
        """We are alive."""
        self._board.beat(self.number, now_ns)

    def connections(self, count: int) -> int:
        """Tell how many clients we have; how many more that is than the process with the fewest has."""
        self._board.words[self.number * _COLUMN + 2] = count + 1
        self.others.look()
        fewest = self.others.fewest()
        return 0 if fewest is None else count - fewest

    def take_none(self) -> None:
        """Tell that we take no clients any more."""
        self._board.words[self.number * _COLUMN + 2] = 0

    def row(self, name: str) -> Row | None:
        """The entry of an instance or a line; None when there is no room for more."""
        row = self._rows.get(name)
        if row is None and self._free:
            at = self._places[name] = self._free.pop()
            row = self._rows[name] = Row(self._board, at, tag_of(name), self.others)
            self._write(at, row.tag)
        return row

    def drop(self, name: str) -> None:
        """An entry is not needed any more."""
        if self._rows.pop(name, None) is not None:
            at = self._places.pop(name)
            self._write(at, 0)
            self._free.append(at)

    def _write(self, at: int, tag: int) -> None:
        words = self._board.words
        words[at : at + _ROW] = memoryview(bytes(_ROW * _WORD)).cast("Q")
        words[at] = tag
        words[self.number * _COLUMN + 1] += 1
