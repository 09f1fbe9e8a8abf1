"""Heads come again and again: read once, they are known from then on.

What a client sends differs from its last request in the length of the body alone, as a rule, and what an
engine sends in that and, once a second, in the date. So heads are remembered without that length.
"""

from collections.abc import Callable
from typing import Final, Generic, TypeVar

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


class RecurringHeads(Generic[Head, Length]):
    """Reads heads with `parse`; those with the same text have the same object, so nobody may change it.

    Only whole heads that `parse` has accepted are remembered, and a length is taken out only where it is
    nothing but digits: put any other number there, and `parse` would say the same of the rest.
    """

    def __init__(self, parse: Callable[[bytes], tuple[Head, Length]]) -> None:
        self._parse: Final = parse
        self._known: Final[dict[bytes, tuple[Head, Length]]] = {}

    def read(self, block: bytes) -> tuple[Head, Length | int]:
        """A head, without the CRLF of its last field, and the length of its body.

        Raises:
            Exception: what `parse` raises.
        """
        before, name, after = block.partition(_SPELLINGS[0])
        if not name:
            before, name, after = block.partition(_SPELLINGS[1])
            if not name:
                return self._known.get(block) or self._learn(block, block)
        digits, _, behind = after.partition(b"\r\n")
        if not digits.isdigit() or len(digits) > _MOST_DIGITS:
            return self._parse(block + b"\r\n")
        text = before + _HERE + behind
        known = self._known.get(text)
        if known is None:
            return self._learn(text, block)
        return known[0], int(digits)

    def _learn(self, text: bytes, block: bytes) -> tuple[Head, Length]:
        read = self._parse(block + b"\r\n")
        if len(text) <= MOST_BYTES:
            if len(self._known) >= MOST_KNOWN:
                del self._known[next(iter(self._known))]
            self._known[text] = read
        return read
