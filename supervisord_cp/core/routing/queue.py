"""Requests that wait for an instance: bounded in count and bytes, first come first served."""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar


class Waiting(Protocol):
    """What may wait."""

    @property
    def body_bytes(self) -> int: ...

    @property
    def prompt_tokens(self) -> int: ...


Item = TypeVar("Item", bound=Waiting)


class WaitingLine(Generic[Item]):
    """The queue of one deployment. Items are told apart by identity; each waits once."""

    def __init__(self, *, most: int, most_bytes: int) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._items: OrderedDict[int, Item] = OrderedDict()
        self.bytes = 0
        self.tokens = 0

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Item]:
        """From the front; the line may change meanwhile."""
        return iter(tuple(self._items.values()))

    def fits(self, item: Item) -> bool:
        """Whether there is room for one more. A single item of any size may wait in an empty line."""
        if not self._items:
            return self._most > 0
        return len(self._items) < self._most and self.bytes + item.body_bytes <= self._most_bytes

    def add(self, item: Item, *, front: bool = False) -> None:
        """Let it wait; `front` for one that has been through the line before, bounds notwithstanding."""
        key = id(item)
        if key in self._items:
            raise ValueError("it waits already")
        self._items[key] = item
        if front:
            self._items.move_to_end(key, last=False)
        self.bytes += item.body_bytes
        self.tokens += item.prompt_tokens

    def remove(self, item: Item) -> bool:
        """Take it out from wherever it stands. False when it does not wait."""
        if self._items.pop(id(item), None) is None:
            return False
        self.bytes -= item.body_bytes
        self.tokens -= item.prompt_tokens
        return True

    def first(self) -> Item | None:
        """The one that has waited longest."""
        return next(iter(self._items.values()), None)
