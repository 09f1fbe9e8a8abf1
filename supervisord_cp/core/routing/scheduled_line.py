"""A waiting line and the scheduler that orders it."""

from collections.abc import Iterator
from typing import Final, Generic

from supervisord_cp.core.routing.queue import Item, WaitingLine
from supervisord_cp.core.routing.scheduling import Scheduling
from supervisord_cp.core.routing.shadow import SchedulerShadow
from supervisord_cp.core.routing.sharing import Entry
from supervisord_cp.policy.context import QueueContext


class ScheduledLine(Generic[Item]):
    """Ranks come from the scheduler: when a request begins to wait, when the scheduler wants to be asked
    again, and for all at once when it is replaced, fails or recovers, so that one line has ranks of one
    kind."""

    def __init__(
        self, line: WaitingLine[Item], scheduling: Scheduling, shadow: SchedulerShadow[Item] | None = None
    ) -> None:
        self._line: Final = line
        self.scheduling = scheduling
        self._shadow = shadow
        self._failed = False
        self._fresh_until = 0.0

    def __len__(self) -> int:
        return self._line.size

    def __iter__(self) -> Iterator[Item]:
        """All that wait; the line may change meanwhile."""
        return iter(self._line)

    def __contains__(self, item: object) -> bool:
        return item in self._line

    @property
    def entry(self) -> Entry | None:
        """What waits in other processes; None: there are none."""
        return self._line.entry

    @property
    def keys(self) -> int:
        """How many keys wait."""
        return self._line.keys

    @property
    def bytes(self) -> int:
        """Of bodies."""
        return self._line.bytes

    @property
    def tokens(self) -> int:
        """Of prompts."""
        return self._line.tokens

    def use(
        self, scheduling: Scheduling, shadow: SchedulerShadow[Item] | None, context: QueueContext[None]
    ) -> None:
        """From now on these decide; what waits is put in the new order."""
        self.scheduling.retire()
        if self._shadow is not None:
            self._shadow.retire()
        self.scheduling, self._shadow = scheduling, shadow
        self._rerank(context)
        if shadow is not None:
            for item in self._line:
                shadow.add(item, item.waiting, context, front=False)

    def returned(self, item: Item) -> bool:
        """Whether it has been through the line before."""
        return self._line.returned(item)

    def fits(self, item: Item) -> bool:
        """Whether there is room for one more."""
        return self._line.fits(item)

    def ahead(self, item: Item, context: QueueContext[None]) -> int:
        """How many would go before it, about."""
        return self._line.ahead(item.key, self.scheduling.rank(item.waiting, context)) if self._line else 0

    def position(self, item: Item) -> int:
        """Where one that waits stands, about; 1: it goes next."""
        return self._line.position(item)

    def add(self, item: Item, context: QueueContext[None], *, front: bool = False) -> None:
        """Let it wait; `front` for one that has been through the line before."""
        rank = 0.0 if front else self.scheduling.rank(item.waiting, context)
        self._line.add(item, rank, front=front)
        if self._shadow is not None:
            self._shadow.add(item, item.waiting, context, front=front)

    def remove(self, item: Item) -> bool:
        """It waits no longer. False when it did not."""
        if self._shadow is not None:
            self._shadow.remove(item)
        return self._line.remove(item)

    def serve(self, item: Item, now: float) -> None:
        """It goes to an instance."""
        if self._shadow is not None:
            self._shadow.serve(item, now)
        self._line.serve(item)

    def first(self) -> Item | None:
        """The one whose turn it is."""
        return self._line.first()

    def next_ones(self, most: int) -> Iterator[Item]:
        """The first ones, about in the order in which they will go."""
        return self._line.next_ones(most)

    def refresh(self, context: QueueContext[None]) -> None:
        """Ask for ranks again when that is due."""
        scheduling = self.scheduling
        due = scheduling.refresh_s > 0 and context.now >= self._fresh_until
        if self._line and (due or scheduling.fails is not self._failed):
            self._rerank(context)

    def hopeless(self, context: QueueContext[None]) -> list[Item]:
        """Those that the scheduler would rather refuse."""
        if not self.scheduling.refuses:
            return []
        return [item for item in self._line if self.scheduling.hopeless(item.waiting, context)]

    def _rerank(self, context: QueueContext[None]) -> None:
        self._failed = self.scheduling.fails
        self._fresh_until = context.now + self.scheduling.refresh_s
        self._line.rerank(lambda item: self.scheduling.rank(item.waiting, context))
