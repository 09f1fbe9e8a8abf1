"""Requests that cannot go out yet wait, in order and within bounds."""

import asyncio

import pytest

from supervisord_cp.model.instance import InstanceState
from tests.router.kit import Rig, deployment, instance, rig, says, streams, waits
from tests.waiting import until

pytestmark = pytest.mark.asyncio

CHAT = {"model": "chat"}


async def test_max_concurrency_holds_and_the_line_is_first_come_first_served(router: Rig) -> None:
    gate = asyncio.Event()
    engine = await router.engine(waits(gate, says({})), says({}))
    router.serve(instance(engine, max_concurrency=1))
    clients = [await router.client() for _ in range(6)]
    for number, client in enumerate(clients):
        client.post(CHAT | {"n": number})
        await until(lambda number=number: len(engine.asked) + len(router.lane().line) == number + 1)
    assert len(engine.asked) == 1
    gate.set()
    assert {(await client.answer()).status for client in clients} == {200}
    assert [asked.body[-2:-1] for asked in engine.asked] == [b"%d" % n for n in range(6)]


async def test_the_limit_of_the_deployment_counts_where_the_instance_has_none(router: Rig) -> None:
    gate = asyncio.Event()
    engines = [await router.engine(waits(gate, says({}))) for _ in range(2)]
    router.serve(
        instance(engines[0]),
        instance(engines[1], 1, max_concurrency=3),
        deployments=(deployment("chat", max_concurrency=2),),
    )
    clients = [await router.client() for _ in range(8)]
    for client in clients:
        client.post(CHAT)
    await until(lambda: len(router.lane().line) == 3)
    await until(lambda: [len(engine.asked) for engine in engines] == [2, 3])
    gate.set()
    assert {(await client.answer()).status for client in clients} == {200}


async def test_bodies_that_wait_are_bounded_in_bytes() -> None:
    gate = asyncio.Event()
    async with rig(queue_bytes=1000) as router:
        engine = await router.engine(waits(gate, says({})))
        router.serve(instance(engine, max_concurrency=1))
        clients = [await router.client() for _ in range(3)]
        for client in clients[:2]:
            client.post(CHAT | {"p": "x" * 900})
            await until(lambda: engine.asked)
        await until(lambda: len(router.lane().line) == 1)
        assert (await router.ask(CHAT | {"p": "x" * 900})).reason == "queue_full"
        gate.set()
        assert [(await client.answer()).status for client in clients[:2]] == [200, 200]
        await until(lambda: router.lane().line.bytes == 0)


async def test_a_request_is_held_until_its_first_instance_is_there(router: Rig) -> None:
    router.serve(deployments=(deployment("chat", wanted=0),))
    client = await router.client()
    client.post(CHAT)
    await until(lambda: router.lane().demand().queued == 1)
    engine = await router.engine()
    router.serve(instance(engine, state=InstanceState.STARTING))
    router.serve(instance(engine))
    assert (await client.answer()).status == 200


async def test_that_nobody_is_there_to_serve_is_told_with_the_first_request(router: Rig) -> None:
    """Central need not wait for the next report to hear that somebody waits."""
    gate = asyncio.Event()
    router.serve(deployments=(deployment("chat", wanted=0),))
    clients = [await router.client() for _ in range(3)]
    for client in clients:
        client.post(CHAT)
    await until(lambda: len(router.lane().line) == 3)
    assert router.misses == 1
    engine = await router.engine(*(waits(gate, says({})) for _ in range(3)))
    router.serve(instance(engine, max_concurrency=1))
    late = await router.client()
    late.post(CHAT)
    await until(lambda: len(router.lane().line) == 3)
    assert router.misses == 1, "those who wait for room are no news"
    gate.set()
    assert {(await client.answer()).status for client in (*clients, late)} == {200}


async def test_a_client_that_leaves_the_line_leaves_no_trace(router: Rig) -> None:
    router.serve(deployments=(deployment("chat", wanted=0),))
    clients = [await router.client() for _ in range(3)]
    for client in clients:
        client.post(CHAT)
    await until(lambda: len(router.lane().line) == 3)
    clients[1].abort()
    await until(lambda: len(router.lane().line) == 2)
    engine = await router.engine()
    router.serve(instance(engine))
    assert (await clients[0].answer()).status == 200
    assert (await clients[2].answer()).status == 200
    assert len(engine.asked) == 2
    line = router.lane().line
    assert (line.bytes, line.tokens) == (0, 0)


async def test_those_who_wait_are_told_when_the_deployment_goes(router: Rig) -> None:
    router.serve(deployments=(deployment("chat", wanted=0),))
    client = await router.client()
    client.post(CHAT)
    await until(lambda: len(router.lane().line) == 1)
    router.serve(deployments=())
    answer = await client.answer()
    assert (answer.status, answer.reason) == (503, "no_capacity")


async def test_a_deadline_passes_in_the_line(router: Rig) -> None:
    gate = asyncio.Event()
    engine = await router.engine(waits(gate, says({})))
    router.serve(instance(engine, max_concurrency=1))
    running = await router.client()
    running.post(CHAT)
    await until(lambda: engine.asked)
    router.lane().work.seconds = 0.0  # the estimate says that there is hope
    answer = await router.ask(CHAT, headers="x-deadline-ms: 80\r\n")
    assert (answer.status, answer.reason) == (504, "deadline_exceeded")
    gate.set()
    assert (await running.answer()).status == 200
    assert len(engine.asked) == 1


async def test_a_deadline_that_passes_in_the_middle_ends_the_work(router: Rig) -> None:
    engine = await router.engine(streams("a", "b", gate=asyncio.Event()))
    router.serve(instance(engine))
    client = await router.client()
    client.post(CHAT, headers="x-deadline-ms: 150\r\n")
    assert (await client.head())[0] == 200
    assert b"a" in await client.chunk()
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await client.chunk()
    await until(lambda: not engine.open)


async def test_the_engine_is_told_what_is_left_of_a_deadline(router: Rig) -> None:
    gate = asyncio.Event()
    engine = await router.engine(waits(gate, says({})), says({}))
    router.serve(instance(engine, max_concurrency=1))
    first, second = await router.client(), await router.client()
    first.post(CHAT)
    await until(lambda: engine.asked)
    second.post(CHAT, headers="x-deadline-ms: 60000\r\n")
    await until(lambda: len(router.lane().line) == 1)
    since = router.dispatcher.clock()
    await until(lambda: router.dispatcher.clock() - since > 0.05)
    gate.set()
    assert (await second.answer()).status == 200
    assert "x-deadline-ms" not in engine.asked[0].headers
    assert 30_000 < int(engine.asked[1].headers["x-deadline-ms"]) <= 59_950


async def test_a_deadline_that_was_met_is_forgotten(router: Rig) -> None:
    engine = await router.engine()
    router.serve(instance(engine))
    client = await router.client()
    client.post(CHAT, headers="x-deadline-ms: 60000\r\n")
    assert (await client.answer()).status == 200


async def test_waiting_for_room_begins_when_an_instance_is_there() -> None:
    """Time spent waiting for a replica to start does not count as waiting for room."""
    gate = asyncio.Event()
    async with rig(queue_timeout_s=0.4, hold_timeout_s=60.0) as router:
        router.serve(deployments=(deployment("chat", wanted=1),))
        clients = [await router.client() for _ in range(2)]
        for client in clients:
            client.post(CHAT)
        await until(lambda: len(router.lane().line) == 2)
        held_since = router.lane().line.first().first_wait_at
        await until(lambda: router.dispatcher.clock() - held_since > 0.5)
        engine = await router.engine(waits(gate, says({})))
        router.serve(instance(engine, max_concurrency=1))
        await until(lambda: engine.asked)
        assert len(router.lane().line) == 1
        gate.set()
        assert [(await client.answer()).status for client in clients] == [200, 200]


async def test_demand_is_counted(router: Rig) -> None:
    engine = await router.engine(says({}), says({}, status=500), says({}))
    router.serve(instance(engine))
    for _ in range(3):
        await router.ask(CHAT)
    await router.ask(b"{", headers="")
    demand = router.lane().demand()
    assert (demand.arrivals_total, demand.completed_total, demand.failed_total) == (3, 2, 1)
    assert demand.prompt_tokens_total > 0
    assert (demand.queued, demand.queued_tokens, demand.inflight) == (0, 0, 0)
