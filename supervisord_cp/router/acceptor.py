"""Taking connections off a socket that other processes take from, too, so that all have about as many.

The kernel gives a connection to whoever asks first, which is mostly the same process; with streams that stay
open for minutes, one process would have them all.
"""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Final

log = logging.getLogger(__name__)

PATIENCE_S: Final = 0.002
"""How long a process that has more connections than another leaves a new one to the others."""
LENIENCY: Final = 8
"""A part in so many of our own connections is no difference."""
AGAIN_S: Final = 1.0
"""After an error such as too many open files."""


class Acceptor:
    """One listening socket, on the running event loop."""

    def __init__(
        self,
        listening: socket.socket,
        make: Callable[[], asyncio.Protocol],
        tls: ssl.SSLContext | None,
        count: Callable[[], int],
        tell: Callable[[int], int],
    ) -> None:
        """`count`: our connections; `tell` tells them, and how many more they are than the process with the
        fewest has."""
        self._listening = listening
        self._listening.setblocking(False)
        self._make = make
        self._tls = tls
        self._count = count
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._begun: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._left_at = 0.0
        tell(count())  # to one that has said nothing, nothing is left
        self._loop.add_reader(listening, self._ready)

    def close(self) -> None:
        """Accept nobody any more; those who have connected are let in. Once more changes nothing."""
        if self._listening.fileno() < 0:
            return
        self._loop.remove_reader(self._listening)
        if self._timer is not None:
            self._timer.cancel()
        self._listening.close()

    def _ready(self) -> None:
        now = self._loop.time()
        ours = self._count() + len(self._begun)
        if self._tell(ours) > ours // LENIENCY and now - self._left_at > 2 * PATIENCE_S:
            self._left_at = now
            self._pause(PATIENCE_S)
            return
        try:
            connection, _ = self._listening.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            log.error("no connection can be accepted: %s", error)
            self._pause(AGAIN_S)
            return
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = self._loop.create_task(self._begin(connection))
        self._begun.add(task)
        task.add_done_callback(self._begun.discard)

    async def _begin(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):  # a TLS handshake that fails, or a client that is gone again
            await self._loop.connect_accepted_socket(self._make, connection, ssl=self._tls)

    def _pause(self, seconds: float) -> None:
        self._loop.remove_reader(self._listening)
        self._timer = self._loop.call_later(seconds, self._loop.add_reader, self._listening, self._ready)
