"""A central that does what a test says."""

import asyncio
import contextlib

from aiohttp import WSMsgType, web

from supervisord_cp.model.fleet import FleetSnapshot
from supervisord_cp.model.router import RouterReport
from supervisord_cp.wire import messages as m
from supervisord_cp.wire.codec import decode, encode
from tests.waiting import until


class Central:
    """Greets routers, sends what it is told to, keeps what they say."""

    def __init__(self, epoch: str = "e1") -> None:
        self.epoch = epoch
        self.port = 0
        self.on_connect: list[m.Message] = []
        self.heard: list[m.Message] = []
        self.tokens: list[str] = []
        self.followers = 0
        """Routers that are connected."""
        self._socket: web.WebSocketResponse | None = None
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def reports(self) -> list[RouterReport]:
        return [message.report for message in self.heard if isinstance(message, m.RouterStatus)]

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get(m.ROUTER_PATH, self._serve)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(ConnectionError):
                await self._socket.close()
        if self._runner is not None:
            await self._runner.cleanup()

    async def send(self, message: m.Message) -> None:
        await self.send_text(encode(message))

    async def send_text(self, text: str) -> None:
        await until(lambda: self._socket is not None, "the router has dialled")
        assert self._socket is not None
        await self._socket.send_str(text)

    async def applied(self, snapshot: FleetSnapshot) -> RouterReport:
        """Wait until the router says that it has applied a snapshot."""
        await until(
            lambda: any((r.epoch, r.version) == (snapshot.epoch, snapshot.version) for r in self.reports),
            f"version {snapshot.version} is applied",
        )
        return next(r for r in reversed(self.reports) if r.version == snapshot.version)

    async def _serve(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.followers += 1
        try:
            return await self._follow(request, socket)
        finally:
            self.followers -= 1

    async def _follow(self, request: web.Request, socket: web.WebSocketResponse) -> web.WebSocketResponse:
        self.tokens.append(request.headers.get("authorization", ""))
        hello = decode((await socket.receive()).data)
        assert isinstance(hello, m.Hello)
        self.heard.append(hello)
        await socket.send_str(encode(m.Welcome(epoch=self.epoch)))
        for message in self.on_connect:
            await socket.send_str(encode(message))
        self._socket = socket
        try:
            async for frame in socket:
                if frame.type is WSMsgType.TEXT:
                    self.heard.append(decode(frame.data))
        except asyncio.CancelledError:
            pass
        finally:
            if self._socket is socket:
                self._socket = None
        return socket
