"""The connection to central: dialling, order, calls that are longer than the wire is wide."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest
from aiohttp import WSMsgType, web

from supervisord_cp.adapters import central_link
from supervisord_cp.adapters.central_link import CentralLink
from supervisord_cp.errors import UsageError
from supervisord_cp.model.event import Event
from supervisord_cp.wire import messages as m
from supervisord_cp.wire.codec import decode, encode
from tests.waiting import until

pytestmark = pytest.mark.asyncio

EVENTS = m.Events(events=(Event(kind="x", subject="y"),))


class Server:
    """Answers hello with `answer`; reads on only while `reading` is set."""

    def __init__(self, answer: m.Message) -> None:
        self.answer = answer
        self.reading = asyncio.Event()
        self.reading.set()
        self.got: list[m.Message] = []
        self.tokens: list[str] = []
        self.sockets: list[web.WebSocketResponse] = []

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(heartbeat=None)
        await socket.prepare(request)
        self.tokens.append(request.headers.get("Authorization", ""))
        self.sockets.append(socket)
        assert isinstance(decode((await socket.receive()).data), m.Hello)
        await socket.send_str(encode(self.answer))
        while True:
            await self.reading.wait()
            frame = await socket.receive()
            if frame.type is not WSMsgType.TEXT:
                return socket
            self.got.append(decode(frame.data))


@asynccontextmanager
async def linked(
    server: Server,
    *,
    token: Callable[[], str] = lambda: "t",
    on_call: central_link.CallHandler | None = None,
    on_message: Callable[[m.Message], None] = lambda message: None,
) -> AsyncIterator[tuple[CentralLink, list[str]]]:
    app = web.Application()
    app.router.add_get("/agent", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()

    def hear(message: m.Message) -> None:
        log.append(type(message).__name__)
        on_message(message)

    port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    log: list[str] = []
    link = CentralLink(
        url=f"http://127.0.0.1:{port}",
        path="/agent",
        token=token,
        hello=lambda: m.Hello(name="n", session="s"),
        on_message=hear,
        on_up=lambda welcome: log.append(f"up {welcome.epoch}"),
        on_down=lambda why: log.append("down"),
        on_call=on_call,
    )
    run = asyncio.create_task(link.run())
    try:
        yield link, log
    finally:
        run.cancel()
        with suppress(asyncio.CancelledError):
            await run
        await runner.cleanup()


async def test_up_messages_down_and_up_again() -> None:
    server = Server(m.Welcome(epoch="e"))
    async with linked(server) as (link, log):
        assert not link.send(EVENTS)
        await until(lambda: link.connected)
        assert server.tokens == ["Bearer t"]
        assert link.send(EVENTS)
        await link.flush(5.0)
        await until(lambda: server.got == [EVENTS])
        await server.sockets[0].send_str("{ nonsense")
        await server.sockets[0].send_str(encode(m.Resync()))
        await until(lambda: "Resync" in log)
        await server.sockets[0].close()
        await until(lambda: log.count("up e") == 2)
        assert log == ["up e", "Resync", "down", "up e"]


async def test_a_refusal_is_said_once_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    server = Server(m.Refused(message="an agent named n is connected already"))
    async with linked(server) as (link, log):
        await until(lambda: len(server.sockets) >= 3)
        assert not link.connected
        assert log == []
        assert caplog.text.count("connected already") == 1
        server.answer = m.Welcome(epoch="e")
        await until(lambda: link.connected)


async def test_a_token_that_cannot_be_read_is_tried_again() -> None:
    server = Server(m.Welcome(epoch="e"))
    tries = iter([UsageError("the token file cannot be read")] * 2)

    def token() -> str:
        for error in tries:
            raise error
        return "now"

    async with linked(server, token=token) as (link, _):
        await until(lambda: link.connected)
        assert server.tokens == ["Bearer now"]


async def test_an_endless_answer_waits_for_the_wire_and_holds_up_no_report() -> None:
    made = 0

    async def endless(method: str, params: object) -> AsyncIterator[str]:
        nonlocal made
        while True:
            made += 1
            yield "x" * 100_000

    server = Server(m.Welcome(epoch="e"))
    async with linked(server, on_call=endless) as (link, _):
        await until(lambda: link.connected)
        server.reading.clear()
        await server.sockets[0].send_str(encode(m.Call(id=1, method="logs")))
        stalled = -1
        while stalled != made:  # until the wire is full
            stalled = made
            await asyncio.sleep(0.1)
        assert link.send(EVENTS)
        server.reading.set()
        await until(lambda: EVENTS in server.got)
        # It went before the pieces that waited, after those that were on the wire.
        assert server.got.index(EVENTS) <= stalled - central_link.PIECES_QUEUED + 1
        await server.sockets[0].send_str(encode(m.CallCancel(id=1)))
        await server.sockets[0].send_str(encode(m.Call(id=2, method="logs")))
        await until(lambda: any(isinstance(one, m.CallChunk) and one.id == 2 for one in server.got))


async def test_answers_end_with_done_or_with_what_went_wrong() -> None:
    async def answers(method: str, params: object) -> AsyncIterator[str]:
        yield "a"
        yield "b"
        if method == "bad":
            raise LookupError("no such thing")

    server = Server(m.Welcome(epoch="e"))
    async with linked(server, on_call=answers) as (link, _):
        await until(lambda: link.connected)
        await server.sockets[0].send_str(encode(m.Call(id=1, method="good")))
        await server.sockets[0].send_str(encode(m.Call(id=2, method="bad")))
        await until(lambda: sum(isinstance(one, m.CallChunk) and one.done for one in server.got) == 2)
        by_id = {
            number: [one for one in server.got if isinstance(one, m.CallChunk) and one.id == number]
            for number in (1, 2)
        }
        assert [(one.data, one.done, one.error) for one in by_id[1]] == [
            ("a", False, ""),
            ("b", False, ""),
            ("", True, ""),
        ]
        assert [(one.data, one.done, one.error) for one in by_id[2]][2:] == [("", True, "no such thing")]


async def test_what_cannot_be_used_is_said_once_and_the_link_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def confused(message: m.Message) -> None:
        raise KeyError("later")

    server = Server(m.Welcome(epoch="e"))
    async with linked(server, on_message=confused) as (link, log):
        for times in (1, 2):
            await until(lambda times=times: len(server.sockets) == times and link.connected)
            await server.sockets[-1].send_str(encode(m.Resync()))
            await until(lambda times=times: log.count("down") == times)
        await until(lambda: link.connected)
        assert caplog.text.count("no connection to central") == 1
        assert "its Resync cannot be used: KeyError: 'later'" in caplog.text


async def test_delays_grow_until_a_connection_stands() -> None:
    backoff = central_link.Backoff()
    assert [backoff.after(stood) for stood in (0.0, 0.01, 0.0, 0.01, 0.01)] == [0.1, 0.2, 0.4, 0.8, 1.6]
    assert [backoff.after(stood) for stood in (0.0, central_link.STEADY_S, 0.0)] == [2.0, 0.1, 0.2]
