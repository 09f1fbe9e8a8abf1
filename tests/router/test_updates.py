"""Those who wait can know how long."""

import asyncio
import json

import pytest

from supervisord_cp.router.updates import as_event
from tests.router.kit import Client, Engine, Rig, instance, rig, says, streams, waits
from tests.waiting import until

pytestmark = pytest.mark.asyncio

CHAT = {"model": "chat", "messages": []}
STREAM = CHAT | {"stream": True}
SOON = "x-queue-updates: 0.01\r\n"


async def occupied(router: Rig, *after: object) -> tuple[Engine, asyncio.Event, Client]:
    """An engine with room for one request, which it has."""
    gate = asyncio.Event()
    engine = await router.engine(waits(gate, says({"first": 1})), *after)  # type: ignore[arg-type]
    router.serve(instance(engine, max_concurrency=1))
    first = await router.client()
    first.post(CHAT)
    await until(lambda: engine.asked)
    return engine, gate, first


async def told(client: Client, position: int) -> str:
    """The next comment that names the position."""
    while True:
        chunk = (await client.chunk()).decode()
        assert chunk.startswith(": queued position=")
        if f"position={position} " in chunk:
            return chunk


async def test_a_stream_that_waits_is_told_its_position_and_gets_its_answer(router: Rig) -> None:
    engine, gate, _ = await occupied(router, streams("a", "b"))
    second, third = await router.client(), await router.client()
    second.post(STREAM, headers=SOON)
    await until(lambda: len(router.lane().line) == 1)
    third.post(STREAM, headers=SOON + "x-request-id: third\r\n")
    status, headers = await third.head()
    assert (status, headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert headers["x-request-id"] == "third"
    assert await told(third, 2) == ": queued position=2 wait_s=2.0\n\n"
    await second.head()
    assert await told(second, 1) == ": queued position=1 wait_s=1.0\n\n"
    gate.set()
    for client in (second, third):
        rest = b""
        while chunk := await client.chunk():
            rest += chunk
        answer = rest[rest.index(b"data:") :]
        assert answer.count(b"data:") == 3
        assert answer.endswith(b"data: [DONE]\n\n")
        assert b": queued" not in answer
    assert len(engine.asked) == 3
    assert "x-queue-updates" not in engine.asked[1].headers


async def test_an_old_client_is_told_as_well(router: Rig) -> None:
    _, gate, _ = await occupied(router, streams("a"))
    client = await router.client()
    body = json.dumps(STREAM).encode()
    head = f"POST /v1/chat/completions HTTP/1.0\r\ncontent-length: {len(body)}\r\n{SOON}\r\n"
    client.send(head.encode() + body)
    await client.head()
    assert await client.reader.readuntil(b"\n\n") == b": queued position=1 wait_s=1.0\n\n"
    gate.set()
    assert (await client.rest()).endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("body", "headers"), [(STREAM, ""), (CHAT, SOON), (STREAM, "x-queue-updates: 0\r\n")]
)
async def test_nobody_is_told_who_does_not_ask(router: Rig, body: object, headers: str) -> None:
    _, gate, _ = await occupied(router, says({"second": 2}))
    client = await router.client()
    client.post(body, headers=headers)
    await until(lambda: len(router.lane().line) == 1)
    since = router.dispatcher.clock()
    await until(lambda: router.dispatcher.clock() - since > 0.1)
    gate.set()
    answer = await client.answer()
    assert (answer.status, answer.json()) == (200, {"second": 2})


async def test_the_configuration_may_ask_for_all() -> None:
    async with rig(queue_updates_s=0.01) as router:
        _, gate, _ = await occupied(router, streams("a"))
        client = await router.client()
        client.post(STREAM)
        await client.head()
        assert await told(client, 1)
        gate.set()


async def test_a_refusal_after_that_is_an_event() -> None:
    async with rig(queue_timeout_s=0.3) as router:
        await occupied(router)
        client = await router.client()
        client.post(STREAM, headers=SOON)
        await client.head()
        rest = b""
        while chunk := await client.chunk():
            rest += chunk
        *_, error, done, end = rest.split(b"\n\n")
        assert json.loads(error.removeprefix(b"data: "))["error"]["code"] == "queue_timeout"
        assert (done, end) == (b"data: [DONE]", b"")
        await until(lambda: router.dispatcher.metrics.rejected == {"queue_timeout": 1})


async def test_an_error_of_the_engine_after_that_is_an_event(router: Rig) -> None:
    _, gate, _ = await occupied(router, says({"error": {"message": "too long"}}, status=400))
    client = await router.client()
    client.post(STREAM, headers=SOON)
    await client.head()
    await told(client, 1)
    gate.set()
    rest = b""
    while chunk := await client.chunk():
        rest += chunk
    assert rest.endswith(b'data: {"error": {"message": "too long"}}\n\ndata: [DONE]\n\n')


async def test_a_client_that_leaves_while_it_is_told_leaves_no_trace(router: Rig) -> None:
    engine, gate, first = await occupied(router)
    client = await router.client()
    client.post(STREAM, headers=SOON)
    await client.head()
    client.abort()
    await until(lambda: not router.lane().line)
    gate.set()
    assert (await first.answer()).status == 200
    assert len(engine.asked) == 1


@pytest.mark.parametrize("value", ["x", "-1", "nan", "1e9", ""])
async def test_nonsense_is_refused(router: Rig, value: str) -> None:
    router.serve(instance("http://127.0.0.1:9"))
    answer = await router.ask(STREAM, headers=f"x-queue-updates: {value}\r\n")
    assert (answer.status, answer.reason) == (400, "bad_request")


async def test_a_rejection_says_how_long_the_line_is() -> None:
    async with rig(queue_requests=2) as router:
        await occupied(router)
        waiting = [await router.client() for _ in range(2)]
        for client in waiting:
            client.post(CHAT)
        await until(lambda: len(router.lane().line) == 2)
        answer = await router.ask(CHAT)
        assert (answer.status, answer.reason) == (429, "queue_full")
        assert answer.headers["x-supervisord-cp-queue-position"] == "3"
        assert answer.headers["x-supervisord-cp-queue-wait-s"] == "3.0"
        assert answer.headers["retry-after"] == "3"


async def test_one_that_waited_in_vain_is_told_where_it_stood() -> None:
    async with rig(queue_timeout_s=0.2) as router:
        await occupied(router)
        answer = await router.ask(CHAT)
        assert (answer.status, answer.reason) == (504, "queue_timeout")
        assert answer.headers["x-supervisord-cp-queue-position"] == "1"


async def test_a_hopeless_one_is_told_when_it_would_not_be() -> None:
    async with rig() as router:
        await occupied(router)
        for client in [await router.client() for _ in range(4)]:
            client.post(CHAT)
        await until(lambda: len(router.lane().line) == 4)
        answer = await router.ask(CHAT, headers="x-deadline-ms: 500\r\n")
        assert (answer.status, answer.reason) == (429, "deadline_hopeless")
        assert answer.headers["retry-after"] == "5"
        assert answer.headers["x-supervisord-cp-queue-position"] == "5"


@pytest.mark.parametrize(
    ("body", "status", "event"),
    [
        (b'{"a":\n1}', 200, {"a": 1}),
        (b'{"error": {"message": "m"}}', 500, {"error": {"message": "m"}}),
        (
            b"<html>",
            502,
            {"error": {"message": "<html>", "type": "server_error", "param": None, "code": 502}},
        ),
        (
            b'{"detail": "no"}',
            404,
            {"error": {"message": '{"detail": "no"}', "type": "server_error", "param": None, "code": 404}},
        ),
    ],
)
async def test_any_answer_is_one_event(body: bytes, status: int, event: object) -> None:
    made = as_event(body, status)
    assert b"\n" not in made
    assert json.loads(made) == event
