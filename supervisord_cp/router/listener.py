"""The api listener: accepts clients, watches their deadlines, and stops without cutting anyone off."""

import asyncio
import socket
import time
from collections.abc import Callable, Sequence
from typing import Final

from supervisord_cp.config.schema import Listen, RouterConfig
from supervisord_cp.errors import UsageError
from supervisord_cp.router.acceptor import Acceptor
from supervisord_cp.router.connection import ClientConnection, Core
from supervisord_cp.router.http1.head import RequestHead, parse_request
from supervisord_cp.router.http1.recurring import RecurringHeads
from supervisord_cp.router.limits import Limits
from supervisord_cp.router.tls import Certificate, certificate_of

BACKLOG: Final = 4096
_MOST_TICK_S: Final = 1.0


class Listener:
    """One listening socket and its connections."""

    def __init__(self, core: Core, config: RouterConfig) -> None:
        self._core = core
        self._config = config
        self._limits = Limits(
            max_body=config.max_body,
            header_timeout_s=config.header_timeout_s,
            idle_timeout_s=config.idle_timeout_s,
            max_connections=config.max_connections,
        )
        self._tick_s = min(_MOST_TICK_S, config.header_timeout_s / 4, config.idle_timeout_s / 4)
        self._heads: RecurringHeads[RequestHead] = RecurringHeads(parse_request)
        self._connections: set[ClientConnection] = set()
        self._certificate: Certificate | None = None
        self._open: list[asyncio.Server | Acceptor] = []
        self._clock: Callable[[], float] = time.monotonic
        self._draining = False
        self.url = ""
        """Where clients connect, once it is bound."""
        self._sockets: list[socket.socket] = []
        self._timer: asyncio.TimerHandle | None = None

    @property
    def connections(self) -> int:
        """Open client connections."""
        return len(self._connections)

    def bind(self, bound: Sequence[socket.socket] = ()) -> None:
        """Listen, on sockets that do so already or on some of our own; nobody is accepted yet.

        Raises:
            UsageError: the address is taken or not ours, or the certificate cannot be used.
        """
        self._certificate = certificate_of(self._config)
        self._sockets = list(bound) or bind(self._config.api_listen)
        self.url = url_of(self._sockets[0], tls=self._certificate is not None)

    async def start(self, tell: Callable[[int], int] | None = None) -> None:
        """Accept. `tell`: other processes accept there, too; see `Acceptor`.

        Raises:
            UsageError: as `bind`, unless that was done before.
        """
        if not self._sockets:
            self.bind()
        tls = None if self._certificate is None else self._certificate.context
        loop = asyncio.get_running_loop()
        self._clock = loop.time
        for one in self._sockets:
            if tell is not None:
                self._open.append(Acceptor(one, self._connection, tls, self._connections.__len__, tell))
            else:
                server = loop.create_server(self._connection, sock=one, backlog=BACKLOG, ssl=tls)
                self._open.append(await server)
        self._tick()

    def refresh(self) -> None:
        """Read the certificate again if it has changed."""
        if self._certificate is not None:
            self._certificate.refresh()

    def drain(self, grace_s: float = 0.0) -> None:
        """Accept nobody any more, and close each connection once what it asked for is answered.

        Idle ones have `grace_s` to ask once more, and are then told that it was the last time.
        """
        self._draining = True
        for one in self._open:
            one.close()
        for connection in tuple(self._connections):
            connection.drain(grace_s)

    async def close(self) -> None:
        """End all connections."""
        if self._timer is not None:
            self._timer.cancel()
        for one in self._open:
            one.close()
        for connection in tuple(self._connections):
            connection.transport.abort()
        await asyncio.sleep(0)  # lets the transports tell their protocols

    def _connection(self) -> ClientConnection:
        made = ClientConnection(self._core, self._limits, self._heads, self._connections, self._clock)
        made.closing = self._draining  # its TLS handshake was on when we began to drain
        return made

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for connection in tuple(self._connections):
            connection.tick(now)
        self._timer = loop.call_later(self._tick_s, self._tick)


def bind(listen: Listen) -> list[socket.socket]:
    """Sockets that listen there, one for each address that the name stands for.

    Raises:
        UsageError: an address is taken or not ours.
    """
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(
            socket.getaddrinfo(listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        ):
            sockets.append(listening := socket.socket(family, kind, protocol))
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listening.bind(address)
            listening.listen(BACKLOG)
    except OSError as error:
        for one in sockets:
            one.close()
        text = f"router.api_listen: cannot listen on {listen}: {error.strerror or error}"
        raise UsageError(text) from error
    return sockets


def listens_at(sockets: Sequence[socket.socket], listen: Listen) -> bool:
    """Whether these sockets are all that listens there, as a configuration names it."""
    wanted = {
        (family, address[:2])
        for family, _, _, _, address in socket.getaddrinfo(
            listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    }
    found = {(one.family, one.getsockname()[:2]) for one in sockets}
    if listen.port == 0:  # any will do
        return {(family, host) for family, (host, _) in found} == {(f, host) for f, (host, _) in wanted}
    return found == wanted


def url_of(listening: socket.socket, *, tls: bool) -> str:
    """Where clients connect: the address that is really bound."""
    host, port = listening.getsockname()[:2]
    host = f"[{host}]" if ":" in host else host
    return f"{'https' if tls else 'http'}://{host}:{port}"
