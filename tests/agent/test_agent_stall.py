"""Engines that hang: with engines in memory, and with the fake engine's real processes."""

import asyncio
import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest
from msgspec.structs import replace

from supervisord_cp.adapters.stacks import stacks_of
from supervisord_cp.agent import incarnation, pulse
from supervisord_cp.agent.capsules import read_capsule
from supervisord_cp.agent.engine_http import EngineHttp
from supervisord_cp.agent.launch import RunNotes
from supervisord_cp.agent.pulse import PULSE_S, Pulse
from supervisord_cp.engines.base import EngineCall
from supervisord_cp.engines.vllm import VllmEngine
from supervisord_cp.model.instance import EngineLoad, ExitCause, InstanceState
from supervisord_cp.model.launch import DesiredInstance
from supervisord_cp.model.reason import ReasonCode
from supervisord_cp.wire import messages as m
from tests.agent.daemon import AgentHost, all_gone, members
from tests.agent.fake_central import FakeCentral
from tests.agent.fakes import REFUSED, Parts, assembled
from tests.core.instances_kit import desired
from tests.waiting import until

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


class Quiet:
    """An engine's HTTP side that answers when it is told to."""

    def __init__(self) -> None:
        self.calls: list[EngineCall] = []
        self.answers = asyncio.Event()
        self.rests_now = False

    async def rests(self, url: str, paths: tuple[str, ...], key: str) -> bool:
        return self.rests_now

    async def call(self, url: str, call: EngineCall, key: str, timeout_s: float) -> bytes:
        self.calls.append(call)
        await self.answers.wait()
        return b"{}"


def idle(tokens: float = 5, **figures: Any) -> EngineLoad:
    return EngineLoad(running=0, waiting=0, iterations_total=9, generation_tokens_total=tokens, **figures)


async def pulse_of(http: Quiet, wanted: DesiredInstance = A) -> Pulse:
    notes = RunNotes(desired=wanted, host="127.0.0.1", port=100, log_path="")
    return Pulse(VllmEngine(), notes, cast("EngineHttp", http))


@pytest.mark.asyncio
async def test_an_idle_engine_is_asked_and_the_question_counts_as_work() -> None:
    http = Quiet()
    feeling = await pulse_of(http)
    for second in range(round(PULSE_S) + 1):
        assert feeling.look(idle(), second) == idle(), "not before its time"
    await until(lambda: http.calls, what="asked")
    assert feeling.look(idle(), PULSE_S + 1).running == 1
    assert feeling.without(EngineLoad(running=1, generation_tokens_total=5)).running == 0, (
        "nobody else sees it"
    )
    http.answers.set()
    await until(lambda: feeling.look(idle(6), PULSE_S + 2).running == 0, what="answered")
    assert feeling.without(idle(6)) == idle(5)
    assert len(http.calls) == 1


@pytest.mark.asyncio
@pytest.mark.parametrize("why", ["works", "sleeps", "rests", "switched off", "waits"])
async def test_who_need_not_be_asked_is_not(why: str) -> None:
    http = Quiet()
    http.rests_now = why == "rests"
    feeling = await pulse_of(http, desired("chat-0", stall_s=0.0) if why == "switched off" else A)
    for second in range(3 * round(PULSE_S)):
        figures = idle(second if why == "works" else 5, asleep=why == "sleeps")
        feeling.look(replace(figures, waiting=3) if why == "waits" else figures, second)
        await asyncio.sleep(0)
    assert http.calls == []
    feeling.close()


@pytest.mark.asyncio
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("hangs", [True, False])
async def test_a_core_that_hangs_while_it_is_idle_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hangs: bool
) -> None:
    monkeypatch.setattr(pulse, "PULSE_S", 0.05)
    with assembled(tmp_path) as parts:
        if hangs:
            parts.http.answers.clear()
        await serving(parts, running=0, steps=lambda: 7)
        await until(lambda: parts.http.asked > 2 or len(parts.backend.requests) == 2, what="asked")
        assert (len(parts.backend.requests) == 2) == hangs
        assert (parts.roster.instances[A.id].status().restarts == 1) == hangs


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
        await central.sees(lambda c: any(event.data.get("to") == "degraded" for event in c.events))
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
    assert (await central.answer("capsule", instance="fake-1")) == "[none that its node remembers]"
