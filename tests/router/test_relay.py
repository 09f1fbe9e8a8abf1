"""Requests go through as they are, answers come back as they are."""

import asyncio

import pytest

from tests.router.kit import DONE, SSE_HEAD, Client, Rig, event, instance, raw, rig, says, streams
from tests.waiting import until

pytestmark = pytest.mark.asyncio

CHAT = {"model": "chat", "messages": [{"role": "user", "content": "hi"}]}


async def test_a_json_answer_passes_with_our_headers(router: Rig) -> None:
    engine = await router.engine(says({"text": "hello"}, headers="x-of-engine: 1\r\n"))
    router.serve(instance(engine))
    answer = await router.ask(CHAT, headers="x-request-id: mine\r\nx-extra: 2\r\n")
    assert (answer.status, answer.json()) == (200, {"text": "hello"})
    assert answer.headers["x-of-engine"] == "1"
    assert answer.headers["x-request-id"] == "mine"
    assert answer.headers["x-supervisord-cp-instance"] == "chat-0"
    asked = engine.asked[0]
    assert (asked.method, asked.target, asked.version) == ("POST", "/v1/chat/completions", "HTTP/1.1")
    assert asked.headers["x-extra"] == "2"
    assert asked.headers["x-request-id"] == "mine"
    assert asked.headers["host"] == f"127.0.0.1:{engine.port}"


async def test_an_id_is_made_when_the_client_has_none(router: Rig) -> None:
    engine = await router.engine()
    router.serve(instance(engine))
    first = await router.ask(CHAT)
    second = await router.ask(CHAT, headers="x-request-id: a\tb\r\n")
    ids = [first.headers["x-request-id"], second.headers["x-request-id"]]
    assert all(ids)
    assert ids[0] != ids[1]
    assert [asked.headers["x-request-id"] for asked in engine.asked] == ids


async def test_hop_by_hop_fields_end_here_both_ways(router: Rig) -> None:
    engine = await router.engine(
        says(
            {},
            headers="connection: x-secret, keep-alive\r\nx-secret: s\r\nkeep-alive: 9\r\nx-ok: 1\r\n",
        )
    )
    router.serve(instance(engine))
    answer = await router.ask(
        CHAT,
        headers=(
            "connection: keep-alive, X-Private\r\nx-private: 1\r\nte: trailers\r\nproxy-authorization: b\r\n"
            "keep-alive: 5\r\ntrailer: x\r\nproxy-connection: x\r\nexpect: 100-continue\r\nx-public: 2\r\n"
        ),
    )
    assert answer.headers["x-ok"] == "1"
    assert not {"x-secret", "keep-alive", "connection"} & set(answer.headers)
    sent = engine.asked[0].headers
    assert sent["x-public"] == "2"
    gone = {"connection", "x-private", "te", "proxy-authorization", "keep-alive", "trailer", "expect"}
    assert not gone & set(sent)


async def test_a_stream_passes_event_by_event(router: Rig) -> None:
    gate = asyncio.Event()
    engine = await router.engine(streams("one", "two", gate=gate))
    router.serve(instance(engine))
    client = await router.client()
    client.post(CHAT | {"stream": True})
    status, headers = await client.head()
    assert (status, headers["transfer-encoding"]) == (200, "chunked")
    assert b"one" in await client.chunk()
    assert router.inflight == 1
    gate.set()
    assert b"two" in await client.chunk()
    assert await client.chunk() == b"data: [DONE]\n\n"
    assert await client.chunk() == b""
    client.post(CHAT)  # the connection is good for more
    assert (await client.answer()).status == 200


@pytest.mark.parametrize("step", [1, 2, 7, 64])
async def test_a_stream_in_any_pieces_is_the_same_stream(router: Rig, step: int) -> None:
    whole = SSE_HEAD + event("one") + event("two" * 50) + DONE

    async def in_pieces(asked: object, reader: object, writer: asyncio.StreamWriter) -> bool:
        for at in range(0, len(whole), step):
            writer.write(whole[at : at + step])
            await asyncio.sleep(0)
        return True

    engine = await router.engine(in_pieces)
    router.serve(instance(engine))
    for _ in range(2):
        answer = await router.ask(CHAT)
        assert (
            answer.body
            == b"".join(part.partition(b"\r\n")[2][:-2] for part in (event("one"), event("two" * 50)))
            + b"data: [DONE]\n\n"
        )
    assert engine.connections == 1


async def test_an_old_client_gets_a_stream_without_chunks(router: Rig) -> None:
    engine = await router.engine(streams("one", "two"))
    router.serve(instance(engine))
    client = await router.client()
    client.send(b'POST /v1/completions HTTP/1.0\r\ncontent-length: 16\r\n\r\n{"model":"chat"}')
    status, headers = await client.head()
    assert status == 200
    assert "transfer-encoding" not in headers
    body = await client.rest()
    assert b"one" in body
    assert body.endswith(b"data: [DONE]\n\n")


async def test_an_answer_that_ends_with_its_connection_is_chunked_for_the_client(router: Rig) -> None:
    engine = await router.engine(raw(b"HTTP/1.1 200 OK\r\n\r\nsome text"))
    router.serve(instance(engine))
    client = await router.client()
    for _ in range(2):
        client.post(CHAT)
        answer = await client.answer()
        assert (answer.headers["transfer-encoding"], answer.body) == ("chunked", b"some text")


@pytest.mark.parametrize("status", [204, 304])
async def test_answers_without_a_body(router: Rig, status: int) -> None:
    engine = await router.engine(raw(b"HTTP/1.1 %d X\r\n\r\n" % status, keep=True))
    router.serve(instance(engine))
    client = await router.client()
    for _ in range(2):
        client.post(CHAT)
        answer = await client.answer()
        assert (answer.status, answer.body) == (status, b"")
        assert "transfer-encoding" not in answer.headers
    assert engine.connections == 1


async def test_head_has_a_length_and_no_body(router: Rig) -> None:
    engine = await router.engine(says({"a": 1}))
    router.serve(instance(engine))
    client = await router.client()
    for _ in range(2):
        client.send(b"HEAD /v1/anything HTTP/1.1\r\nhost: t\r\n\r\n")
        answer = await client.answer(method="HEAD")
        assert (answer.status, answer.headers["content-length"]) == (200, "8")
    assert engine.connections == 1


async def test_interim_answers_of_the_engine_are_left_out(router: Rig) -> None:
    engine = await router.engine(
        raw(
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 X\r\nlink: a\r\n\r\n"
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
        )
    )
    router.serve(instance(engine))
    assert (await router.ask(CHAT)).body == b"ok"


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "POST"])
async def test_every_method_passes(router: Rig, method: str) -> None:
    engine = await router.engine(says({"m": 1}))
    router.serve(instance(engine))
    answer = await router.ask(b'{"model": "chat"}', path="/v1/new/thing?x=%20y", method=method)
    assert answer.status == 200
    assert (engine.asked[0].method, engine.asked[0].target) == (method, "/v1/new/thing?x=%20y")
    assert engine.asked[0].body == b'{"model": "chat"}'


async def test_a_chunked_request_body_arrives_whole(router: Rig) -> None:
    engine = await router.engine()
    router.serve(instance(engine))
    client = await router.client()
    client.send(b"POST /v1/completions HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n")
    client.send(b'8\r\n{"model"\r\n9;x=y\r\n: "chat"}\r\n0\r\nx-trailer: 1\r\n\r\n')
    assert (await client.answer()).status == 200
    assert engine.asked[0].body == b'{"model": "chat"}'
    assert engine.asked[0].headers["content-length"] == "17"
    assert "x-trailer" not in engine.asked[0].headers


async def test_a_large_body_and_a_large_answer(router: Rig) -> None:
    answer = b"x" * 5_000_000
    engine = await router.engine(raw(b"HTTP/1.1 200 OK\r\ncontent-length: 5000000\r\n\r\n" + answer))
    router.serve(instance(engine))
    body = b'{"model": "chat", "prompt": "' + b"y" * 3_000_000 + b'"}'
    got = await router.ask(body)
    assert got.body == answer
    assert engine.asked[0].body == body


async def test_upgrade_to_anything_but_a_websocket_is_ignored_and_the_body_kept(router: Rig) -> None:
    engine = await router.engine()
    router.serve(instance(engine))
    answer = await router.ask(
        CHAT, headers="connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAA\r\n"
    )
    assert answer.status == 200
    assert b"messages" in engine.asked[0].body
    assert not {"upgrade", "http2-settings", "connection"} & set(engine.asked[0].headers)


async def test_a_slow_reader_holds_the_engine_back(router: Rig) -> None:
    sent = 0
    piece = b"8000\r\n" + b"z" * 0x8000 + b"\r\n"

    async def floods(asked: object, reader: object, writer: asyncio.StreamWriter) -> bool:
        nonlocal sent
        writer.write(SSE_HEAD)
        for _ in range(2000):
            writer.write(piece)
            await writer.drain()
            sent += len(piece)
        writer.write(DONE)
        return True

    engine = await router.engine(floods)
    router.serve(instance(engine))
    reader, writer = await asyncio.open_connection("127.0.0.1", router.port, limit=1024)
    client = Client(reader, writer)
    client.post(CHAT | {"stream": True})
    await until(lambda: sent > 0, "the engine has begun")
    steady = 0
    while steady < 20:  # nothing moves any more
        before = sent
        await asyncio.sleep(0.02)
        steady = steady + 1 if sent == before else 0
    assert sent < 30_000_000
    total = 0
    while data := await reader.read(1 << 20):
        total += len(data)
        if data.endswith(b"0\r\n\r\n"):
            break
    assert total > 2000 * 0x8000
    await client.close()


async def test_an_engine_behind_a_path_prefix(router: Rig) -> None:
    engine = await router.engine()
    router.serve(instance(f"{engine.url}/base/"))
    assert (await router.ask(CHAT)).status == 200
    assert engine.asked[0].target == "/base/v1/chat/completions"


async def test_the_connection_of_an_engine_that_closes_is_not_kept(router: Rig) -> None:
    engine = await router.engine(says({}, headers="connection: close\r\n"))
    router.serve(instance(engine))
    for _ in range(3):
        assert (await router.ask(CHAT)).status == 200
    assert engine.connections == 3


async def test_more_than_was_promised_never_reaches_the_next_client(router: Rig) -> None:
    engine = await router.engine(raw(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokEXTRA", keep=True))
    router.serve(instance(engine))
    for _ in range(3):
        assert (await router.ask(CHAT)).body == b"ok"
    assert engine.connections == 3


async def test_usage_teaches_the_router_what_requests_cost() -> None:
    async with rig() as router:
        engine = await router.engine(streams("a", usage='{"prompt_tokens": 900, "completion_tokens": 7}'))
        router.serve(instance(engine))
        work = router.lane().work  # type: ignore[attr-defined]
        before = work.completion_tokens
        for _ in range(60):
            await router.ask(CHAT)
        assert work.completion_tokens < before / 4
        assert 80 < work.prefill(100) <= 100  # more than a token a byte is not believed
