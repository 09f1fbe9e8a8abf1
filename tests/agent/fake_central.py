"""A central that records what agents say and sends what a test wants."""

import asyncio
import itertools
from collections.abc import Callable

from aiohttp import WSMsgType, web

from supervisord_cp.model.event import Event
from supervisord_cp.model.instance import InstanceState, InstanceStatus
from supervisord_cp.model.launch import DesiredInstance, DesiredNode, Generation
from supervisord_cp.model.node import NodeReport
from supervisord_cp.wire import messages as m
from supervisord_cp.wire.codec import decode, encode
from tests.waiting import PATIENCE_S, until


class FakeCentral:
    """One websocket server. `port` stays the same over `stop` and `start`."""

    def __init__(self) -> None:
        self.port = 0
        self.epoch = "e1"
        self.counter = 0
        self.hellos: list[m.Hello] = []
        self.tokens: list[str] = []
        self.reports: list[NodeReport] = []
        """Of the present connection."""
        self.events: list[Event] = []
        self.keys: dict[str, str] = {}
        self.instances: dict[str, InstanceStatus] = {}
        """Folded from the reports of the present connection."""
        self._socket: web.WebSocketResponse | None = None
        self._runner: web.AppRunner | None = None
        self._calls: dict[int, asyncio.Queue[m.CallChunk]] = {}
        self._ids = itertools.count(1)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def connected(self) -> bool:
        return self._socket is not None

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get(m.AGENT_PATH, self._agent)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]

    async def stop(self) -> None:
        if self._socket is not None:
            await self._socket.close()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        self.reports, self.instances = [], {}

    async def desire(
        self, *instances: DesiredInstance, removals: tuple[str, ...] = (), acknowledged: int | None = None
    ) -> Generation:
        """Publish a desired state."""
        assert self._socket is not None
        self.counter += 1
        generation = Generation(epoch=self.epoch, counter=self.counter)
        inventory = next((report.sequence for report in self.reports if report.full), 0)
        desired = DesiredNode(
            node=self.hellos[-1].name,
            generation=generation,
            acknowledged=inventory if acknowledged is None else acknowledged,
            instances=instances,
            removals=removals,  # type: ignore[arg-type]
        )
        await self.send(m.Desired(desired=desired))
        return generation

    async def send(self, message: m.Message) -> None:
        assert self._socket is not None
        await self._socket.send_str(encode(message))

    async def taken(self, generation: Generation) -> None:
        """Wait until the agent has taken a desired state over."""
        await until(lambda: self.reports and self.reports[-1].generation == generation, what="taken over")

    async def reached(self, state: InstanceState, *names: str, patience_s: float = PATIENCE_S) -> None:
        """Wait until instances are in a state."""

        def there() -> bool:
            return all(name in self.instances and self.instances[name].state is state for name in names)

        await until(there, f"{names} {state}", patience_s, lambda: self.instances)

    async def sees(
        self, condition: Callable[["FakeCentral"], object], patience_s: float = PATIENCE_S
    ) -> None:
        await until(lambda: condition(self), condition, patience_s, lambda: self.instances)

    async def call(self, method: str, **params: str | int | bool) -> asyncio.Queue[m.CallChunk]:
        """Ask; pieces of the answer come in the queue. Its number is in the attribute `number`."""
        number = next(self._ids)
        queue = self._calls[number] = asyncio.Queue()
        await self.send(m.Call(id=number, method=method, params=dict(params)))
        return queue

    async def answer(self, method: str, **params: str | int | bool) -> str:
        """A whole answer."""
        queue = await self.call(method, **params)
        text = ""
        while True:
            async with asyncio.timeout(PATIENCE_S):
                chunk = await queue.get()
            text += chunk.data
            if chunk.done:
                return text + (f"[{chunk.error}]" if chunk.error else "")

    async def _agent(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.tokens.append(request.headers.get("Authorization", ""))
        self.reports, self.instances = [], {}
        async for frame in socket:
            if frame.type is not WSMsgType.TEXT:
                continue
            message = decode(frame.data)
            if isinstance(message, m.Hello):
                self.hellos.append(message)
                await socket.send_str(encode(m.Welcome(epoch=self.epoch)))
                self._socket = socket
            else:
                self._take(message)
        if self._socket is socket:
            self._socket = None
        return socket

    def _take(self, message: m.Message) -> None:
        match message:
            case m.Report(report=report):
                assert report.sequence == len(self.reports) + 1, "reports are numbered without gaps"
                self.reports.append(report)
                if report.full:
                    self.instances.clear()
                self.instances |= {one.id: one for one in report.instances}
                for gone in report.gone:
                    self.instances.pop(gone, None)
            case m.Events(events=events):
                self.events.extend(events)
            case m.EngineKeys(keys=keys):
                self.keys = dict(keys)
            case m.CallChunk():
                self._calls[message.id].put_nowait(message)
