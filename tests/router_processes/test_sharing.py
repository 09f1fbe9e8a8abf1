"""Limits hold over all processes of an address together."""

import asyncio
from pathlib import Path

import pytest

from tests.router.kit import Engine, says, waits
from tests.router_processes.kit import CHAT, Processes, router_of
from tests.waiting import until

pytestmark = [pytest.mark.asyncio, pytest.mark.process]
CLIENTS = 24
MOST_CLIENTS = 400


async def ask_all(router: Processes, number: int, headers: str = "") -> list[asyncio.Task[int]]:
    """So many requests on connections of their own, which are spread over the processes."""
    clients = [await router.client() for _ in range(number)]

    async def one(index: int) -> int:
        clients[index].post(CHAT, headers=headers)
        return (await clients[index].answer()).status

    return [asyncio.create_task(one(index)) for index in range(number)]


def done(answers: list[asyncio.Task[int]]) -> list[int]:
    return [answer.result() for answer in answers if answer.done()]


async def test_max_concurrency_is_one_limit_and_all_get_their_turn(tmp_path: Path) -> None:
    gate = asyncio.Event()
    engine = Engine(waits(gate, says({})))
    async with router_of(tmp_path, engine, max_concurrency=3) as router:
        await router.start()
        answers = await ask_all(router, CLIENTS)
        await router.has(len(answers))
        while not all(queued for _, queued in router.loads()):  # a busy host spreads them less evenly
            assert len(answers) < MOST_CLIENTS, "one process has them all"
            answers += await ask_all(router, CLIENTS)
            await router.has(len(answers))
        assert 3 <= len(engine.asked) <= 4, "each process may be one request late to see the other's"
        gate.set()
        assert [await answer for answer in answers] == [200] * len(answers)
        assert engine.most_busy <= 4


async def test_queue_bounds_are_one_bound(tmp_path: Path) -> None:
    gate = asyncio.Event()
    engine = Engine(waits(gate, says({})))
    async with router_of(tmp_path, engine, max_concurrency=1) as router:
        router.configure(more="queue_requests = 5")
        await router.start()
        answers = await ask_all(router, CLIENTS)
        await until(lambda: len(done(answers)) + sum(map(sum, router.loads())) == CLIENTS, "all are heard")
        refused = done(answers)
        assert set(refused) == {429}
        assert 6 <= CLIENTS - len(refused) <= 8, "each process may be one request late to see the other's"
        gate.set()
        statuses = [await answer for answer in answers]
        assert statuses.count(200) == CLIENTS - len(refused)


async def test_a_rate_is_one_rate(tmp_path: Path) -> None:
    async with router_of(tmp_path, Engine()) as router:
        router.configure(more="rate_limit_rps = 0.01")
        await router.start()
        statuses = [await router.ask() for _ in range(8)]
        assert sorted(statuses) == [200] + [429] * 7
