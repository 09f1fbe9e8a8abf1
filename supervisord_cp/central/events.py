"""What happened: kept for a while, streamed to whoever listens, stored."""

import asyncio
import collections
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Final

import msgspec

from supervisord_cp.model.base import Value
from supervisord_cp.model.event import Event
from supervisord_cp.ports.store import StorePort

KEPT: Final = 2000
SUBSCRIBER_QUEUE: Final = 500


class Logged(Value, frozen=True, kw_only=True):
    """An event with its place in the log."""

    id: int
    at: float
    """Seconds since 1970 by central's clock, less the age it arrived with."""
    event: Event


class EventLog:
    """The newest events, with subscribers. A slow subscriber loses the oldest of what it has not read."""

    def __init__(self, store: StorePort, wall: Callable[[], float]) -> None:
        self._store = store
        self._wall = wall
        self._events: collections.deque[Logged] = collections.deque(maxlen=KEPT)
        self._subscribers: set[asyncio.Queue[Logged]] = set()
        self._next = 1
        for at, text in store.recent("event", KEPT):
            with contextlib.suppress(msgspec.DecodeError, msgspec.ValidationError):
                self._keep(Logged(id=self._next, at=at, event=msgspec.json.decode(text, type=Event)))

    def add(self, event: Event) -> None:
        """Log an event."""
        logged = Logged(id=self._next, at=self._wall() - event.age_ms / 1000, event=event)
        self._keep(logged)
        self._store.append("event", msgspec.json.encode(event).decode())
        for queue in self._subscribers:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(logged)

    def recent(self, limit: int = 100, subject: str = "") -> list[Logged]:
        """The newest events, oldest first; of one subject if given."""
        chosen = [e for e in self._events if not subject or e.event.subject == subject]
        return chosen[-limit:]

    async def follow(self) -> AsyncIterator[Logged]:
        """Events as they come, from now on."""
        queue: asyncio.Queue[Logged] = asyncio.Queue(SUBSCRIBER_QUEUE)
        self._subscribers.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._subscribers.discard(queue)

    def _keep(self, logged: Logged) -> None:
        self._events.append(logged)
        self._next = logged.id + 1
