"""The memory of an engine that is gone: what is held, what is waited for, what is shown."""

import asyncio

import pytest
from msgspec.structs import replace

from supervisord_cp.agent.release import PATIENCE_S, READING_S, MemoryReturn
from supervisord_cp.clock import ManualClock
from supervisord_cp.core.instances import events as ev
from supervisord_cp.core.instances.life import Stage
from supervisord_cp.core.instances.release import TOLERANCE, baseline_of, read_since, still_held
from supervisord_cp.model.base import DeviceId
from supervisord_cp.model.gpu import Gpu, GpuHealth, Holder
from supervisord_cp.model.instance import ExitCause, InstanceState
from supervisord_cp.model.reason import NO_REASON, Reason, ReasonCode, render
from tests import waiting
from tests.core.instances_kit import Driver
from tests.fakes.gpu import FakeGpu, gpu
from tests.waiting import until

GIB = 2**30
A = gpu(0).uuid
HELD = Reason(code=ReasonCode.RELEASING_MEMORY, params={"held": "30.0 GiB", "gpu": A})


def used(total: int, *held: int, **fields: object) -> dict[str, Gpu]:
    holders = tuple(Holder(pid=pid, owner="", command="", bytes=size) for pid, size in enumerate(held, 1))
    return {A: replace(gpu(0, used=total), holders=holders, **fields)}


def test_memory_without_an_owner_is_what_the_driver_still_holds() -> None:
    baseline = baseline_of([A], used(3 * GIB, 2 * GIB))
    assert baseline == {A: GIB}
    assert still_held(baseline, used(GIB + TOLERANCE)) == NO_REASON
    assert still_held(baseline, used(31 * GIB)) == HELD
    assert render(HELD) == f"ended; the driver still holds 30.0 GiB of the memory of {A}"
    assert still_held(baseline, used(32 * GIB, 31 * GIB)) == NO_REASON, "another process's"


@pytest.mark.parametrize(
    "gpus",
    [
        {},
        used(31 * GIB, health=GpuHealth.UNKNOWN),
        used(31 * GIB, health=GpuHealth.LOST),
        used(31 * GIB, 0),
        {A: replace(gpu(0), memory_used=None)},
    ],
    ids=["no GPU", "unknown", "lost", "no sizes", "no figure"],
)
def test_when_nobody_can_tell_nothing_is_waited_for(gpus: dict[str, Gpu]) -> None:
    assert baseline_of([A], gpus) == {}
    assert still_held({A: GIB}, gpus) == NO_REASON


@pytest.mark.parametrize(
    ("gpus", "fresh"),
    [
        (used(0, age_ms=400), True),
        (used(0, age_ms=600), False),
        (used(0, age_ms=60_000, health=GpuHealth.UNKNOWN), True),
        ({}, True),
    ],
)
def test_a_sample_from_before_the_end_says_nothing(gpus: dict[str, Gpu], fresh: bool) -> None:
    assert read_since([A], gpus, gone_s=0.5) is fresh


def test_releasing_is_a_state_between_the_end_and_what_follows() -> None:
    driver = Driver()
    driver.to_ready()
    driver.feed(ev.Releasing(reason=HELD))
    assert driver.state is InstanceState.READY, "only of what has ended"
    driver.feed(ev.Exited(signal=9), ev.Releasing(reason=HELD))
    assert driver.state is InstanceState.RELEASING
    assert driver.life.stage is Stage.CRASHED
    driver.feed(ev.Gone(cause=ExitCause.GPU_FAULT))
    assert driver.state is InstanceState.BACKOFF
    assert [event.data["to"] for event in driver.events if event.kind == "instance.state"][-3:] == [
        "ready",
        "releasing",
        "backoff",
    ]


def test_what_is_releasing_is_not_unkillable() -> None:
    driver = Driver()
    driver.to_ready()
    driver.feed(ev.Removed(), ev.Exited(), ev.Releasing(reason=HELD), after=100.0)
    assert driver.state is InstanceState.RELEASING
    driver.feed(ev.Gone())
    assert driver.life.stage is Stage.ABSENT


class Wait:
    """One wait under way."""

    def __init__(self, driver: FakeGpu, clock: ManualClock) -> None:
        memory = MemoryReturn(driver, clock)
        driver.put(gpu(0, used=GIB))
        self.baseline = memory.baseline([A])
        self.said: list[str] = []
        self.task = asyncio.create_task(self._run(memory))

    async def _run(self, memory: MemoryReturn) -> None:
        async for reason in memory.awaited(self.baseline):
            self.said.append(str(reason.params["held"]))

    async def until_said(self, *held: str) -> None:
        await until(lambda: self.said == list(held))


@pytest.mark.asyncio
async def test_the_wait_ends_when_the_memory_is_back(clock: ManualClock) -> None:
    driver = FakeGpu(gpu(0), clock=clock)
    await driver.start()
    wait = Wait(driver, clock)
    driver.put(gpu(0, used=31 * GIB))
    await asyncio.sleep(0)
    clock.advance(1.0)
    await wait.until_said("30.0 GiB")
    driver.put(gpu(0, used=11 * GIB))
    await wait.until_said("30.0 GiB", "10.0 GiB")
    driver.put(gpu(0, used=GIB))
    async with asyncio.timeout(waiting.PATIENCE_S):
        await wait.task


@pytest.mark.asyncio
async def test_the_wait_has_an_end(clock: ManualClock) -> None:
    driver = FakeGpu(gpu(0), clock=clock)
    await driver.start()
    wait = Wait(driver, clock)
    driver.put(gpu(0, used=31 * GIB))
    await asyncio.sleep(0)
    clock.advance(1.0)
    await wait.until_said("30.0 GiB")
    clock.advance(PATIENCE_S)
    async with asyncio.timeout(waiting.PATIENCE_S):
        await wait.task


@pytest.mark.asyncio
async def test_a_driver_that_hangs_does_not_hold_a_restart_up(clock: ManualClock) -> None:
    driver = FakeGpu(gpu(0), clock=clock)
    await driver.start()
    wait = Wait(driver, clock)
    await asyncio.sleep(0)
    driver.silence()
    clock.advance(READING_S + 0.1)
    async with asyncio.timeout(waiting.PATIENCE_S):
        await wait.task
    assert wait.said == []


@pytest.mark.asyncio
async def test_without_gpus_there_is_nothing_to_compare_with(clock: ManualClock) -> None:
    driver = FakeGpu(clock=clock)
    await driver.start()
    assert MemoryReturn(driver, clock).baseline([DeviceId("slot-0")]) == {}
