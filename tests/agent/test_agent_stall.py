"""Engines that hang: with engines in memory, and with the fake engine's real processes."""

import asyncio
import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest

from supervisord_cp.adapters.stacks import stacks_of
from supervisord_cp.agent import incarnation
from supervisord_cp.agent.capsules import read_capsule
from supervisord_cp.model.instance import ExitCause, InstanceState
from supervisord_cp.model.reason import ReasonCode
from supervisord_cp.wire import messages as m
from tests.agent.daemon import AgentHost, all_gone, members
from tests.agent.fake_central import FakeCentral
from tests.agent.fakes import REFUSED, Parts, assembled
from tests.agent.waiting import until
from tests.core.instances_kit import desired

A = desired("chat-0", stall_s=0.2)
URL = "http://127.0.0.1:100"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incarnation, "SERVING_S", 0.01)


async def serving(parts: Parts, *, running: int, steps: Callable[[], int]) -> None:
    parts.http.running[URL] = running
    parts.http.steps_of[URL] = steps
    parts.reporter.begin()
    parts.take(A)
    await until(lambda: parts.state_of("chat-0") is InstanceState.READY, what="ready")


@pytest.mark.asyncio
@pytest.mark.usefixtures("quick")
async def test_a_hung_engine_is_quarantined_examined_killed_and_restarted(tmp_path: Path) -> None:
    with assembled(tmp_path) as parts:
        await serving(parts, running=3, steps=lambda: 7)
        await until(lambda: len(parts.backend.requests) == 2, what="restarted")
        parts.reporter.flush()
        said = [
            (event.data["to"], event.reason.code)
            for message in parts.sent
            if isinstance(message, m.Events)
            for event in message.events
            if event.kind == "instance.state"
        ]
        assert ("degraded", ReasonCode.STALLED) in said, "out of rotation before it is looked at"
        kept = json.loads("".join([piece async for piece in read_capsule(parts.capsules, A.id)]))
        assert kept["cause"] == "stalled"
        assert kept["evidence"].startswith("3 requests run, and no iteration or token was counted for")
        last = parts.roster.instances[A.id].status().last_exit
        assert last is not None
        assert last.cause is ExitCause.STALLED


@pytest.mark.asyncio
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("why", ["moves", "idle", "paused"])
async def test_an_engine_that_does_not_hang_is_left_alone(tmp_path: Path, why: str) -> None:
    looks = itertools.count()
    with assembled(tmp_path) as parts:
        if why == "paused":
            parts.http.resting.add(URL)
        counted = iter(looks)
        await serving(
            parts,
            running=0 if why == "idle" else 1,
            steps=lambda: next(counted) if why == "moves" else min(next(counted), 0),
        )
        await until(lambda: next(looks) > 200, what="looked at more often than the threshold needs")
        assert parts.state_of("chat-0") is InstanceState.READY
        assert len(parts.backend.requests) == 1


@pytest.mark.asyncio
@pytest.mark.usefixtures("quick")
async def test_an_engine_that_answers_no_health_check_any_more_is_restarted(tmp_path: Path) -> None:
    with assembled(tmp_path) as parts:
        await serving(parts, running=0, steps=lambda: 1)
        parts.http.health_of[URL] = REFUSED
        await until(lambda: len(parts.backend.requests) == 2, what="restarted")
        kept = json.loads(parts.capsules.last(A.id))
        assert (kept["cause"], kept["evidence"][:30]) == ("stalled", "every health check has failed ")


def test_stacks_say_what_threads_wait_for() -> None:
    text = stacks_of([os.getpid(), 2**22 + 1])
    first, *threads = text.splitlines()
    assert first.startswith(f"pid {os.getpid()} ")
    assert "state R" in first
    assert any(" x " in line for line in threads)
    assert stacks_of([]) == ""


@pytest.mark.process
@pytest.mark.asyncio
async def test_the_fake_engine_hangs_and_comes_back(host: AgentHost, central: FakeCentral) -> None:
    await host.connect()
    hanging = desired("fake-0", args={"fake-hang": True}, stall_s=1.5)
    busy = desired("fake-1", devices=("slot-1",), args={"fake-itl-ms": 20.0}, stall_s=1.5)
    await central.desire(hanging, busy)
    await central.reached(InstanceState.READY, "fake-0", "fake-1")
    tree = members(central.instances["fake-0"].pid or 0)
    body = {"model": "m", "prompt": "x", "max_tokens": 200, "ignore_eos": True}

    async def ask(session: aiohttp.ClientSession, name: str) -> int:
        try:
            async with session.post(f"{central.instances[name].url}/v1/completions", json=body) as answer:
                await answer.read()
                return answer.status
        except aiohttp.ClientError:
            return 0

    async with aiohttp.ClientSession() as session:
        hung, served = (asyncio.create_task(ask(session, name)) for name in ("fake-0", "fake-1"))
        await central.sees(
            lambda c: any(event.data.get("to") == "degraded" for event in c.events), timeout_s=30.0
        )
        assert await hung == 0
        assert await served == 200, "four seconds of work are no hang"
    await all_gone(tree)
    await central.sees(lambda c: c.instances["fake-0"].restarts == 1)
    await central.reached(InstanceState.READY, "fake-0")
    last = central.instances["fake-0"].last_exit
    assert last is not None
    assert last.cause is ExitCause.STALLED
    assert central.instances["fake-1"].restarts == 0
    kept = json.loads(await central.answer("capsule", instance="fake-0"))
    assert kept["cause"] == "stalled"
    assert "VLLM::EngineCor" in kept["stacks"]
    assert (await central.answer("capsule", instance="fake-1")) == "[no abnormal end of fake-1 is kept]"
