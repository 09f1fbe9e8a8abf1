"""Clients that leave: the engine's work ends with them, and nothing stays behind."""

import asyncio
from pathlib import Path

import pytest

from supervisord_cp.router.exchange import MemoryExchange, request_head
from tests.router.kit import SSE_HEAD, Engine, Rig, event, instance, says, streams, waits
from tests.waiting import until

pytestmark = pytest.mark.asyncio

CHAT = {"model": "chat"}


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_before_the_answer(router: Rig) -> None:
    engine = await router.engine(waits(asyncio.Event(), says({})))
    router.serve(instance(engine))
    client = await router.client()
    client.post(CHAT)
    await until(lambda: engine.asked)
    await client.close()
    await until(lambda: not engine.open, "the engine sees its client leave")
    await until(lambda: not router.inflight)
    assert router.ejected_log == []


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_in_the_middle_of_a_stream(router: Rig, how: str) -> None:
    engine = await router.engine(streams("a", "b", gate=asyncio.Event()))
    router.serve(instance(engine))
    client = await router.client()
    client.post(CHAT)
    await client.head()
    await client.chunk()
    assert (engine.open, router.inflight) == (1, 1)
    if how == "close":
        await client.close()
    else:
        client.abort()
    await until(lambda: not engine.open, "the engine sees its client leave")
    assert router.inflight == 0


async def test_while_a_connection_is_being_made(router: Rig) -> None:
    engine = await router.engine()
    router.serve(instance(engine))
    for _ in range(20):
        client = await router.client()
        client.post(CHAT)
        client.abort()
    await until(lambda: not router.dispatcher.busy)
    assert (await router.ask(CHAT)).status == 200


async def test_in_the_middle_of_its_request(router: Rig) -> None:
    engine = await router.engine()
    router.serve(instance(engine))
    client = await router.client()
    client.send(b"POST /v1/x HTTP/1.1\r\nhost: t\r\ncontent-length: 100\r\n\r\nhalf")
    await until(lambda: router.listener.connections == 1)
    await client.close()
    await until(lambda: router.listener.connections == 0)
    assert engine.asked == []


async def test_a_client_that_ends_its_side_is_gone(router: Rig) -> None:
    engine = await router.engine(waits(asyncio.Event(), says({})))
    router.serve(instance(engine))
    client = await router.client()
    client.post(CHAT)
    await until(lambda: engine.asked)
    client.writer.write_eof()
    await until(lambda: not engine.open)


async def test_many_comings_and_goings_leave_nothing_open(router: Rig) -> None:
    """Files, tasks, leases and flows return to where they were, whatever happened."""

    async def endless(asked: object, reader: object, writer: asyncio.StreamWriter) -> bool:
        writer.write(SSE_HEAD)
        while not writer.transport.is_closing():
            writer.write(event("x" * 100))
            await writer.drain()
            await asyncio.sleep(0.001)
        return False

    engines = [
        await router.engine(endless),
        await router.engine(says({})),
        await router.engine(says({}, status=503)),
    ]
    router.serve(*(instance(engine, n) for n, engine in enumerate(engines)))
    files = open_files()

    async def visit(number: int) -> None:
        client = await router.client()
        client.post(CHAT)
        if number % 3:
            try:
                await client.head()
            except asyncio.IncompleteReadError:
                return
        client.abort() if number % 2 else await client.close()
        router.clients.remove(client)

    for round_ in range(10):
        await asyncio.gather(*(visit(round_ * 20 + n) for n in range(20)))
    await until(lambda: not router.dispatcher.busy)
    await until(lambda: router.listener.connections == 0)
    pools = router.dispatcher.pools
    kept = pools.idle
    await until(lambda: len(pools.connections) == kept)
    await until(lambda: open_files() <= files + 2 * kept + 2)


async def test_an_engine_that_went_silent_does_not_hold_its_client(router: Rig) -> None:
    """A client that waits on a dead engine may leave at any time."""
    silent = Engine(waits(asyncio.Event(), says({})))
    await silent.start()
    router.engines.append(silent)
    router.serve(instance(silent))
    clients = [await router.client() for _ in range(10)]
    for client in clients:
        client.post(CHAT)
    await until(lambda: router.inflight == 10)
    for client in clients:
        client.abort()
    await until(lambda: not router.inflight)


async def test_the_engine_is_left_at_once_and_not_after_a_while(router: Rig) -> None:
    engine = await router.engine(streams("a", "b", gate=asyncio.Event()))
    router.serve(instance(engine))
    exchange = MemoryExchange(request_head("POST", "/v1/chat/completions"), b'{"model": "chat"}')
    router.dispatcher.serve(exchange)
    await until(lambda: exchange.answer, "the stream begins")
    upstream = router.dispatcher.pools.connections[0]
    exchange.cancel()
    assert upstream.transport.is_closing()
    assert router.inflight == 0
    await until(lambda: not engine.open, "the engine sees its client leave")
