"""What every GpuPort does: the real reader over the stub driver, and the fake that other tests use."""

from collections.abc import AsyncIterator, Callable
from subprocess import Popen
from typing import Protocol

import pytest
import pytest_asyncio

from supervisord_cp.adapters.nvml import NvmlReader, ProbeTiming
from supervisord_cp.clock import ManualClock
from supervisord_cp.model.base import DeviceId
from supervisord_cp.model.gpu import Gpu, GpuHealth
from supervisord_cp.model.reason import NO_REASON, ReasonCode
from supervisord_cp.ports.gpu import GpuPort, GpuReading
from tests.fakes.gpu import FakeGpu, gpu
from tests.fakes.nvml_stub import StubDriver
from tests.gpu.waiting import reading_when

pytestmark = pytest.mark.process

GIB = 2**30
QUICK = ProbeTiming(
    interval_s=0.02, silent_s=0.5, recheck_s=0.1, first_delay_s=0.02, longest_delay_s=0.1, first_line_s=20.0
)


class Rig(Protocol):
    """A port, and a hand on its driver."""

    port: GpuPort

    def put(self, one: Gpu) -> None: ...
    def hold(self, uuid: DeviceId, process: "Popen[bytes]", used: int) -> None: ...
    def end(self, process: "Popen[bytes]") -> None: ...
    def lose(self, uuid: DeviceId) -> None: ...
    def remove(self, uuid: DeviceId) -> None: ...
    def silence(self) -> None: ...
    def answer(self) -> None: ...


class FakeRig:
    def __init__(self, clock: ManualClock) -> None:
        self.port = self._fake = FakeGpu(clock=clock)
        self.put = self._fake.put
        self.silence = self._fake.silence
        self.answer = self._fake.answer
        self.lose = self._fake.lose
        self.remove = self._fake.remove

    def hold(self, uuid: DeviceId, process: "Popen[bytes]", used: int) -> None:
        self._fake.hold(uuid, process.pid, used)

    def end(self, process: "Popen[bytes]") -> None:
        self._fake.release(process.pid)


class NvmlRig:
    def __init__(self, clock: ManualClock, driver: StubDriver) -> None:
        self.port = NvmlReader(clock=clock, environ=driver.environ, timing=QUICK)
        self._driver = driver

    def put(self, one: Gpu) -> None:
        self._driver.remove("gpu", uuid=one.uuid)
        self._driver.add(
            "gpu",
            index=one.index,
            uuid=one.uuid,
            name=one.name,
            total=one.memory_total or 0,
            base=one.memory_used or 0,
        )

    def hold(self, uuid: DeviceId, process: "Popen[bytes]", used: int) -> None:
        self._driver.add("process", uuid=uuid, pid=process.pid, bytes=used)

    def end(self, process: "Popen[bytes]") -> None:
        process.kill()

    def lose(self, uuid: DeviceId) -> None:
        self._driver.change("gpu", {"uuid": uuid}, open=15)

    def remove(self, uuid: DeviceId) -> None:
        self._driver.remove("gpu", uuid=uuid)

    def silence(self) -> None:
        self._driver.add("hang", call="nvmlDeviceGetMemoryInfo")

    def answer(self) -> None:
        self._driver.remove("hang")


@pytest.fixture(params=["fake", "nvml"])
def make_rig(request: pytest.FixtureRequest, clock: ManualClock) -> Callable[[], Rig]:
    if request.param == "fake":
        return lambda: FakeRig(clock)
    driver: StubDriver = request.getfixturevalue("driver")
    return lambda: NvmlRig(clock, driver)


@pytest_asyncio.fixture
async def rig(make_rig: Callable[[], Rig]) -> AsyncIterator[Rig]:
    one = make_rig()
    yield one
    await one.port.stop()


def answered(reading: GpuReading) -> bool:
    return reading.gpus is not None


def health(index: int, wanted: GpuHealth) -> Callable[[GpuReading], bool]:
    return lambda reading: bool(reading.gpus) and reading.gpus[index].health is wanted


def only(reading: GpuReading) -> Gpu:
    (one,) = reading.gpus or ()
    return one


def used(wanted: int) -> Callable[[GpuReading], bool]:
    """One GPU with so much memory in use, with holders that fit it (the two are read one after the other)."""

    def holds(reading: GpuReading) -> bool:
        return (
            bool(reading.gpus)
            and only(reading).memory_used == wanted
            and (sum(holder.bytes for holder in only(reading).holders) == wanted - 1 * GIB)
        )

    return holds


def test_nothing_is_known_before_the_start(rig: Rig) -> None:
    assert rig.port.read() == GpuReading(gpus=None, reason=rig.port.read().reason)
    assert rig.port.read().reason.code is ReasonCode.GPUS_NOT_READ_YET


@pytest.mark.asyncio
async def test_no_gpu_is_not_unknown(rig: Rig) -> None:
    await rig.port.start()
    reading = await reading_when(rig.port, answered)
    assert reading.gpus == ()
    assert reading.reason.code is ReasonCode.NO_GPU


@pytest.mark.asyncio
async def test_gpus_come_by_index_with_their_memory(rig: Rig) -> None:
    rig.put(gpu(1, total=80 * GIB, used=3 * GIB))
    rig.put(gpu(0, total=40 * GIB, used=1 * GIB, name="NVIDIA A100-SXM4-40GB"))
    await rig.port.start()
    reading = await reading_when(rig.port, answered)
    assert reading.reason == NO_REASON
    assert [
        (one.index, one.uuid, one.name, one.memory_total, one.memory_used) for one in reading.gpus or ()
    ] == [
        (0, gpu(0).uuid, "NVIDIA A100-SXM4-40GB", 40 * GIB, 1 * GIB),
        (1, gpu(1).uuid, "NVIDIA H100 80GB HBM3", 80 * GIB, 3 * GIB),
    ]


@pytest.mark.asyncio
async def test_memory_follows_the_processes_that_hold_it(rig: Rig, bystander: "Popen[bytes]") -> None:
    rig.put(gpu(0, used=1 * GIB))
    await rig.port.start()
    rig.hold(gpu(0).uuid, bystander, 30 * GIB)
    held = await reading_when(rig.port, used(31 * GIB))
    assert [(holder.pid, holder.bytes) for holder in only(held).holders] == [(bystander.pid, 30 * GIB)]
    rig.end(bystander)
    free = await reading_when(rig.port, used(1 * GIB))
    assert only(free).holders == ()


@pytest.mark.asyncio
async def test_a_lost_gpu_stays_with_its_last_figures(rig: Rig, clock: ManualClock) -> None:
    rig.put(gpu(0))
    rig.put(gpu(1, used=5 * GIB))
    await rig.port.start()
    await reading_when(rig.port, health(1, GpuHealth.HEALTHY))
    clock.advance(0.25)
    rig.lose(gpu(1).uuid)
    reading = await reading_when(rig.port, health(1, GpuHealth.LOST))
    clock.advance(3.0)
    gpus = rig.port.read().gpus or ()
    assert [one.uuid for one in gpus] == [gpu(0).uuid, gpu(1).uuid]
    assert gpus[1].memory_used == 5 * GIB
    assert gpus[1].age_ms >= 3000
    assert (reading.gpus or ())[0].health is GpuHealth.HEALTHY


@pytest.mark.asyncio
async def test_a_gpu_that_is_listed_no_more_is_lost_and_comes_back(rig: Rig) -> None:
    rig.put(gpu(0))
    rig.put(gpu(1))
    await rig.port.start()
    await reading_when(rig.port, health(1, GpuHealth.HEALTHY))
    rig.remove(gpu(1).uuid)
    await reading_when(rig.port, health(1, GpuHealth.LOST))
    rig.put(gpu(1))
    await reading_when(rig.port, health(1, GpuHealth.HEALTHY))


@pytest.mark.asyncio
async def test_a_silent_driver_lets_samples_age_until_they_are_unknown(rig: Rig, clock: ManualClock) -> None:
    rig.put(gpu(0, used=7 * GIB))
    await rig.port.start()
    await reading_when(rig.port, health(0, GpuHealth.HEALTHY))
    rig.silence()
    await reading_when(rig.port, lambda reading: reading.reason.code is ReasonCode.GPU_DRIVER_SILENT)
    clock.advance(15.0)
    one = only(rig.port.read())
    assert one.health is GpuHealth.UNKNOWN
    assert one.memory_used == 7 * GIB
    assert 15_000 <= one.age_ms < 60_000
    rig.answer()
    back = await reading_when(rig.port, health(0, GpuHealth.HEALTHY))
    assert back.reason == NO_REASON


@pytest.mark.asyncio
async def test_a_driver_that_never_answers_is_unknown_not_empty(
    make_rig: Callable[[], Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.gpu.test_gpu_port.QUICK", ProbeTiming(first_line_s=0.3, first_delay_s=0.02))
    rig = make_rig()
    rig.put(gpu(0))
    rig.silence()
    await rig.port.start()
    try:
        reading = await reading_when(
            rig.port, lambda reading: reading.reason.code is ReasonCode.GPU_DRIVER_SILENT
        )
        assert reading.gpus is None
    finally:
        await rig.port.stop()


@pytest.mark.asyncio
async def test_stopping_twice_or_before_the_start_is_harmless(rig: Rig) -> None:
    await rig.port.stop()
    await rig.port.start()
    await rig.port.stop()
    await rig.port.stop()
