"""A client's connection: one request after the other, streams event by event, and clients that leave."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from supervisord_cp.engines.fake.faults import CutConnection
from supervisord_cp.engines.fake.http1 import BadRequest, Request, RequestParser, chunk, phrase, response_head
from supervisord_cp.engines.fake.log import log_access

_BACKLOG_LIMIT: Final = 1 << 16
"""Bytes of further requests that are read while one is answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A whole response."""

    status: int = 200
    body: bytes = b""
    content_type: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventStream:
    """A chunked response: each item is one write and one chunk."""

    events: AsyncIterator[bytes]
    close: Callable[[], None]
    """Called once, however the stream ends."""
    content_type: str = "text/event-stream; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)


class Session(Protocol):
    """What takes a connection over after an upgrade."""

    greeting: bytes
    """Written first, the response's head included."""

    def receive(self, data: bytes) -> tuple[bytes, bool]:
        """Bytes to answer with, and whether to close after them."""
        ...


Answer = Reply | EventStream | Session
Handler = Callable[[Request], Awaitable[Answer]]


@dataclass(slots=True, kw_only=True)
class ServerState:
    """What the connections of a server share."""

    handler: Handler
    keep_alive_s: float
    access_log: bool
    quiet_paths: frozenset[str] = frozenset()
    """Paths without access log lines."""
    connections: set["Connection"] = field(default_factory=set)
    closing: bool = False
    """True once connections end with the request they are at."""


class Connection(asyncio.Protocol):
    """One connection."""

    def __init__(self, state: ServerState) -> None:
        self._state = state
        self._parser = RequestParser()
        self._task: asyncio.Task[None] | None = None
        self._session: Session | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._buffered = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        peer = transport.get_extra_info("peername")
        self._parser = RequestParser(f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else "")
        self._state.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._state.connections.discard(self)
        self._stop_timer()
        self._writable.set()
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        self._stop_timer()
        if self._session is not None:
            self._talk(data)
            return
        self._parser.feed(data)
        if self._task is None:
            self._advance()
        else:
            self._buffered += len(data)
            if self._buffered > _BACKLOG_LIMIT:
                self._transport.pause_reading()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def finish(self) -> None:
        """Close now if there is no request, else after it."""
        if self._task is None:
            self._transport.close()

    def abort(self) -> None:
        """Close now."""
        self._transport.abort()

    def _advance(self) -> None:
        try:
            request = self._parser.next()
        except BadRequest as error:
            body = str(error).encode()
            head = {
                "content-type": "text/plain; charset=utf-8",
                "content-length": str(len(body)),
                "connection": "close",
            }
            self._transport.write(response_head(400, head) + body)
            self._transport.close()
            return
        if request is None:
            if self._parser.take_continue():
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            return
        self._task = asyncio.get_running_loop().create_task(self._serve(request))
        self._task.add_done_callback(self._served)

    async def _serve(self, request: Request) -> None:
        try:
            answer = await self._state.handler(request)
            if isinstance(answer, Reply):
                self._write_reply(request, answer)
            elif isinstance(answer, EventStream):
                await self._write_stream(request, answer)
            else:
                self._session = answer
                self._transport.write(answer.greeting)
                self._talk(self._parser.take_rest())
                return
        except CutConnection:
            self._transport.abort()
            return
        if self._state.closing or not request.keep_alive:
            self._transport.close()

    def _served(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            self._transport.abort()
            raise error
        if self._transport.is_closing() or self._session is not None:
            return
        self._buffered = 0
        self._transport.resume_reading()
        if self._parser.idle:
            self._idle_timer = asyncio.get_running_loop().call_later(
                self._state.keep_alive_s, self._transport.close
            )
        else:
            self._advance()

    def _write_reply(self, request: Request, reply: Reply) -> None:
        headers = {"content-length": str(len(reply.body))}
        if reply.content_type:
            headers["content-type"] = reply.content_type
        headers |= reply.headers
        body = b"" if request.method == "HEAD" else reply.body
        self._transport.write(response_head(reply.status, self._with_connection(request, headers)) + body)
        self._log(request, reply.status)

    async def _write_stream(self, request: Request, stream: EventStream) -> None:
        headers = {"content-type": stream.content_type, **stream.headers}
        headers = self._with_connection(request, headers) | {"transfer-encoding": "chunked"}
        self._log(request, 200)
        try:
            self._transport.write(response_head(200, headers))
            async for event in stream.events:
                self._transport.write(chunk(event))
                await self._writable.wait()
            self._transport.write(chunk(b""))
        finally:
            stream.close()

    def _with_connection(self, request: Request, headers: Mapping[str, str]) -> dict[str, str]:
        return {**headers, **({} if request.keep_alive else {"connection": "close"})}

    def _talk(self, data: bytes) -> None:
        assert self._session is not None
        answer, close = self._session.receive(data)
        if answer:
            self._transport.write(answer)
        if close:
            self._transport.close()

    def _log(self, request: Request, status: int) -> None:
        if self._state.access_log and request.path not in self._state.quiet_paths:
            line = f'"{request.method} {request.target} HTTP/{request.version}" {status} {phrase(status)}'
            log_access(f"{request.peer} - {line}")

    def _stop_timer(self) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None
