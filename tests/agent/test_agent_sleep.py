"""Putting a served fake engine to sleep and waking it, over HTTP."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from supervisord_cp.agent.engine_http import EngineHttp
from supervisord_cp.agent.launch import RunNotes
from supervisord_cp.agent.sleeping import Sleeper
from supervisord_cp.core.instances import events as ev
from supervisord_cp.core.instances.admission import Occupancy, admission
from supervisord_cp.engines.base import EngineCall, LaunchContext, SleepMode
from supervisord_cp.engines.vllm_sleep import sleep_mode
from supervisord_cp.model.base import DeviceId, InstanceId
from supervisord_cp.model.gpu import Gpu, Holder
from supervisord_cp.model.instance import InstanceState
from supervisord_cp.model.launch import EngineKind, LaunchSpec, RunState, SleepLevel
from supervisord_cp.model.reason import NO_REASON, ReasonCode
from supervisord_cp.ports.gpu import GpuReading
from tests.agent.fakes import FixedGpus, Parts, assembled
from tests.core.instances_kit import desired
from tests.engines_fake.serving import QUICK, Served, served
from tests.waiting import until

DEV = {"VLLM_SERVER_DEV_MODE": "1"}


def mode_of(level: SleepLevel) -> SleepMode:
    spec = LaunchSpec(engine=EngineKind.FAKE, model="m", served_names=(), sleep=level)
    context = LaunchContext(
        host="127.0.0.1",
        port=1,
        device_kind="cpu",
        devices=(),
        nonce="n",
        instance="chat-0",
        dev_mode=True,
    )
    mode = sleep_mode(spec, context, {}, ("cpu",))
    assert mode is not None
    return replace(
        mode, canary=EngineCall(path="/v1/completions", body={"prompt": "The capital", "max_tokens": 8})
    )


@asynccontextmanager
async def sleeper(
    engine: Served, mode: SleepMode | None, key: str = ""
) -> AsyncIterator[tuple[Sleeper, list[ev.LifeEvent]]]:
    notes = RunNotes(
        desired=desired(), host="127.0.0.1", port=engine.port, log_path="", api_key=key, sleep_mode=mode
    )
    events: list[ev.LifeEvent] = []
    http = EngineHttp()
    try:
        yield Sleeper(notes, http, events.append), events
    finally:
        await http.close()


@pytest.mark.asyncio
@pytest.mark.parametrize("level", [SleepLevel.LEVEL1, SleepLevel.LEVEL2])
async def test_it_sleeps_and_answers_as_before_when_it_is_awake(level: SleepLevel) -> None:
    async with (
        served(*QUICK, env={**DEV, "VLLM_API_KEY": "k"}) as engine,
        sleeper(engine, mode_of(level), "k") as (one, events),
    ):
        await one.sleep()
        answered, slept = events
        assert isinstance(answered, ev.Answered)
        assert slept == ev.FellAsleep()
        assert engine.engine.sleep_level == (1 if level is SleepLevel.LEVEL1 else 2)
        events.clear()
        await one.wake(answered.text)
        assert events == [ev.Woken()]
        assert engine.engine.sleep_level is None


@pytest.mark.asyncio
async def test_level_2_without_its_weights_is_found_out() -> None:
    mode = replace(mode_of(SleepLevel.LEVEL2), wake=(EngineCall(path="/wake_up"),))
    async with served(*QUICK, env=DEV) as engine, sleeper(engine, mode) as (one, events):
        await one.sleep()
        answered = events[0]
        assert isinstance(answered, ev.Answered)
        await one.wake(answered.text)
        failed = events[-1]
        assert isinstance(failed, ev.SleepFailed)
        assert "before it slept and answers" in str(failed.reason.params["error"])


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ({"sleep": (EngineCall(path="/nonsense"),)}, "POST /nonsense answers 404"),
        ({"sleep": ()}, "/is_sleeping says False"),
        ({"canary": EngineCall(path="/v1/embeddings", body={"input": "x"})}, "no completion"),
        ({"state_path": "/metrics"}, "/metrics says None"),
    ],
)
async def test_what_does_not_sleep_says_why(broken: dict[str, object], words: str) -> None:
    mode = replace(mode_of(SleepLevel.LEVEL1), **broken)
    async with served(*QUICK, env=DEV) as engine, sleeper(engine, mode) as (one, events):
        await one.sleep()
        failed = events[-1]
        assert isinstance(failed, ev.SleepFailed)
        assert words in str(failed.reason.params["error"])


@pytest.mark.asyncio
async def test_an_engine_without_sleep_mode_or_without_a_listener() -> None:
    async with served(*QUICK) as engine:
        async with sleeper(engine, None) as (one, events):
            await one.sleep()
        assert isinstance(events[-1], ev.SleepFailed)
    async with sleeper(engine, mode_of(SleepLevel.LEVEL1)) as (one, events):
        await one.wake("x")
    assert isinstance(events[-1], ev.SleepFailed)


MEMORY = 80 * 2**30


def gpu(used: int, *holders: Holder) -> Gpu:
    return Gpu(uuid=DeviceId("GPU-a"), index=0, memory_total=MEMORY, memory_used=used, holders=holders)


def may_wake(sample: Gpu, pids: frozenset[int], *, other: str = "") -> ReasonCode:
    wanted = desired(engine=EngineKind.VLLM, devices=("GPU-a",), args={"gpu-memory-utilization": 0.95})
    devices = {DeviceId("GPU-a"): InstanceId(other)} if other else {}
    return admission(
        wanted,
        occupancy=Occupancy(devices=devices, loading=9),
        known_devices={DeviceId("GPU-a")},
        gpus={DeviceId("GPU-a"): sample},
        max_loading=1,
        waking=pids,
    ).code


def test_what_a_sleeper_holds_itself_is_not_in_its_way() -> None:
    own = Holder(pid=7, owner="", command="", bytes=5 * 2**30)
    assert may_wake(gpu(5 * 2**30, own), frozenset({7})) is NO_REASON.code
    assert may_wake(gpu(5 * 2**30, own), frozenset()) is ReasonCode.AWAITING_MEMORY
    assert may_wake(gpu(70 * 2**30, own), frozenset({7})) is ReasonCode.AWAITING_MEMORY
    assert may_wake(gpu(0), frozenset(), other="other-0") is ReasonCode.AWAITING_DEVICE


async def _ready(parts: Parts, name: str) -> None:
    await until(lambda: parts.state_of(name) is InstanceState.READY, what=f"{name} ready")


@pytest.mark.asyncio
async def test_another_engine_has_the_device_while_one_sleeps(tmp_path: Path) -> None:
    first, second = desired("chat-0"), desired("code-0")
    with assembled(tmp_path, gpu=FixedGpus(GpuReading(gpus=()))) as parts:
        parts.take(first)
        await _ready(parts, "chat-0")
        parts.take(replace(first, run=RunState.SLEEPING), second)
        await until(lambda: parts.state_of("chat-0") is InstanceState.SLEEPING, what="asleep")
        await _ready(parts, "code-0")
        parts.take(first, second)
        await until(lambda: parts.state_of("chat-0") is InstanceState.GATED, what="waits for its device")
        parts.take(first, replace(second, run=RunState.SLEEPING))
        await _ready(parts, "chat-0")
        assert parts.state_of("code-0") is InstanceState.SLEEPING
        assert len(parts.backend.requests) == 2, "nothing was started again"
