"""The api listener: accepts clients, watches their deadlines, and stops without cutting anyone off."""

import asyncio
import ssl
from typing import Final

from supervisord_cp.config.schema import RouterConfig
from supervisord_cp.errors import UsageError
from supervisord_cp.router.connection import ClientConnection, Core, Limits

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
        )
        self._tick_s = min(_MOST_TICK_S, config.header_timeout_s / 4, config.idle_timeout_s / 4)
        self._connections: set[ClientConnection] = set()
        self._server: asyncio.Server | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def connections(self) -> int:
        """Open client connections."""
        return len(self._connections)

    @property
    def url(self) -> str:
        """Where clients connect: the address that is really bound."""
        assert self._server is not None
        host, port = self._server.sockets[0].getsockname()[:2]
        host = f"[{host}]" if ":" in host else host
        return f"{'https' if self._config.tls_cert else 'http'}://{host}:{port}"

    async def start(self) -> None:
        """Bind and accept.

        Raises:
            UsageError: the address is taken or not ours, or the certificate cannot be used.
        """
        loop = asyncio.get_running_loop()
        listen = self._config.api_listen
        try:
            self._server = await loop.create_server(
                lambda: ClientConnection(self._core, self._limits, self._connections, loop.time),
                listen.host,
                listen.port,
                backlog=BACKLOG,
                ssl=_tls(self._config),
            )
        except OSError as error:
            raise UsageError(
                f"router.api_listen: cannot listen on {listen}: {error.strerror or error}"
            ) from error
        self._tick()

    def drain(self) -> None:
        """Accept nobody any more, and close each connection once what it asked for is answered."""
        if self._server is not None:
            self._server.close()
        for connection in tuple(self._connections):
            connection.drain()

    async def close(self) -> None:
        """End all connections."""
        if self._timer is not None:
            self._timer.cancel()
        if self._server is not None:
            self._server.close()
        for connection in tuple(self._connections):
            connection.transport.abort()
        await asyncio.sleep(0)  # lets the transports tell their protocols

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for connection in tuple(self._connections):
            connection.tick(now)
        self._timer = loop.call_later(self._tick_s, self._tick)


def _tls(config: RouterConfig) -> ssl.SSLContext | None:
    if config.tls_cert is None and config.tls_key is None:
        return None
    if config.tls_cert is None or config.tls_key is None:
        raise UsageError("router.tls_cert and router.tls_key belong together")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(config.tls_cert, config.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"router.tls_cert: {config.tls_cert}: {error}") from error
    return context
