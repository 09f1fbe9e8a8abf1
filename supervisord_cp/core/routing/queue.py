"""Requests that wait for an instance: bounded in count and bytes, keys in turn, each key's by their ranks."""

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

from supervisord_cp.core.routing.fair_share import FairShare
from supervisord_cp.core.routing.sharing import Entry
from supervisord_cp.model.request import RoutingRequest
from supervisord_cp.policy.scheduling import WaitingRequest


class Waiting(Protocol):
    """What may wait."""

    @property
    def body_bytes(self) -> int: ...

    @property
    def prompt_tokens(self) -> int: ...

    @property
    def tokens(self) -> int:
        """Work, prompt and answer."""
        ...

    @property
    def key(self) -> str:
        """Whose it is: keys take turns."""
        ...

    @property
    def request(self) -> RoutingRequest: ...

    @property
    def waiting(self) -> WaitingRequest:
        """The same, as schedulers see it."""
        ...


Item = TypeVar("Item", bound=Waiting)


class _Place(NamedTuple):
    """Where an item stands among those of its key."""

    rank: float
    number: int


class WaitingLine(Generic[Item]):
    """The queue of one deployment. Items are told apart by identity; each waits once."""

    def __init__(self, *, most: int, most_bytes: int, entry: Entry | None = None) -> None:
        """`entry`: the bounds hold together with what waits in other processes."""
        self.entry: Final = entry
        self._most: Final = most
        self._most_bytes: Final = most_bytes
        self._items: dict[_Place, Item] = {}
        self._places: dict[int, _Place] = {}
        self._lines: dict[str, list[_Place]] = {}
        self._returned: list[Item] = []
        """Those that have been through the line before: they go first, the latest of them before all."""
        self._share: Final = FairShare()
        self._number = 0
        self.size = 0
        self.bytes = 0
        self.tokens = 0
        """Of prompts."""

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[Item]:
        """All of them; the line may change meanwhile."""
        return iter((*reversed(self._returned), *self._items.values()))

    def __contains__(self, item: object) -> bool:
        return id(item) in self._places or any(item is other for other in self._returned)

    def returned(self, item: Item) -> bool:
        """Whether it has been through the line before."""
        return any(item is other for other in self._returned)

    def fits(self, item: Item) -> bool:
        """Whether there is room for one more. A single item of any size may wait in an empty line."""
        waiting, size = len(self), self.bytes
        if self.entry is not None:
            waiting += self.entry.elsewhere()
            size += self.entry.elsewhere_bytes()
        if not waiting:
            return self._most > 0
        return waiting < self._most and size + item.body_bytes <= self._most_bytes

    def add(self, item: Item, rank: float = 0.0, *, front: bool = False) -> None:
        """Let it wait, behind those of its key with the same rank; `front` for one that has been through
        the line before, bounds notwithstanding."""
        if item in self:
            raise ValueError("it waits already")
        if front:
            self._returned.append(item)
        else:
            self._number += 1
            self._insert(item, _Place(rank, self._number))
        self.size += 1
        self.bytes += item.body_bytes
        self.tokens += item.prompt_tokens
        self._tell()

    def remove(self, item: Item) -> bool:
        """Take it out from wherever it stands. False when it does not wait."""
        place = self._places.pop(id(item), None)
        if place is not None:
            self._withdraw(item.key, place)
        elif item in self._returned:
            self._returned.remove(item)
        else:
            return False
        self.size -= 1
        self.bytes -= item.body_bytes
        self.tokens -= item.prompt_tokens
        self._tell()
        return True

    @property
    def keys(self) -> int:
        """How many keys wait."""
        return len(self._lines)

    def serve(self, item: Item) -> None:
        """Take it out because it is sent to an instance: its key has had its turn."""
        if id(item) in self._places:
            self._share.charge(item.key, item.tokens)
        self.remove(item)

    def first(self) -> Item | None:
        """The one whose turn it is."""
        if self._returned:
            return self._returned[-1]
        if not self._lines:
            return None
        key = self._share.turn(self._cost)
        return self._items[self._lines[key][0]]

    def next_ones(self, most: int) -> Iterator[Item]:
        """The first ones, about in the order in which they will go: each key's first, each key's second, …"""
        yield from reversed(self._returned)
        lines = [self._lines[key][:most] for key in self._share.order()]
        for depth in range(max(map(len, lines), default=0)):
            for line in lines:
                if depth < len(line):
                    yield self._items[line[depth]]

    def ahead(self, key: str, rank: float) -> int:
        """How many would go before one more of this key and rank, about."""
        return self._before(key, bisect_left(self._lines.get(key, ()), _Place(rank, self._number + 1)))

    def position(self, item: Item) -> int:
        """Where one that waits stands, about; 1: it goes next."""
        place = self._places.get(id(item))
        if place is None:
            return len(self._returned) - self._returned.index(item)
        return self._before(item.key, bisect_left(self._lines[item.key], place)) + 1

    def _before(self, key: str, own: int) -> int:
        """How many go before one of a key that has so many of its own before it."""
        others = (min(len(line), own + 1) for other, line in self._lines.items() if other != key)
        return len(self._returned) + own + sum(others)

    def rerank(self, rank: Callable[[Item], float]) -> None:
        """Put everything in a new order. The line is whole while it is asked for ranks."""
        placed = [(item, _Place(rank(item), place.number)) for place, item in self._items.items()]
        self._items.clear()
        for line in self._lines.values():
            line.clear()
        for item, place in placed:
            self._insert(item, place)

    def _tell(self) -> None:
        if self.entry is not None:
            self.entry.tell(len(self))
            self.entry.tell_bytes(self.bytes)

    def _insert(self, item: Item, place: _Place) -> None:
        self._items[place] = item
        self._places[id(item)] = place
        line = self._lines.get(item.key)
        if line is None:
            line = self._lines[item.key] = []
            self._share.join(item.key)
        if not line or line[-1] < place:
            line.append(place)
        else:
            insort(line, place)

    def _withdraw(self, key: str, place: _Place) -> None:
        del self._items[place]
        line = self._lines[key]
        del line[bisect_left(line, place)]
        if not line:
            del self._lines[key]
            self._share.leave(key)

    def _cost(self, key: str) -> float:
        return self._items[self._lines[key][0]].tokens
