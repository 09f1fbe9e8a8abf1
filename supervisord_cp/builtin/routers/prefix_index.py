"""What instances may have in their prefix caches: prompts that were sent to them, by block."""

from collections.abc import Mapping, Sequence
from typing import Final

from supervisord_cp.policy import Affinity, Incarnation

ENTRY_BYTES: Final = 128
"""Memory of one block in the index of one incarnation: the key, and its place in a dictionary."""


class _Held:
    """The blocks of one incarnation: two generations, the older of which is dropped as a whole.

    A prompt's blocks are always put in together, so that a generation which has a block has all blocks
    before it, too: how much of a prompt is held is found by halving.
    """

    __slots__ = ("_new", "_old")

    def __init__(self) -> None:
        self._new: dict[int, None] = {}
        self._old: dict[int, None] = {}

    def add(self, prefix: Sequence[int], most: int) -> None:
        known = _depth(prefix, self._new)
        if len(self._new) + len(prefix) - known > most // 2:
            self._old, self._new = self._new if len(self._new) <= most // 2 else {}, {}
            known = 0
        for key in prefix[known:]:
            self._new[key] = None
        self.shrink(most)  # the older generation may be from when there was more room

    def shrink(self, most: int) -> None:
        if len(self) > most:
            self._old = {}
        if len(self) > most:
            self._new = {}

    def match(self, prefix: Sequence[int]) -> int:
        return max(_depth(prefix, self._new), _depth(prefix, self._old))

    def __contains__(self, key: int) -> bool:
        return key in self._new or key in self._old

    def __len__(self) -> int:
        return len(self._new) + len(self._old)


class PrefixIndex:
    """Bounded in bytes, shared out evenly between the incarnations that it knows."""

    def __init__(self, max_bytes: int) -> None:
        self._most_entries: Final = max(1, max_bytes // ENTRY_BYTES)
        self._held: dict[Incarnation, _Held] = {}

    def __len__(self) -> int:
        """Entries."""
        return sum(map(len, self._held.values()))

    @property
    def bytes(self) -> int:
        """Memory that the entries take, about."""
        return len(self) * ENTRY_BYTES

    def add(self, incarnation: Incarnation, prefix: Sequence[int]) -> None:
        """A prompt was sent there."""
        if not prefix:
            return
        held = self._held.get(incarnation)
        if held is None:
            held = self._held[incarnation] = _Held()
            for other in self._held.values():
                other.shrink(self._most_entries // len(self._held))
        share = self._most_entries // len(self._held)
        held.add(prefix[: share // 2], share)

    def match(self, incarnation: Incarnation, prefix: Sequence[int]) -> int:
        """How many blocks of a prompt, from its beginning, it may have."""
        held = self._held.get(incarnation)
        return 0 if held is None else held.match(prefix)

    def affinity(self, incarnation: Incarnation, prefix: Sequence[int]) -> Affinity | None:
        """Whether a prompt that goes there goes where most of it is; None for one without a whole block.
        To be asked before it is added."""
        if not prefix:
            return None
        mine = self.match(incarnation, prefix)
        if mine < len(prefix) and any(prefix[mine] in held for held in self._held.values()):
            return Affinity.MOVED
        return Affinity.HIT if mine else Affinity.NEW

    def forget(self, incarnation: Incarnation) -> None:
        """It is gone, with all it had."""
        self._held.pop(incarnation, None)


def _depth(prefix: Sequence[int], blocks: Mapping[int, None]) -> int:
    """How many blocks of a prompt are there, from its beginning."""
    low, high = 0, len(prefix)
    while low < high:
        middle = (low + high + 1) // 2
        if prefix[middle - 1] in blocks:
            low = middle
        else:
            high = middle - 1
    return low
