"""Requests that were submitted, and what became of them."""

import asyncio
from collections import OrderedDict
from collections.abc import Iterator

from supervisord_cp.router.exchange import MemoryExchange
from supervisord_cp.sdk.errors import RequestFailed
from supervisord_cp.sdk.types import Completion, RequestMetadata, RequestStatus


class Submitted:
    """One request. Its outcome is set once."""

    __slots__ = ("_done", "body", "exchange", "metadata", "outcome")

    def __init__(self, metadata: RequestMetadata, body: bytes) -> None:
        self.metadata = metadata
        self.body = body
        """Empty once it is sent."""
        self.exchange: MemoryExchange | None = None
        """None until it is sent, and again when it is over."""
        self.outcome: Completion | RequestFailed | None = None
        self._done = asyncio.Event()

    @property
    def status(self) -> RequestStatus:
        """Its status; `RUNNING` stands for waiting, too, once it has been sent."""
        if isinstance(self.outcome, Completion):
            return RequestStatus.COMPLETED
        if self.outcome is not None:
            cancelled = self.outcome.reason == "cancelled"
            return RequestStatus.CANCELLED if cancelled else RequestStatus.FAILED
        return RequestStatus.PENDING if self.exchange is None else RequestStatus.RUNNING

    def settle(self, outcome: Completion | RequestFailed) -> None:
        """It is over."""
        self.outcome = outcome
        self.exchange = None
        self.body = b""
        self._done.set()

    async def over(self) -> None:
        """Wait until it is."""
        await self._done.wait()

    async def result(self) -> Completion:
        """Wait for the answer.

        Raises:
            RequestFailed: there is none.
        """
        await self.over()
        if isinstance(self.outcome, Completion):
            return self.outcome
        assert self.outcome is not None
        raise self.outcome


class Book:
    """All open requests by id, and the latest of those that are over."""

    def __init__(self, *, most_over: int) -> None:
        self._most_over = most_over
        self._open: dict[str, Submitted] = {}
        self._over: OrderedDict[str, Submitted] = OrderedDict()

    def __len__(self) -> int:
        """How many are open."""
        return len(self._open)

    def __iter__(self) -> Iterator[Submitted]:
        """Those that are open, in the order of submission."""
        return iter(tuple(self._open.values()))

    def add(self, request: Submitted) -> bool:
        """Take a new request. False when one of its id is open; one that is over is forgotten."""
        request_id = request.metadata.request_id
        if request_id in self._open:
            return False
        self._over.pop(request_id, None)
        self._open[request_id] = request
        return True

    def get(self, request_id: str) -> Submitted | None:
        """The request of an id, if it is known."""
        return self._open.get(request_id) or self._over.get(request_id)

    def open(self, request_id: str) -> Submitted | None:
        """The same, unless it is over."""
        return self._open.get(request_id)

    def metadata(self, request_id: str) -> RequestMetadata | None:
        """What was submitted under an id, unless it is over."""
        request = self._open.get(request_id)
        return None if request is None else request.metadata

    def settle(self, request: Submitted, outcome: Completion | RequestFailed) -> None:
        """A request is over."""
        request.settle(outcome)
        request_id = request.metadata.request_id
        del self._open[request_id]
        self._over[request_id] = request
        while len(self._over) > self._most_over:
            self._over.popitem(last=False)
