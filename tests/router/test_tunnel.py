"""Websockets are tunnelled."""

import asyncio
from urllib.parse import quote

import aiohttp
import pytest
from aiohttp import web

from tests.router.kit import Rig, instance, raw, says
from tests.waiting import PATIENCE_S, until

pytestmark = pytest.mark.asyncio

ASK = (
    b"GET /v1/realtime?model=chat HTTP/1.1\r\nhost: t\r\nconnection: Upgrade\r\nupgrade: WebSocket\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
    b"sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


async def test_a_real_websocket(router: Rig) -> None:
    async def echo(request: web.Request) -> web.WebSocketResponse:
        assert request.query["model"] == "my model"
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str("echo " + message.data)
        return socket

    app = web.Application()
    app.router.add_get("/v1/realtime", echo)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    router.serve(instance(url, deployment="my model"), instance("http://127.0.0.1:9", deployment="other"))
    try:
        async with aiohttp.ClientSession() as session:
            address = f"ws://127.0.0.1:{router.port}/v1/realtime?model={quote('my model')}"
            async with session.ws_connect(address) as socket:
                for number in range(20):
                    text = f"{number}" * 10_000
                    await socket.send_str(text)
                    assert await socket.receive_str(timeout=PATIENCE_S) == "echo " + text
                assert router.inflight == 1
        await until(lambda: router.inflight == 0)
    finally:
        await runner.cleanup()


async def test_bytes_pass_both_ways_at_once_and_ahead_of_the_answer(router: Rig) -> None:
    async def switches(asked: object, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(SWITCH + b"first")
        while data := await reader.read(1000):
            writer.write(data.upper())
        return False

    engine = await router.engine(switches)
    router.serve(instance(engine))
    client = await router.client()
    client.send(ASK + b"\r\nearly")
    status, headers = await client.head()
    assert status == 101
    assert headers["upgrade"] == "websocket"
    assert headers["connection"] == "upgrade"
    assert headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert headers["x-supervisord-cp-instance"] == "chat-0"
    assert await client.reader.readexactly(10) == b"firstEARLY"
    client.send(b"more")
    assert await client.reader.readexactly(4) == b"MORE"
    await client.close()
    await until(lambda: not engine.open, "the engine sees the end")
    assert engine.asked[0].headers["upgrade"] == "websocket"
    assert engine.asked[0].headers["connection"] == "upgrade"


async def test_the_engine_may_end_it(router: Rig) -> None:
    engine = await router.engine(raw(SWITCH + b"bye"))
    router.serve(instance(engine))
    client = await router.client()
    client.send(ASK + b"\r\n")
    assert (await client.head())[0] == 101
    assert await client.rest() == b"bye"


async def test_a_refused_upgrade_is_an_ordinary_answer(router: Rig) -> None:
    engine = await router.engine(raw(b"HTTP/1.1 403 X\r\ncontent-length: 2\r\n\r\nno", keep=True))
    router.serve(instance(engine))
    client = await router.client()
    for _ in range(2):
        client.send(ASK + b"\r\n")
        answer = await client.answer()
        assert (answer.status, answer.body) == (403, b"no")


SMUGGLED = b"POST /sleep HTTP/1.1\r\nhost: t\r\ncontent-length: 0\r\n\r\n"


@pytest.mark.parametrize(
    "framed",
    [
        b"content-length: %d\r\n\r\n%b" % (len(SMUGGLED), SMUGGLED),
        b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED),
    ],
)
async def test_a_request_in_the_body_of_an_upgrade_stays_a_body(router: Rig, framed: bytes) -> None:
    engine = await router.engine(says({"error": "no websocket here"}, status=404))
    router.serve(instance(engine))
    client = await router.client()
    for _ in range(2):
        client.send(ASK + framed)
        assert (await client.answer()).status == 404
    assert [(asked.target, asked.body) for asked in engine.asked] == [
        ("/v1/realtime?model=chat", SMUGGLED)
    ] * 2
    assert all("upgrade" not in asked.headers for asked in engine.asked)


async def test_a_switch_that_nobody_asked_for_is_no_answer(router: Rig) -> None:
    router.serve(instance(await router.engine(raw(SWITCH + b"anything"))))
    answer = await router.ask({"model": "chat"})
    assert (answer.status, answer.reason) == (502, "upstream_invalid")


async def test_a_slow_side_holds_the_other_back(router: Rig) -> None:
    taken = 0

    async def never_reads(asked: object, reader: object, writer: asyncio.StreamWriter) -> bool:
        writer.write(SWITCH)
        await gate.wait()
        nonlocal taken
        while taken < 60_000_000 and (data := await reader.read(1 << 20)):  # type: ignore[attr-defined]
            taken += len(data)
        writer.write(b"got it")
        return False

    gate = asyncio.Event()
    engine = await router.engine(never_reads)
    router.serve(instance(engine))
    client = await router.client()
    client.send(ASK + b"\r\n")
    assert (await client.head())[0] == 101
    client.send(b"x" * 60_000_000)
    steady, before = 0, -1
    while steady < 10:
        left = client.writer.transport.get_write_buffer_size()
        steady = steady + 1 if left == before else 0
        before = left
        await asyncio.sleep(0.02)
    assert before > 20_000_000  # the rest is still the client's to keep
    gate.set()
    assert await client.rest() == b"got it"
