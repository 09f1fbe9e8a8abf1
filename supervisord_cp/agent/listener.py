"""The agent's own listener: /healthz for whoever restarts it, /metrics for Prometheus."""

from collections.abc import Awaitable, Callable

from aiohttp import web

from supervisord_cp.adapters.tokens import TokenFile
from supervisord_cp.config.schema import AgentConfig, Listen
from supervisord_cp.errors import UsageError


def tokens_of(config: AgentConfig) -> TokenFile | None:
    """The tokens that guard the listener; None where it needs none.

    Raises:
        UsageError: other machines reach it and no tokens file is configured.
    """
    if config.tokens_file is not None:
        return TokenFile(config.tokens_file)
    if config.listen is None or config.listen.loopback:
        return None
    raise UsageError(
        f"[agent] listen = {config.listen} is not loopback and tokens_file is not set: write lines such as "
        "`viewer: TOKEN` to a file of mode 0600 and name it in [agent] tokens_file, or listen on 127.0.0.1"
    )


class Listener:
    """Serves two pages. `/healthz` is open: it says nothing but that we run."""

    def __init__(self, listen: Listen, *, tokens: TokenFile | None, metrics: Callable[[], bytes]) -> None:
        self._listen = listen
        self._tokens = tokens
        self._metrics = metrics
        app = web.Application(client_max_size=1024)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/metrics", self._guarded(self._page))
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)

    async def start(self) -> None:
        """Listen.

        Raises:
            UsageError: the address cannot be had.
        """
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._listen.host, self._listen.port).start()
        except OSError as error:
            await self._runner.cleanup()
            raise UsageError(
                f"[agent] listen = {self._listen} cannot be bound: {error.strerror or error}; "
                'end what holds it, choose another address, or set it to ""'
            ) from error

    async def close(self) -> None:
        """Listen no more."""
        await self._runner.cleanup()

    def _guarded(
        self, handler: Callable[[web.Request], Awaitable[web.Response]]
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def guarded(request: web.Request) -> web.Response:
            if (
                self._tokens is not None
                and self._tokens.role_of(request.headers.get("Authorization")) is None
            ):
                return web.Response(
                    status=401, text="a token is needed\n", headers={"WWW-Authenticate": "Bearer"}
                )
            return await handler(request)

        return guarded

    async def _healthz(self, request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _page(self, request: web.Request) -> web.Response:
        return web.Response(
            body=self._metrics(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        )
