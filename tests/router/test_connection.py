"""What a client may send, and what it gets for sending anything else."""

import asyncio
import contextlib
import socket

import pytest

from tests.router.kit import Client, Rig, instance, raw, rig, says, streams, waits
from tests.router.wires import Wired
from tests.waiting import PATIENCE_S, until

pytestmark = pytest.mark.asyncio

OK = b"GET /v1/thing HTTP/1.1\r\nhost: t\r\n\r\n"
POST = b"POST /v1/thing HTTP/1.1\r\nhost: t\r\n"

REFUSED = {
    "no host": b"GET /v1/x HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /v1/x HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n",
    "host with a path": b"GET /v1/x HTTP/1.1\r\nhost: a/b\r\n\r\n",
    "obs-fold": b"GET /v1/x HTTP/1.1\r\nhost: t\r\nx-a: 1\r\n 2\r\n\r\n",
    "space before the colon": b"GET /v1/x HTTP/1.1\r\nhost: t\r\nx-a : 1\r\n\r\n",
    "no colon": b"GET /v1/x HTTP/1.1\r\nhost: t\r\nnonsense\r\n\r\n",
    "empty name": b"GET /v1/x HTTP/1.1\r\nhost: t\r\n: 1\r\n\r\n",
    "NUL in a value": b"GET /v1/x HTTP/1.1\r\nhost: t\r\nx-a: \x00\r\n\r\n",
    "bare CR in a value": b"GET /v1/x HTTP/1.1\r\nhost: t\r\nx-a: 1\r2\r\n\r\n",
    "bare LF after a field": b"GET /v1/x HTTP/1.1\r\nhost: t\nx-a: 1\r\n\r\n",
    "bare LF after the request line": b"GET /v1/x HTTP/1.1\nhost: t\r\n\r\n",
    "HTTP/2.0": b"GET /v1/x HTTP/2.0\r\nhost: t\r\n\r\n",
    "HTTP/1.2": b"GET /v1/x HTTP/1.2\r\nhost: t\r\n\r\n",
    "no version": b"GET /v1/x\r\nhost: t\r\n\r\n",
    "two spaces": b"GET  /v1/x HTTP/1.1\r\nhost: t\r\n\r\n",
    "a tab in the request line": b"GET\t/v1/x HTTP/1.1\r\nhost: t\r\n\r\n",
    "bytes above ASCII in the target": b"GET /v1/\xe4 HTTP/1.1\r\nhost: t\r\n\r\n",
    "a fragment": b"GET /v1/x#y HTTP/1.1\r\nhost: t\r\n\r\n",
    "no path": b"GET v1/x HTTP/1.1\r\nhost: t\r\n\r\n",
    "CONNECT": b"CONNECT t:443 HTTP/1.1\r\nhost: t\r\n\r\n",
    "an asterisk": b"OPTIONS * HTTP/1.1\r\nhost: t\r\n\r\n",
    "length twice, different": POST + b"content-length: 1\r\ncontent-length: 2\r\n\r\nab",
    "length twice, equal": POST + b"content-length: 1\r\ncontent-length: 1\r\n\r\na",
    "lengths in a list": POST + b"content-length: 1, 1\r\n\r\na",
    "a signed length": POST + b"content-length: +1\r\n\r\na",
    "a negative length": POST + b"content-length: -1\r\n\r\na",
    "a hexadecimal length": POST + b"content-length: 0x1\r\n\r\na",
    "an empty length": POST + b"content-length:\r\n\r\n",
    "length and coding": POST + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "an unknown coding": POST + b"transfer-encoding: gzip\r\n\r\n",
    "coding twice": POST + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "coding before chunked": POST + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "a hidden coding": POST + b"transfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "coding in HTTP/1.0": b"POST /v1/x HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "a chunk size that is none": POST + b"transfer-encoding: chunked\r\n\r\nzz\r\n",
    "a chunk size with 0x": POST + b"transfer-encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n",
    "a chunk size with a sign": POST + b"transfer-encoding: chunked\r\n\r\n+1\r\na\r\n0\r\n\r\n",
    "a chunk size with a space": POST + b"transfer-encoding: chunked\r\n\r\n1 \r\na\r\n0\r\n\r\n",
    "a chunk size of 16 digits": POST + b"transfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n",
    "a chunk that is longer": POST + b"transfer-encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
    "a chunk line with a bare LF": POST + b"transfer-encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n",
    "a bad trailer": POST + b"transfer-encoding: chunked\r\n\r\n0\r\nno colon\r\n\r\n",
    "a TLS greeting": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
}


@pytest.mark.parametrize("what", REFUSED)
async def test_bad_requests_are_refused_and_the_connection_ends(router: Rig, what: str) -> None:
    engine = await router.engine()
    router.serve(instance(engine))
    client = await router.client()
    client.send(REFUSED[what] + OK)
    answer = await client.answer()
    assert (answer.status, answer.reason) == (400, "bad_request")
    assert answer.headers["connection"] == "close"
    assert answer.headers["x-request-id"]
    assert await client.rest() == b""
    assert engine.asked == []


@pytest.mark.parametrize("size", [1, 3, 50])
async def test_a_request_in_pieces(router: Rig, size: int) -> None:
    engine = await router.engine()
    router.serve(instance(engine))
    client = await router.client()
    request = POST + b"content-length: 5\r\nexpect:\r\n\r\nhello" + OK
    for at in range(0, len(request), size):
        client.send(request[at : at + size])
        await asyncio.sleep(0)
    assert [(await client.answer()).status for _ in range(2)] == [200, 200]
    assert engine.asked[0].body == b"hello"


async def test_pipelined_requests_are_answered_in_order_one_at_a_time(router: Rig) -> None:
    gate = asyncio.Event()
    engine = await router.engine(waits(gate, says({"n": 1})), says({"n": 2}), says({"n": 3}))
    router.serve(instance(engine))
    client = await router.client()
    client.send(OK + POST + b"content-length: 2\r\n\r\nab" + OK)
    await until(lambda: engine.asked, "the first request")
    assert router.inflight == 1
    gate.set()
    assert [(await client.answer()).json() for _ in range(3)] == [{"n": 1}, {"n": 2}, {"n": 3}]


async def test_many_pipelined_requests_do_not_deepen_the_stack(router: Rig) -> None:
    router.serve(instance("http://127.0.0.1:9"))
    client = await router.client()
    client.send(b"GET /health HTTP/1.1\r\nhost: t\r\n\r\n" * 3000)
    for _ in range(3000):
        assert (await client.answer()).status == 200


async def test_what_is_sent_ahead_is_bounded(router: Rig) -> None:
    gate = asyncio.Event()
    engine = await router.engine(waits(gate, says({})), says({}))
    router.serve(instance(engine))
    reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
    writer.transport.set_write_buffer_limits(high=1)
    writer.write(OK)
    await until(lambda: engine.asked, "the first request")
    pushed = 0
    blob = POST + b"content-length: 50000000\r\n\r\n" + b"x" * 50_000_000
    writer.write(blob)
    while True:
        left = writer.transport.get_write_buffer_size()
        await asyncio.sleep(0.05)
        if left == writer.transport.get_write_buffer_size():
            break
    pushed = len(blob) - left
    assert pushed < 20_000_000  # kernel buffers and ours
    gate.set()
    client = Client(reader, writer)
    assert (await client.answer()).status == 200
    assert (await client.answer()).status == 200
    assert len(engine.asked[1].body) == 50_000_000
    await client.close()


async def test_who_does_not_read_answers_gets_no_more_of_them(router: Rig) -> None:
    engine = await router.engine(
        raw(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n" + b"x" * 1_000_000, keep=True)
    )
    router.serve(instance(engine))
    reader, writer = await asyncio.open_connection("127.0.0.1", router.port, limit=1024)
    client = Client(reader, writer)
    router.clients.append(client)
    client.send(OK * 200)
    steady, before = 0, -1
    while steady < 10:
        steady = steady + 1 if len(engine.asked) == before else 0
        before = len(engine.asked)
        await asyncio.sleep(0.02)
    assert before < 50  # kernel buffers, and one answer of ours
    for _ in range(200):
        assert len((await client.answer()).body) == 1_000_000
    assert len(engine.asked) == 200


async def test_a_client_that_takes_nothing_for_long_is_dropped(
    router: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supervisord_cp.router.connection.STALL_S", 0.3)
    engine = await router.engine(raw(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 30_000_000))
    router.serve(instance(engine))
    reader, writer = await asyncio.open_connection("127.0.0.1", router.port, limit=1024)
    client = Client(reader, writer)
    router.clients.append(client)
    client.send(OK)
    await until(lambda: router.inflight == 1)
    await until(lambda: router.listener.connections == 0)
    await until(lambda: router.inflight == 0)


async def test_expect_100_continue(router: Rig) -> None:
    engine = await router.engine()
    router.serve(instance(engine))
    client = await router.client()
    client.send(POST + b"content-length: 4\r\nexpect: 100-continue\r\n\r\n")
    assert await client.head() == (100, {})
    client.send(b"body")
    assert (await client.answer()).status == 200
    assert engine.asked[0].body == b"body"


async def test_expect_is_not_encouraged_when_the_request_is_refused() -> None:
    async with rig(max_body=100) as router:
        router.serve(instance("http://127.0.0.1:9"))
        client = await router.client()
        client.send(POST + b"content-length: 101\r\nexpect: 100-continue\r\n\r\n")
        assert (await client.answer()).status == 413


@pytest.mark.parametrize(
    ("version", "connection", "kept"),
    [
        ("1.1", "", True),
        ("1.1", "connection: close\r\n", False),
        ("1.1", "connection: x, Close\r\n", False),
        ("1.0", "", False),
        ("1.0", "connection: keep-alive\r\n", True),
    ],
)
async def test_connections_are_kept_as_the_client_asks(
    router: Rig, version: str, connection: str, kept: bool
) -> None:
    engine = await router.engine()
    router.serve(instance(engine))
    client = await router.client()
    request = f"GET /v1/x HTTP/{version}\r\nhost: t\r\n{connection}\r\n".encode()
    client.send(request)
    answer = await client.answer()
    assert answer.status == 200
    if kept:
        assert answer.headers.get("connection") == ("keep-alive" if version == "1.0" else None)
        client.send(request)
        assert (await client.answer()).status == 200
    else:
        assert await client.rest() == b""


async def test_an_absolute_target_is_taken_for_its_path(router: Rig) -> None:
    engine = await router.engine()
    router.serve(instance(engine))
    client = await router.client()
    client.send(b"GET http://elsewhere/v1/x?y=1 HTTP/1.1\r\nhost: elsewhere\r\n\r\n")
    assert (await client.answer()).status == 200
    assert engine.asked[0].target == "/v1/x?y=1"


async def test_empty_lines_before_a_request_are_skipped(router: Rig) -> None:
    engine = await router.engine()
    router.serve(instance(engine))
    client = await router.client()
    client.send(b"\r\n" + OK)
    assert (await client.answer()).status == 200


@pytest.mark.parametrize("line", [b"x-a: " + b"y" * 70_000, b"GET /v1/" + b"z" * 70_000])
async def test_a_head_that_is_too_large(router: Rig, line: bytes) -> None:
    client = await router.client()
    client.send(line if line.startswith(b"GET") else b"GET /v1/x HTTP/1.1\r\nhost: t\r\n" + line)
    answer = await client.answer()
    assert (answer.status, answer.reason) == (431, "headers_too_large")
    assert await client.rest() == b""


async def test_too_many_fields(router: Rig) -> None:
    engine = await router.engine()
    router.serve(instance(engine))
    client = await router.client()
    client.send(b"GET /v1/x HTTP/1.1\r\nhost: t\r\n" + b"a: b\r\n" * 127 + b"\r\n")
    assert (await client.answer()).status == 200
    client.send(b"GET /v1/x HTTP/1.1\r\nhost: t\r\n" + b"a: b\r\n" * 128 + b"\r\n")
    answer = await client.answer()
    assert (answer.status, answer.reason) == (431, "headers_too_large")
    assert await client.rest() == b""


async def test_a_head_of_ten_megabytes_is_not_kept(router: Rig) -> None:
    client = await router.client()
    client.send(b"GET /v1/x HTTP/1.1\r\nhost: t\r\nx-a: ")
    for _ in range(100):
        client.send(b"y" * 100_000)
    answer = await client.answer()
    assert (answer.status, answer.reason) == (431, "headers_too_large")
    assert all(c.kept_bytes == 0 for c in router.listener._connections)
    client.abort()
    await until(lambda: router.listener.connections == 0)


async def test_a_declared_body_that_is_too_large_is_not_read(router: Rig) -> None:
    router.serve(instance("http://127.0.0.1:9"))
    client = await router.client()
    client.send(POST + b"content-length: 100000000\r\n\r\n")
    answer = await client.answer()
    assert (answer.status, answer.reason) == (413, "body_too_large")
    sent, piece = 0, b"x" * 1_000_000
    try:  # a client that sends all the same sees the end before all of it is taken
        while sent < 100_000_000:
            client.send(piece)
            await asyncio.wait_for(client.writer.drain(), PATIENCE_S)
            sent += len(piece)
    except (ConnectionError, TimeoutError):
        pass
    assert sent < 100_000_000


async def test_a_chunked_body_that_grows_too_large() -> None:
    async with rig(max_body=10_000) as router:
        router.serve(instance("http://127.0.0.1:9"))
        client = await router.client()
        client.send(POST + b"transfer-encoding: chunked\r\n\r\n")
        for _ in range(11):
            client.send(b"3e8\r\n" + b"x" * 1000 + b"\r\n")
        answer = await client.answer()
        assert (answer.status, answer.reason) == (413, "body_too_large")


async def test_tiny_chunks_cost_what_is_in_them(router: Rig) -> None:
    engine = await router.engine()
    router.serve(instance(engine))
    client = await router.client()
    client.send(POST + b"transfer-encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 20_000 + b"0\r\n\r\n")
    assert (await client.answer()).status == 200
    assert engine.asked[0].body == b"x" * 20_000


@pytest.mark.parametrize("begun", [b"GET /v1/x HT", POST + b"content-length: 9\r\n\r\nabc"])
async def test_a_client_that_is_too_slow(begun: bytes) -> None:
    async with rig(header_timeout_s=0.1) as router:
        router.serve(instance("http://127.0.0.1:9"))
        client = await router.client()
        client.send(begun)
        answer = await client.answer()
        assert (answer.status, answer.reason) == (408, "request_timeout")
        assert await client.rest() == b""


@pytest.mark.parametrize(("piece", "answered_after_s"), [(b"x", 31), (b"x" * 1000, 100), (b"", 30)])
async def test_a_body_that_trickles_is_not_waited_for(piece: bytes, answered_after_s: int) -> None:
    """Each piece is in time, and all of it would take for ever."""
    client = Wired()
    client.send(POST + b"content-length: 100000\r\n\r\n")
    while not (client.core.served or client.core.refused):
        client.pass_time(1.0)
        client.send(piece)
    if len(piece) > 1:
        assert [len(served.body) for served in client.core.served] == [100_000]
    else:
        assert client.core.refused == ["request_timeout"]
    assert client.now == pytest.approx(answered_after_s, abs=1)


async def test_connections_are_bounded() -> None:
    async with rig(max_connections=3) as router:
        engine = await router.engine()
        router.serve(instance(engine))
        clients = [await router.client() for _ in range(3)]
        await until(lambda: router.listener.connections == 3)
        beyond = await router.client()
        beyond.send(OK)
        answer = await beyond.answer()
        assert (answer.status, answer.reason, answer.headers["retry-after"]) == (503, "no_capacity", "1")
        assert await beyond.rest() == b""
        for client in clients:
            client.send(OK)
            assert (await client.answer()).status == 200
        await clients[0].close()
        await beyond.close()
        await until(lambda: router.listener.connections == 2)
        another = await router.client()
        another.send(OK)
        assert (await another.answer()).status == 200
        assert len(engine.asked) == 4


async def test_far_beyond_the_bound_nobody_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("supervisord_cp.router.connection.BEYOND", 2)
    async with rig(max_connections=1) as router:
        clients = [await router.client() for _ in range(6)]
        await until(lambda: router.listener.connections == 3)
        for client in clients[3:]:
            with contextlib.suppress(ConnectionError):
                assert await client.rest() == b""


async def test_trailers_of_a_request_are_dropped(router: Rig) -> None:
    engine = await router.engine()
    router.serve(instance(engine))
    client = await router.client()
    trailers = b"x-priority: none\r\ncontent-length: 9\r\nauthorization: Bearer x\r\nx-a: b\r\n"
    client.send(POST + b"transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n" + trailers + b"\r\n" + OK)
    assert [(await client.answer()).status for _ in range(2)] == [200, 200]
    assert engine.asked[0].body == b"ok"
    assert set(engine.asked[0].headers) == {"host", "content-length", "x-request-id"}


async def test_idle_connections_end_without_a_word() -> None:
    async with rig(idle_timeout_s=0.1) as router:
        engine = await router.engine()
        router.serve(instance(engine))
        fresh, used = await router.client(), await router.client()
        used.send(OK)
        assert (await used.answer()).status == 200
        assert await fresh.rest() == b""
        assert await used.rest() == b""
        assert router.listener.connections == 0


async def test_a_request_that_runs_is_not_idle() -> None:
    gate = asyncio.Event()
    async with rig(idle_timeout_s=0.1, header_timeout_s=0.1) as router:
        engine = await router.engine(streams("a", "b", gate=gate))
        router.serve(instance(engine))
        client, idle = await router.client(), await router.client()
        client.send(OK)
        await client.head()
        assert await idle.rest() == b""  # so much time has passed
        gate.set()
        while await client.chunk():
            pass


@pytest.mark.parametrize("grace_s", [0.0, 60.0])
async def test_a_client_that_was_promised_another_request_may_make_it_while_we_drain(
    router: Rig, grace_s: float
) -> None:
    gate = asyncio.Event()
    engine = await router.engine(streams("a", "b", gate=gate))
    router.serve(instance(engine))
    client = await router.client()
    client.send(OK)
    _, headers = await client.head()
    assert "connection" not in headers
    router.listener.drain(grace_s)
    gate.set()
    while await client.chunk():
        pass
    if grace_s:
        client.send(OK)
        answer = await client.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert await client.rest() == b""


async def test_the_answer_to_a_refused_request_is_read_before_the_end(router: Rig) -> None:
    """Closing a socket with unread data resets it, and a reset can destroy the answer on its way."""
    router.serve(instance("http://127.0.0.1:9"))
    client = await router.client()
    client.send(POST + b"content-length: 100000000\r\n\r\n" + b"x" * 4_000_000)
    await asyncio.sleep(0.05)
    assert (await client.answer()).status == 413


async def test_nodelay_is_on(router: Rig) -> None:
    router.serve(instance("http://127.0.0.1:9"))
    client = await router.client()
    client.send(b"GET /health HTTP/1.1\r\nhost: t\r\n\r\n")
    await client.answer()
    (connection,) = router.listener._connections
    sock = connection.transport.get_extra_info("socket")
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_what_a_client_sends_that_does_not_read_is_bounded() -> None:
    client = Wired()
    client.connection.pause_writing()
    for _ in range(8):
        client.send(b"POST /v1/x HTTP/1.1\r\nhost: t\r\nContent-Length: 16384\r\n\r\n" + b"x" * 16384)
    assert client.wire.held
    assert client.core.served == []
    client.connection.resume_writing()
    assert not client.wire.held
    assert len(client.core.served) == 8
