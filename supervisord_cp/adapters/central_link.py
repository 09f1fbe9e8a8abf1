"""The websocket that an agent or a router dials to central: connect, say hello, keep talking, dial again."""

import asyncio
import contextlib
import itertools
import logging
import random
from collections.abc import AsyncIterator, Callable
from typing import Final

import aiohttp

from supervisord_cp.errors import SupervisordError
from supervisord_cp.wire import messages as m
from supervisord_cp.wire.codec import MAX_MESSAGE_BYTES, BadMessage, decode, encode

log = logging.getLogger(__name__)

FIRST_DELAY_S: Final = 0.1
LONGEST_DELAY_S: Final = 2.0
STEADY_S: Final = 5.0
"""A connection that stood for so long was a good one: after it the delays begin anew."""
QUEUE_LIMIT: Final = 1000
PIECES_QUEUED: Final = 8
"""Pieces of answers that wait to be sent; who makes more waits too."""

CallHandler = Callable[[str, dict[str, str | int | float | bool | None]], AsyncIterator[str]]


class Unusable(SupervisordError):
    """Something that central sent made its handler fail."""


class Backoff:
    """How long to wait before the next dial: twice as long each time, until a connection stands."""

    def __init__(self) -> None:
        self._next = FIRST_DELAY_S

    def after(self, stood_s: float) -> float:
        """Seconds, after a connection that stood for so long (0: none was made)."""
        if stood_s >= STEADY_S:
            self._next = FIRST_DELAY_S
        delay, self._next = self._next, min(LONGEST_DELAY_S, self._next * 2)
        return delay


class _Outbox:
    """What waits to be sent on one connection. A long answer to a call holds up no report."""

    def __init__(self) -> None:
        self._queue: asyncio.PriorityQueue[tuple[int, int, m.Message]] = asyncio.PriorityQueue(QUEUE_LIMIT)
        self._numbers = itertools.count()
        self._room = asyncio.Semaphore(PIECES_QUEUED)

    def put(self, message: m.Message) -> bool:
        """Before all pieces of answers. False: there is no room."""
        try:
            self._queue.put_nowait((0, next(self._numbers), message))
        except asyncio.QueueFull:
            return False
        return True

    async def put_piece(self, piece: m.CallChunk) -> None:
        """In the order of the calls; waits for room."""
        await self._room.acquire()
        await self._queue.put((1, next(self._numbers), piece))

    async def get(self) -> m.Message:
        """The next message; `sent` must follow."""
        return (await self._queue.get())[2]

    def sent(self, message: m.Message) -> None:
        """It is on its way."""
        if isinstance(message, m.CallChunk):
            self._room.release()
        self._queue.task_done()

    async def empty(self) -> None:
        """Wait until everything is on its way."""
        await self._queue.join()


class CentralLink:
    """One connection to central, made again whenever it breaks.

    Everything runs on the loop that awaits `run()`. Callbacks are plain functions and must not block.
    `on_message` gets everything but calls, which go to `on_call`: an async generator of text pieces.
    `on_unreadable` hears of what was skipped.
    """

    def __init__(
        self,
        *,
        url: str,
        path: str,
        token: Callable[[], str],
        hello: Callable[[], m.Hello],
        on_message: Callable[[m.Message], None],
        on_up: Callable[[m.Welcome], None] = lambda welcome: None,
        on_down: Callable[[str], None] = lambda why: None,
        on_call: CallHandler | None = None,
        on_unreadable: Callable[[BadMessage], None] = lambda error: None,
    ) -> None:
        self._url = url.rstrip("/") + path
        self._token = token
        self._hello = hello
        self._on_message = on_message
        self._on_up = on_up
        self._on_down = on_down
        self._on_call = on_call
        self._on_unreadable = on_unreadable
        self._outbox: _Outbox | None = None
        self._calls: dict[int, asyncio.Task[None]] = {}
        self._said = ""

    @property
    def connected(self) -> bool:
        """Whether central has welcomed us and the connection stands."""
        return self._outbox is not None

    def send(self, message: m.Message) -> bool:
        """Queue a message. False: not connected (nothing is kept; say it again after `on_up`)."""
        return self._outbox is not None and self._outbox.put(message)

    async def flush(self, timeout_s: float) -> None:
        """Wait until what was queued is on its way, for `timeout_s` at most."""
        if self._outbox is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._outbox.empty()

    async def run(self) -> None:
        """Dial and talk until cancelled."""
        backoff = Backoff()
        clock = asyncio.get_running_loop().time
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5.0)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                dialled = clock()
                try:
                    await self._talk(session)
                    why = "central closed the connection"
                except (aiohttp.ClientError, TimeoutError, OSError, SupervisordError) as error:
                    why = str(error) or type(error).__name__
                finally:
                    was_up, self._outbox = self.connected, None
                    await self._end_calls()
                if was_up:
                    self._on_down(why)
                stood_s = clock() - dialled if was_up else 0.0
                if why != self._said or stood_s >= STEADY_S:
                    self._said = why
                    log.warning("no connection to central at %s: %s; trying again", self._url, why)
                await asyncio.sleep(backoff.after(stood_s) * random.uniform(0.5, 1.0))

    async def _talk(self, session: aiohttp.ClientSession) -> None:
        headers = {"Authorization": f"Bearer {token}"} if (token := self._token()) else {}
        async with session.ws_connect(
            self._url, headers=headers, heartbeat=10.0, max_msg_size=MAX_MESSAGE_BYTES, compress=0
        ) as socket:
            await socket.send_str(encode(self._hello()))
            async with asyncio.timeout(10.0):
                first = await self._receive(socket)
            if isinstance(first, m.Refused):
                raise aiohttp.ClientError(f"central refuses: {first.message}")
            if not isinstance(first, m.Welcome):
                return
            outbox = self._outbox = _Outbox()
            sender = asyncio.create_task(self._send_all(socket, outbox))
            try:
                self._on_up(first)
                while (message := await self._receive(socket)) is not None:
                    self._dispatch(message, outbox)
            finally:
                sender.cancel()
                with contextlib.suppress(asyncio.CancelledError, aiohttp.ClientError, OSError):
                    await sender

    async def _receive(self, socket: aiohttp.ClientWebSocketResponse) -> m.Message | None:
        while True:
            frame = await socket.receive()
            if frame.type is aiohttp.WSMsgType.TEXT:
                try:
                    return decode(frame.data)
                except BadMessage as error:
                    log.warning("message from central skipped: %s", error)
                    self._on_unreadable(error)
            elif frame.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSING, aiohttp.WSMsgType.CLOSED):
                return None
            elif frame.type is aiohttp.WSMsgType.ERROR:
                raise aiohttp.ClientError(str(socket.exception()))

    async def _send_all(self, socket: aiohttp.ClientWebSocketResponse, outbox: _Outbox) -> None:
        try:
            while True:
                message = await outbox.get()
                await socket.send_str(encode(message))
                outbox.sent(message)
        except (aiohttp.ClientError, OSError):
            await socket.close()  # whoever receives hears of it, too

    def _dispatch(self, message: m.Message, outbox: _Outbox) -> None:
        if isinstance(message, m.Call):
            task = asyncio.create_task(self._answer(message, outbox))
            self._calls[message.id] = task
            task.add_done_callback(lambda _: self._calls.pop(message.id, None))
        elif isinstance(message, m.CallCancel):
            if (unwanted := self._calls.get(message.id)) is not None:
                unwanted.cancel()
        else:
            try:
                self._on_message(message)
            except Exception as error:
                name = type(message).__name__
                log.exception("what central sent cannot be used (%s)", name)
                raise Unusable(f"its {name} cannot be used: {type(error).__name__}: {error}") from error

    async def _answer(self, call: m.Call, outbox: _Outbox) -> None:
        try:
            if self._on_call is None:
                raise LookupError(f"no method {call.method}")
            async for piece in self._on_call(call.method, call.params):
                await outbox.put_piece(m.CallChunk(id=call.id, data=piece))
        except Exception as error:  # whatever a call does wrong is the caller's to read
            await outbox.put_piece(
                m.CallChunk(id=call.id, done=True, error=str(error) or type(error).__name__)
            )
        else:
            await outbox.put_piece(m.CallChunk(id=call.id, done=True))

    async def _end_calls(self) -> None:
        tasks = list(self._calls.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
