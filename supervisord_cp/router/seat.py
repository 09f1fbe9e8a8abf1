"""What a process that serves is given by the one that holds the address, and how the two talk."""

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable
from typing import Final

from supervisord_cp.core.routing.rate import RateLimiter
from supervisord_cp.core.routing.sharing import Entries
from supervisord_cp.model.base import Value
from supervisord_cp.router.board import Board, Column
from supervisord_cp.router.shared_rate import SharedRate
from supervisord_cp.router.turns import Turns

READY: Final = "ready"
"""Said upwards: it serves."""
RESTART: Final = "restart"
"""Said upwards: an operator wants new processes."""
LEAVE: Final = "leave"
"""Said downwards: others serve now, finish what you have. So does the end of the connection."""
TOLD: Final = "told "
"""Said downwards: what became of the restart; nothing else in the line when it went well."""


class Shared(Value, frozen=True, kw_only=True):
    """What a process has in common with those beside it."""

    entries: Entries
    rate: RateLimiter | SharedRate
    turns: Turns


class SeatPlan(Value, frozen=True, kw_only=True):
    """Descriptors that a process inherits, and its number."""

    number: int
    """From 1; no other living process of this address has it."""
    address: str
    """The part of the mailboxes' names that processes of an address share."""
    holder: int
    """The pid of the process that holds the address."""
    listeners: tuple[int, ...]
    config: int
    """The text of the configuration, as it was when it was accepted."""
    board: int
    mailbox: int
    """A datagram socket with the process's number in its name: others wake it by it."""
    channel: int


class Seat:
    """The place of one process among those that serve an address."""

    def __init__(self, plan: SeatPlan) -> None:
        self.number = plan.number
        self.holder = plan.holder
        self.sockets = tuple(socket.socket(fileno=one) for one in plan.listeners)
        self._board = Board(plan.board)
        self.column = Column(self._board, plan.number - 1)
        self.mailbox = socket.socket(fileno=plan.mailbox)
        self.mailbox.setblocking(False)
        self._address = plan.address
        self._channel = socket.socket(fileno=plan.channel)
        self._channel.setblocking(False)
        self._heard = b""
        self._answer: asyncio.Future[str] | None = None

    def shared(self, rate_limit_rps: float) -> Shared:
        """What requests are counted in."""
        limited = rate_limit_rps > 0
        return Shared(
            entries=self.column,
            rate=SharedRate(self._board, rate_limit_rps) if limited else RateLimiter(0.0),
            turns=Turns(self.wake),
        )

    def wake(self, number: int) -> None:
        """Have another process look at its lines."""
        with contextlib.suppress(OSError):  # it is gone, or has been told often enough
            self.mailbox.sendto(b"w", mailbox_name(self._address, number))

    def open(self, *, leave: Callable[[], None], wake: Callable[[], None]) -> None:
        """Listen to the one that holds the address, and to those beside us. On the running event loop."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._channel, self._read, leave)
        loop.add_reader(self.mailbox, self._woken, wake)

    def close(self) -> None:
        """Listen no more."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._channel)
        loop.remove_reader(self.mailbox)

    def tick(self) -> None:
        """To be called some times a second: tell that we are alive, and see who else is."""
        self.column.beat(time.monotonic_ns())
        self.column.others.look()

    def ready(self) -> None:
        """Say that we serve."""
        self._channel.send(f"{READY}\n".encode())

    async def restart(self) -> str:
        """Ask for new processes in our place. Returns why there are none, "" when there are."""
        if self._answer is None:
            self._answer = asyncio.get_running_loop().create_future()
            self._channel.send(f"{RESTART}\n".encode())
        return await asyncio.shield(self._answer)

    def _read(self, leave: Callable[[], None]) -> None:
        try:
            data = self._channel.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:  # who held the address is gone; the next one will find the address free
            asyncio.get_running_loop().remove_reader(self._channel)
            leave()
            return
        *lines, self._heard = (self._heard + data).split(b"\n")
        for line in lines:
            word = line.decode()
            if word == LEAVE:
                leave()
            elif word.startswith(TOLD) and self._answer is not None:
                self._answer.set_result(word.removeprefix(TOLD))
                self._answer = None

    def _woken(self, wake: Callable[[], None]) -> None:
        try:
            while self.mailbox.recv(1):
                pass
        except BlockingIOError:
            pass
        wake()


def mailbox_name(address: str, number: int) -> bytes:
    """The abstract name of a process's mailbox: bound, it tells that the number is taken, and the kernel
    frees it when the process ends, however it ends."""
    return f"\0supervisord-cp/router/{address}/{number}".encode()
