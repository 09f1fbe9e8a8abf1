"""Heads come again and again: read once, they are known from then on.

What a client sends differs from its last request in the length of the body alone, as a rule, and what an
engine sends in that and, once a second, in the date. So heads are remembered without that length.
"""

from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

from supervisord_cp.router.http1.head import MOST_HEAD_BYTES

MOST_KNOWN: Final = 512
MOST_BYTES: Final = 4096
"""Longer heads are read each time."""
NO_LENGTH: Final = -1
_MOST_DIGITS: Final = 18
_ZERO: Final = ord("0")
_SPELLINGS: Final = (b"\r\ncontent-length: ", b"\r\nContent-Length: ")
"""Written in another way, the length is part of what is remembered."""
_HERE: Final = b"\r\n:\r\n"
"""Marks where the length was; no head that is well-formed has such a line."""
_END: Final = b"\r\n\r\n"

Head = TypeVar("Head")


class Known(Generic[Head]):
    """A head that has been read, and all that stands before and behind the length of its body, up to the
    empty line."""

    __slots__ = ("before", "behind", "head")

    def __init__(self, head: Head, before: bytes, behind: bytes) -> None:
        self.head: Final = head
        self.before: Final = before
        self.behind: Final = behind


class RecurringHeads(Generic[Head]):
    """Reads heads with `parse`; those with the same text have the same object, so nobody may change it.

    Only whole heads that `parse` has accepted are remembered, and a length is taken out only where it is
    nothing but digits: put any other number there, and `parse` would say the same of the rest.
    """

    def __init__(self, parse: Callable[[bytes], tuple[Head, int | None]]) -> None:
        self.parse: Final = parse
        self._whole: Final[dict[bytes, tuple[Head, int | None]]] = {}
        self._known: Final[dict[bytes, Known[Head]]] = {}

    def read_whole(self, block: bytes) -> tuple[Head, int | None]:
        """One without such a length."""
        found = self._whole.get(block)
        if found is None:
            found = self.parse(block + b"\r\n")
            if len(block) <= MOST_BYTES:
                _make_room(self._whole)
                self._whole[block] = found
        return found

    def find(self, before: bytes, behind: bytes, block: bytes) -> Known[Head]:
        """One with such a length, which is in `block` between the other two."""
        text = before + _HERE + behind
        known = self._known.get(text)
        if known is None:
            known = Known(self.parse(block + b"\r\n")[0], before, behind)
            if len(text) <= MOST_BYTES:
                _make_room(self._known)
                self._known[text] = known
        return known


class HeadReader(Generic[Head]):
    """Reads the heads of one connection, most of which are as the one before."""

    __slots__ = ("_heads", "_last", "length", "size")

    def __init__(self, heads: RecurringHeads[Head]) -> None:
        self._heads: Final = heads
        self._last: Known[Head] | None = None
        self.length = NO_LENGTH
        """Of the body that follows the head which was read last, in bytes; `NO_LENGTH`: not known."""
        self.size = 0
        """Of that head, its empty line included."""

    def read(self, data: bytes) -> Head | None:
        """The head at the beginning of `data`; None while it is not whole, and when it is too large.

        Raises:
            Exception: what `parse` raises.
        """
        last = self._last
        if last is not None and data.startswith(last.before):
            at = end = len(last.before)
            stop = min(len(data), at + _MOST_DIGITS)
            length = 0
            while end < stop:
                digit = data[end] - _ZERO
                if not 0 <= digit <= 9:
                    break
                length = 10 * length + digit
                end += 1
            if end > at and data.startswith(last.behind, end):
                self.length = length
                self.size = end + len(last.behind)
                return last.head
        end = data.find(_END)
        if end < 0 or end > MOST_HEAD_BYTES:
            return None
        self.size = end + len(_END)
        return self._search(data[:end])

    def _search(self, block: bytes) -> Head:
        """A head that is not as the one before, without the CRLF of its last field."""
        heads = self._heads
        for name in _SPELLINGS:
            before, found, after = block.partition(name)
            if found:
                break
        else:
            return self._take(heads.read_whole(block))
        digits, more, behind = after.partition(b"\r\n")
        if not digits.isdigit() or len(digits) > _MOST_DIGITS:
            return self._take(heads.parse(block + b"\r\n"))
        known = heads.find(before + found, more + behind + _END, block)
        if len(block) <= MOST_BYTES:
            self._last = known
        self.length = int(digits)
        return known.head

    def _take(self, found: tuple[Head, int | None]) -> Head:
        length = found[1]
        self.length = NO_LENGTH if length is None else length
        return found[0]


def _make_room(known: dict[bytes, Any]) -> None:
    """For one more."""
    if len(known) >= MOST_KNOWN:
        del known[next(iter(known))]
