"""Heads come again and again: read once, they are known from then on.

What a client sends differs from its last request in the length of the body alone, as a rule, and what an
engine sends in that and, once a second, in the date. So heads are remembered without that length.
"""

from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

MOST_KNOWN: Final = 512
MOST_BYTES: Final = 4096
"""Longer heads are read each time."""
_MOST_DIGITS: Final = 18
_SPELLINGS: Final = (b"\r\ncontent-length: ", b"\r\nContent-Length: ")
"""Written in another way, the length is part of what is remembered."""
_HERE: Final = b"\r\n:\r\n"
"""Marks where the length was; no head that is well-formed has such a line."""

Head = TypeVar("Head")
Length = TypeVar("Length")


class Known(Generic[Head]):
    """A head that has been read, and what stands before and behind the length of its body."""

    __slots__ = ("before", "behind", "head")

    def __init__(self, head: Head, before: bytes, behind: bytes) -> None:
        self.head: Final = head
        self.before: Final = before
        self.behind: Final = behind


class RecurringHeads(Generic[Head, Length]):
    """Reads heads with `parse`; those with the same text have the same object, so nobody may change it.

    Only whole heads that `parse` has accepted are remembered, and a length is taken out only where it is
    nothing but digits: put any other number there, and `parse` would say the same of the rest.
    """

    def __init__(self, parse: Callable[[bytes], tuple[Head, Length]]) -> None:
        self.parse: Final = parse
        self._whole: Final[dict[bytes, tuple[Head, Length]]] = {}
        self._known: Final[dict[bytes, Known[Head]]] = {}

    def read_whole(self, block: bytes) -> tuple[Head, Length]:
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


class HeadReader(Generic[Head, Length]):
    """Reads the heads of one connection, most of which are as the one before."""

    __slots__ = ("_heads", "_last")

    def __init__(self, heads: RecurringHeads[Head, Length]) -> None:
        self._heads: Final = heads
        self._last: Known[Head] | None = None

    def read(self, block: bytes) -> tuple[Head, Length | int]:
        """A head, without the CRLF of its last field, and the length of its body.

        Raises:
            Exception: what `parse` raises.
        """
        before, name, after = block.partition(_SPELLINGS[0])
        if not name:
            before, name, after = block.partition(_SPELLINGS[1])
            if not name:
                return self._heads.read_whole(block)
        digits, _, behind = after.partition(b"\r\n")
        if not digits.isdigit() or len(digits) > _MOST_DIGITS:
            return self._heads.parse(block + b"\r\n")
        known = self._last
        if known is None or known.before != before or known.behind != behind:
            known = self._heads.find(before, behind, block)
            if len(block) <= MOST_BYTES:
                self._last = known
        return known.head, int(digits)


def _make_room(known: dict[bytes, Any]) -> None:
    """For one more."""
    if len(known) >= MOST_KNOWN:
        del known[next(iter(known))]
