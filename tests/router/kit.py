"""Engines that do what a test says, a client on bare sockets, and a router without a central."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from random import Random

from supervisord_cp.config.schema import Listen, RouterConfig
from supervisord_cp.core.routing.leases import Account
from supervisord_cp.model.base import DeploymentName, Incarnation, InstanceId, NodeName
from supervisord_cp.model.fleet import FleetPart, FleetSnapshot, RoutedDeployment, RoutedInstance
from supervisord_cp.model.instance import InstanceState
from supervisord_cp.router.auth import ApiKeys
from supervisord_cp.router.dispatch import Dispatcher
from supervisord_cp.router.health import HealthChecks
from supervisord_cp.router.listener import Listener
from supervisord_cp.router.observers import Observer
from supervisord_cp.router.policies import RouterPolicies
from tests.waiting import PATIENCE_S, until

# --- engines


class Asked:
    """A request as an engine got it."""

    def __init__(self, head: bytes, body: bytes) -> None:
        self.raw = head
        self.body = body
        line, _, fields = head.partition(b"\r\n")
        self.method, self.target, self.version = line.decode().split(" ")
        self.headers: dict[str, str] = {}
        for field in fields.split(b"\r\n"):
            if field:
                name, _, value = field.decode("latin-1").partition(":")
                self.headers[name.lower()] = value.strip()


Behaviour = Callable[[Asked, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[bool]]
"""Answers one request; False ends the connection."""


class Engine:
    """An HTTP server that follows a script: the behaviours in order, the last one for ever."""

    def __init__(self, *script: Behaviour) -> None:
        self.script = list(script) or [says({"ok": True})]
        self.asked: list[Asked] = []
        self.connections = 0
        self.open = 0
        self.busy = 0
        self.most_busy = 0
        """Requests that it had at once."""
        self.health = 200
        self.port = 0
        self._server: asyncio.Server | None = None
        self._writers: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self, port: int = 0) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """As if it had been killed: nothing listens, all connections are reset."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for task, writer in tuple(self._writers.items()):
            writer.transport.abort()
            task.cancel()
        await until(lambda: not self.open, "connections of the engine end")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        task = asyncio.current_task()
        assert task is not None
        self._writers[task] = writer
        try:
            while (asked := await read_request(reader)) is not None:
                if asked.target.endswith("/health"):
                    writer.write(b"HTTP/1.1 %d X\r\ncontent-length: 0\r\n\r\n" % self.health)
                    continue
                self.asked.append(asked)
                behaviour = self.script.pop(0) if len(self.script) > 1 else self.script[0]
                self.busy += 1
                self.most_busy = max(self.most_busy, self.busy)
                try:
                    if not await behaviour(asked, reader, writer):
                        break
                finally:
                    self.busy -= 1
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            del self._writers[task]
            self.open -= 1
            writer.close()


async def read_request(reader: asyncio.StreamReader) -> Asked | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    asked = Asked(head[:-4], b"")
    length = int(asked.headers.get("content-length", "0"))
    asked.body = await reader.readexactly(length)
    assert "transfer-encoding" not in asked.headers, "the router frames by length"
    return asked


def says(value: object, status: int = 200, headers: str = "") -> Behaviour:
    """A JSON answer."""

    async def behave(asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        body = json.dumps(value).encode()
        head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{headers}"
        writer.write(head.encode() + b"content-length: %d\r\n\r\n" % len(body))
        if asked.method != "HEAD":
            writer.write(body)
        await writer.drain()
        return True

    return behave


def raw(answer: bytes, *, keep: bool = False) -> Behaviour:
    """Exactly these bytes."""

    async def behave(asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(answer)
        await writer.drain()
        return keep

    return behave


def event(text: str) -> bytes:
    data = b'data: {"choices":[{"delta":{"content":"%b"}}]}\n\n' % text.encode()
    return b"%x\r\n%b\r\n" % (len(data), data)


SSE_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
DONE = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


def streams(*texts: str, gate: asyncio.Event | None = None, usage: str = "") -> Behaviour:
    """Server-sent events; after the first one it waits for the gate."""

    async def behave(asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(SSE_HEAD)
        for index, text in enumerate(texts):
            writer.write(event(text))
            await writer.drain()
            if index == 0 and gate is not None and not await opens(gate, reader):
                return False
        if usage:
            data = f'data: {{"choices":[],"usage":{usage}}}\n\n'.encode()
            writer.write(b"%x\r\n%b\r\n" % (len(data), data))
        writer.write(DONE)
        await writer.drain()
        return True

    return behave


def waits(gate: asyncio.Event, then: Behaviour) -> Behaviour:
    """Nothing until the gate opens (or the client leaves)."""

    async def behave(asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        return await opens(gate, reader) and await then(asked, reader, writer)

    return behave


async def opens(gate: asyncio.Event, reader: asyncio.StreamReader) -> bool:
    """Wait for the gate. False: the client left first."""
    opened = asyncio.ensure_future(gate.wait())
    gone = asyncio.ensure_future(reader.read(1))
    try:
        await asyncio.wait([opened, gone], return_when=asyncio.FIRST_COMPLETED)
        return opened.done()
    finally:
        for task in (opened, gone):
            task.cancel()
        await asyncio.gather(opened, gone, return_exceptions=True)


def breaks(after: bytes = b"", *, reset: bool = True) -> Behaviour:
    """Writes something, then breaks the connection."""

    async def behave(asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        if after:
            writer.write(after)
            await writer.drain()
            await asyncio.sleep(0.02)
        if reset:
            writer.transport.abort()
        return False

    return behave


# --- clients


class Answer:
    """A response as a client got it."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes, chunks: list[bytes]) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.chunks = chunks

    @property
    def reason(self) -> str:
        return self.headers.get("x-supervisord-cp-reason", "")

    def json(self) -> object:
        return json.loads(self.body)


class Client:
    """One connection, byte by byte if need be."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def post(
        self, body: object, path: str = "/v1/chat/completions", headers: str = "", method: str = "POST"
    ) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\n{headers}"
        self.send(head.encode() + b"content-length: %d\r\n\r\n" % len(data) + data)

    async def head(self) -> tuple[int, dict[str, str]]:
        async with asyncio.timeout(PATIENCE_S):
            block = await self.reader.readuntil(b"\r\n\r\n")
        lines = block[:-4].decode("latin-1").split("\r\n")
        headers: dict[str, str] = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            assert name.lower() not in headers, f"{name} occurs twice"
            headers[name.lower()] = value.strip()
        return int(lines[0].split(" ")[1]), headers

    async def chunk(self) -> bytes:
        """One chunk of a chunked body; empty at its end."""
        async with asyncio.timeout(PATIENCE_S):
            size = int((await self.reader.readuntil(b"\r\n"))[:-2], 16)
            data = await self.reader.readexactly(size + 2)
        assert data.endswith(b"\r\n")
        return data[:-2]

    async def answer(self, *, method: str = "POST") -> Answer:
        status, headers = await self.head()
        body, chunks = b"", []
        async with asyncio.timeout(PATIENCE_S):
            if method == "HEAD" or status in (204, 304):
                pass
            elif headers.get("transfer-encoding") == "chunked":
                while data := await self.chunk():
                    chunks.append(data)
                body = b"".join(chunks)
            elif "content-length" in headers:
                body = await self.reader.readexactly(int(headers["content-length"]))
            else:
                body = await self.reader.read()
        return Answer(status, headers, body, chunks)

    async def rest(self) -> bytes:
        """Everything until the other side closes."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.reader.read()

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()

    def abort(self) -> None:
        self.writer.transport.abort()


# --- the router


def instance(
    engine: Engine | str,
    number: int = 0,
    deployment: str = "chat",
    *,
    life: str = "a",
    state: InstanceState = InstanceState.READY,
    draining: bool = False,
    max_concurrency: int = 0,
) -> RoutedInstance:
    return RoutedInstance(
        id=InstanceId(f"{deployment}-{number}"),
        deployment=DeploymentName(deployment),
        incarnation=Incarnation(f"{deployment}-{number}.{life}"),
        url=engine if isinstance(engine, str) else engine.url,
        state=state,
        draining=draining,
        max_concurrency=max_concurrency,
    )


def deployment(name: str = "chat", *names: str, wanted: int = 1, **more: object) -> RoutedDeployment:
    return RoutedDeployment(  # type: ignore[arg-type]
        name=DeploymentName(name), names=names or (name,), wanted=wanted, **more
    )


class Rig:
    """A dispatcher with its listener, and what the outside would do for it."""

    def __init__(
        self,
        config: RouterConfig,
        keys: Path | None = None,
        policies: RouterPolicies | None = None,
        observers: Sequence[Observer] = (),
    ) -> None:
        self.config = config
        self.ejected_log: list[str] = []
        self.ejected_by: list[str] = []
        self.released_log: list[str] = []
        self.misses = 0
        self.restored_log: list[str] = []
        loop = asyncio.get_running_loop()
        self.dispatcher = Dispatcher(
            config,
            keys=ApiKeys(keys),
            clock=time.monotonic,
            call_later=lambda delay, call: loop.call_later(delay, call).cancel,
            created=1700000000,
            rng=Random(7),
            watcher=self,
            binder=None if policies is None else policies.binder,
            observers=observers,
        )
        if policies is not None:
            policies.attach(self.dispatcher)
        self.listener = Listener(self.dispatcher, config)
        self.health = HealthChecks(self.dispatcher)
        self.version = 0
        self.engines: list[Engine] = []
        self.clients: list[Client] = []

    def ejected(self, account: Account, why: str, request: str) -> None:
        self.ejected_log.append(account.incarnation)
        self.ejected_by.append(request)

    def restored(self, account: Account) -> None:
        self.restored_log.append(account.incarnation)

    def doubted(self, account: Account, told: Callable[[str], None]) -> None:
        self.health.ask_about(account, told)

    def missed(self) -> None:
        self.misses += 1

    def released(self, account: Account) -> None:
        self.released_log.append(account.incarnation)

    @property
    def port(self) -> int:
        return int(self.listener.url.rpartition(":")[2])

    async def engine(self, *script: Behaviour) -> Engine:
        engine = Engine(*script)
        await engine.start()
        self.engines.append(engine)
        return engine

    def serve(
        self, *instances: RoutedInstance, deployments: tuple[RoutedDeployment, ...] | None = None
    ) -> None:
        """Publish a snapshot."""
        self.version += 1
        names = dict.fromkeys(i.deployment for i in instances)
        made = deployments if deployments is not None else tuple(deployment(name) for name in names)
        parts = (FleetPart(node=NodeName("n"), instances=instances),)
        self.dispatcher.apply(FleetSnapshot(epoch="e", version=self.version, deployments=made, parts=parts))

    async def client(self) -> Client:
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port))
        self.clients.append(client)
        return client

    async def ask(self, body: object, **more: str) -> Answer:
        """One request on a connection of its own."""
        client = await self.client()
        client.post(body, **more)
        answer = await client.answer(method=more.get("method", "POST"))
        await client.close()
        return answer

    @property
    def inflight(self) -> int:
        return sum(account.inflight for account in self.dispatcher.fleet.ledger.accounts())

    def lane(self, name: str = "chat") -> object:
        return self.dispatcher.fleet.lanes[DeploymentName(name)]


@contextlib.asynccontextmanager
async def rig(
    *,
    keys: Path | None = None,
    policies: RouterPolicies | None = None,
    observers: Sequence[Observer] = (),
    **settings: object,
) -> AsyncIterator[Rig]:
    """A running router; at the end no lease, flow or task may be left."""
    config = RouterConfig(api_listen=Listen(host="127.0.0.1", port=0), **settings)  # type: ignore[arg-type]
    made = Rig(config, keys, policies, observers)
    before = asyncio.all_tasks()
    await made.listener.start()
    ticking = asyncio.create_task(_tick(made))
    try:
        yield made
        for client in made.clients:
            await client.close()
        await until(lambda: made.inflight == 0, "leases return to zero")
        await until(lambda: not made.dispatcher.busy, "no request is open")
    finally:
        ticking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await ticking
        for client in made.clients:
            client.abort()
        for engine in made.engines:
            await engine.stop()
        await made.health.close()
        made.dispatcher.cut_all()
        await made.dispatcher.pools.close()
        await made.listener.close()
        await until(lambda: asyncio.all_tasks() <= before | {asyncio.current_task()}, "no task is left")


async def _tick(made: Rig) -> None:
    while True:
        await asyncio.sleep(0.02)
        made.dispatcher.tick()
        made.health.tick(time.monotonic())
