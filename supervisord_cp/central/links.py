"""The websockets that agents and routers dial: hello, welcome, and what each side says afterwards."""

import asyncio
import contextlib
import itertools
import logging
from collections.abc import AsyncIterator, Callable
from typing import Final

from aiohttp import WSMsgType, web

from supervisord_cp.central.controller import Controller
from supervisord_cp.model.base import NodeName
from supervisord_cp.model.launch import DesiredNode
from supervisord_cp.version import __version__
from supervisord_cp.wire import messages as m
from supervisord_cp.wire.codec import MAX_MESSAGE_BYTES, BadMessage, decode, encode

log = logging.getLogger(__name__)

HELLO_S: Final = 10.0
QUEUE_LIMIT: Final = 1000
HEARTBEAT_S: Final = 10.0
CALL_QUEUE: Final = 256
TOKENS_EVERY_S: Final = 1.0

Params = dict[str, str | int | float | bool | None]
RoleOf = Callable[[str], str | None]


class CallFailed(Exception):
    """The other side could not answer; the text is its own."""


class Peer:
    """One connected agent or router: an outbox and the calls that wait for answers."""

    def __init__(self, socket: web.WebSocketResponse, hello: m.Hello, proof: str) -> None:
        """`proof` is the `Authorization` header that it came with."""
        self.hello = hello
        self.proof = proof
        self.socket = socket
        self._outbox: asyncio.Queue[m.Message] = asyncio.Queue(QUEUE_LIMIT)
        self._calls: dict[int, asyncio.Queue[m.CallChunk]] = {}
        self._ids = itertools.count(1)

    def send(self, message: m.Message) -> bool:
        """Queue a message; False when the other side does not read (it will be given everything anew)."""
        try:
            self._outbox.put_nowait(message)
        except asyncio.QueueFull:
            return False
        return True

    async def pump(self) -> None:
        """Write what is queued, until cancelled."""
        while True:
            await self.socket.send_str(encode(await self._outbox.get()))

    async def call(self, method: str, params: Params) -> AsyncIterator[str]:
        """Ask; yields the pieces of the answer.

        Raises:
            CallFailed: the other side says so, or its connection ends.
        """
        number = next(self._ids)
        answers: asyncio.Queue[m.CallChunk] = asyncio.Queue()
        self._calls[number] = answers
        done = False
        try:
            self.send(m.Call(id=number, method=method, params=params))
            while True:
                chunk = await answers.get()
                if chunk.data:
                    yield chunk.data
                if chunk.error:
                    done = True
                    raise CallFailed(chunk.error)
                if chunk.done:
                    done = True
                    return
        finally:
            del self._calls[number]
            if not done:
                self.send(m.CallCancel(id=number))

    def answered(self, chunk: m.CallChunk) -> None:
        """Hand a piece to the call that waits for it."""
        queue = self._calls.get(chunk.id)
        if queue is None:
            return
        if queue.qsize() >= CALL_QUEUE:
            self.send(m.CallCancel(id=chunk.id))
            chunk = m.CallChunk(id=chunk.id, done=True, error="the reader is too slow")
        queue.put_nowait(chunk)

    def end_calls(self) -> None:
        """Tell every waiting call that no answer will come."""
        for number, queue in self._calls.items():
            queue.put_nowait(m.CallChunk(id=number, done=True, error="the connection ended"))


class Links:
    """All connected agents and routers."""

    def __init__(self, controller: Controller, role_of: RoleOf | None = None) -> None:
        """`role_of`: of an `Authorization` header; None where no tokens are asked for."""
        self._controller = controller
        self._role_of = role_of
        self.agents: dict[NodeName, Peer] = {}
        self.routers: dict[str, Peer] = {}
        controller.send_desired = self._send_desired

    async def agent(self, request: web.Request) -> web.WebSocketResponse:
        """`GET /api/v1/connect/agent`."""
        socket, hello = await self._greet(request)
        if hello is None or hello.inventory is None:
            return await self._refuse(socket, "the first message must be a hello with an inventory")
        node = NodeName(hello.name)
        other = self.agents.get(node)
        if other is not None and other.hello.session != hello.session:
            view = self._controller.nodes.get(node)
            if view is not None and not view.silent(self._controller.clock.now()):
                text = f"an agent named {node} is connected already; give this one another [agent] name"
                return await self._refuse(socket, text)
        if other is not None:
            await other.socket.close()
        peer = Peer(socket, hello, request.headers.get("Authorization", ""))
        self.agents[node] = peer
        peer.send(self._welcome())
        self._controller.agent_connected(hello.inventory)
        try:
            await self._serve(peer, lambda message: self._from_agent(node, peer, message))
        finally:  # a connection that breaks cancels this handler
            if self.agents.get(node) is peer:
                del self.agents[node]
                self._controller.agent_gone(node)
        return socket

    async def router(self, request: web.Request) -> web.WebSocketResponse:
        """`GET /api/v1/connect/router`."""
        socket, hello = await self._greet(request)
        if hello is None:
            return await self._refuse(socket, "the first message must be a hello")
        other = self.routers.get(hello.name)
        if other is not None:
            await other.socket.close()
        peer = Peer(socket, hello, request.headers.get("Authorization", ""))
        self.routers[hello.name] = peer
        peer.send(self._welcome())
        self._controller.routers.connected(hello.name, hello.version, peer.send)
        try:
            await self._serve(peer, lambda message: self._from_router(hello.name, peer, message))
        finally:
            if self.routers.get(hello.name) is peer:
                del self.routers[hello.name]
                self._controller.routers.gone(hello.name)
        return socket

    async def watch_tokens(self) -> None:
        """End connections whose token is not known any more, within a second or two; until cancelled."""
        while True:
            await asyncio.sleep(TOKENS_EVERY_S)
            if (role_of := self._role_of) is None:
                continue
            peers = [*self.agents.values(), *self.routers.values()]
            unknown = [peer for peer in peers if role_of(peer.proof) != "agent"]
            for peer in unknown:
                log.warning("the connection of %s ends: its token is not known any more", peer.hello.name)
            await asyncio.gather(*(peer.socket.close() for peer in unknown), return_exceptions=True)

    async def close(self) -> None:
        """Close every connection; the others dial again."""
        for peer in [*self.agents.values(), *self.routers.values()]:
            with contextlib.suppress(ConnectionError, TimeoutError):
                await peer.socket.close()

    def _welcome(self) -> m.Welcome:
        return m.Welcome(epoch=self._controller.epoch, version=__version__)

    def _send_desired(self, node: NodeName, desired: DesiredNode) -> None:
        if (peer := self.agents.get(node)) is not None:
            peer.send(m.Desired(desired=desired))

    async def _greet(self, request: web.Request) -> tuple[web.WebSocketResponse, m.Hello | None]:
        socket = web.WebSocketResponse(
            heartbeat=HEARTBEAT_S, max_msg_size=MAX_MESSAGE_BYTES, compress=False, timeout=2.0
        )
        await socket.prepare(request)
        try:
            async with asyncio.timeout(HELLO_S):
                frame = await socket.receive()
            first = decode(frame.data) if frame.type is WSMsgType.TEXT else None
        except (TimeoutError, BadMessage):
            first = None
        return socket, first if isinstance(first, m.Hello) else None

    async def _refuse(self, socket: web.WebSocketResponse, message: str) -> web.WebSocketResponse:
        log.warning("connection refused: %s", message)
        with contextlib.suppress(ConnectionError):
            await socket.send_str(encode(m.Refused(message=message)))
            await socket.close()
        return socket

    async def _serve(self, peer: Peer, handle: Callable[[m.Message], None]) -> None:
        pump = asyncio.create_task(peer.pump())
        try:
            async for frame in peer.socket:
                if frame.type is not WSMsgType.TEXT:
                    continue
                try:
                    handle(decode(frame.data))
                except BadMessage as error:
                    log.warning("message from %s skipped: %s", peer.hello.name, error)
        finally:
            pump.cancel()
            peer.end_calls()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await pump

    def _from_agent(self, node: NodeName, peer: Peer, message: m.Message) -> None:
        controller = self._controller
        if self.agents.get(node) is not peer:
            return
        match message:
            case m.Report(report=report) if report.node == node:
                if not controller.report(report):
                    peer.send(m.Resync())
            case m.EngineKeys(keys=keys):
                controller.memory.know_keys(node, keys)
                controller.routers.update_keys(node, keys)
            case m.Events(events=events):
                for event in events:
                    controller.events.add(event)
                controller.wake()
            case m.CallChunk():
                peer.answered(message)
            case _:
                log.warning("unexpected %s from agent %s", type(message).__name__, node)

    def _from_router(self, router: str, peer: Peer, message: m.Message) -> None:
        controller = self._controller
        match message:
            case m.RouterStatus(report=report) if report.router == router:
                controller.router_reported(report)
            case m.Resync():
                controller.routers.resync(router)
            case m.Events(events=events):
                for event in events:
                    controller.events.add(event)
            case m.CallChunk():
                peer.answered(message)
            case _:
                log.warning("unexpected %s from router %s", type(message).__name__, router)
