"""The watch over GPUs: judged readings, news, and what the next agent knows."""

import asyncio
from pathlib import Path

import pytest
import pytest_asyncio
from msgspec.structs import replace

from supervisord_cp.agent.gpu_watch import GpuWatch
from supervisord_cp.agent.roster import Identity, Roster
from supervisord_cp.agent.state import StateDir
from supervisord_cp.clock import ManualClock
from supervisord_cp.core.instances.gpu_health import DEFAULT_POLICY
from supervisord_cp.model.event import Event, Severity
from supervisord_cp.model.gpu import Gpu, GpuHealth
from supervisord_cp.model.reason import ReasonCode
from tests.fakes.gpu import FakeGpu, gpu


class Host:
    """GPUs in memory, a state directory, and agents one after another."""

    def __init__(self, folder: Path, clock: ManualClock) -> None:
        self.folder = folder
        self.clock = clock
        self.driver = FakeGpu(gpu(0), gpu(1), clock=clock)

    def watch(self, boot: str = "this-boot") -> GpuWatch:
        return GpuWatch(self.driver, clock=self.clock, state=StateDir(self.folder, boot_id=boot))

    async def begin(self) -> None:
        """The host, or its agent, has started: counters begin anew."""
        self.driver = FakeGpu(gpu(0), gpu(1), clock=self.clock)
        await self.driver.start()

    async def told_by(self, watch: GpuWatch) -> list[Event]:
        """What it tells at one look."""
        told: list[Event] = []
        task = asyncio.create_task(watch.run(told.append))
        await asyncio.sleep(0)
        task.cancel()
        return told


@pytest_asyncio.fixture
async def host(tmp_path: Path, clock: ManualClock) -> Host:
    host = Host(tmp_path, clock)
    await host.begin()
    return host


def health(watch: GpuWatch) -> list[GpuHealth]:
    return [one.health for one in watch.read().gpus or ()]


def second(watch: GpuWatch) -> Gpu:
    return (watch.read().gpus or ())[1]


@pytest.mark.asyncio
async def test_readings_are_judged(host: Host) -> None:
    watch = host.watch()
    assert health(watch) == [GpuHealth.HEALTHY, GpuHealth.HEALTHY]
    host.clock.advance(5.0)
    host.driver.xid(gpu(1).uuid, 48)
    assert health(watch) == [GpuHealth.HEALTHY, GpuHealth.QUARANTINED]
    host.clock.advance(2.0)
    one = second(watch)
    assert (one.health_reason.code, one.health_age_ms) == (ReasonCode.GPU_XID, 2000)
    host.clock.advance(DEFAULT_POLICY.clean_s)
    assert health(watch) == [GpuHealth.HEALTHY, GpuHealth.HEALTHY]


@pytest.mark.asyncio
async def test_changes_and_xids_are_told_once(host: Host) -> None:
    watch = host.watch()
    assert await host.told_by(watch) == []
    for _ in range(3):
        host.driver.xid(gpu(0).uuid, 31)
    host.driver.xid(gpu(1).uuid, 79)
    told = await host.told_by(watch)
    assert [(event.kind, event.subject, event.message) for event in told] == [
        ("gpu.xid", gpu(0).uuid, "GPU 0: Xid 31, memory page fault, as a rule the application's"),
        ("gpu.xid", gpu(1).uuid, "GPU 1: Xid 79, fallen off the bus"),
        ("gpu.health", gpu(1).uuid, "GPU 1: quarantined: Xid 79: fallen off the bus"),
    ]
    assert told[0].data["count"] == 3
    assert told[2].severity is Severity.ERROR
    assert await host.told_by(watch) == []


@pytest.mark.asyncio
async def test_the_next_agent_of_this_boot_knows_what_the_last_one_knew(host: Host) -> None:
    first = host.watch()
    first.read()
    host.driver.xid(gpu(1).uuid, 79)
    first.read()
    await host.begin()
    host.clock.advance(10 * DEFAULT_POLICY.clean_s)
    assert health(host.watch()) == [GpuHealth.HEALTHY, GpuHealth.QUARANTINED]
    assert health(host.watch(boot="the next boot")) == [GpuHealth.HEALTHY, GpuHealth.HEALTHY]


@pytest.mark.asyncio
async def test_a_file_that_cannot_be_read_costs_the_memory_only(host: Host) -> None:
    host.watch().read()
    (host.folder / "gpus.json").write_text("{")
    assert health(host.watch()) == [GpuHealth.HEALTHY, GpuHealth.HEALTHY]


@pytest.mark.asyncio
async def test_unknown_stays_unknown(host: Host) -> None:
    await host.driver.stop()
    watch = host.watch()
    assert watch.read().gpus is None


@pytest.mark.asyncio
async def test_numbers_are_used_only_while_cuda_counts_as_nvml_does(host: Host) -> None:
    roster = Roster(Identity(name="n", device_kind="cuda", slots=()), host.watch())
    assert roster.device_indexes() == {gpu(0).uuid: 0, gpu(1).uuid: 1}
    host.driver.lose(gpu(0).uuid)
    assert roster.device_indexes() == {}, "does CUDA still count the lost one? by UUID it does not matter"
    host.driver.put(gpu(0))
    assert roster.device_indexes() == {gpu(0).uuid: 0, gpu(1).uuid: 1}
    host.driver.put(replace(gpu(1), index=0))
    assert roster.device_indexes() == {}, "numbers that cannot be"
    host.driver.put(replace(gpu(1), parent="GPU-p"))
    assert roster.device_indexes() == {}, "a MIG device has no number"
