"""The real reader and its probe over the stub driver: what only they can get wrong."""

import asyncio
import getpass
import logging
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from supervisord_cp.adapters.nvml import NvmlReader, ProbeTiming, has_gpu
from supervisord_cp.clock import ManualClock
from supervisord_cp.model.gpu import GpuHealth, GpuSigns, RecoveryAction, Slowdown
from supervisord_cp.model.reason import NO_REASON, ReasonCode
from supervisord_cp.ports.gpu import GpuReading
from tests.fakes.nvml_stub import Fields, StubDriver
from tests.gpu.waiting import reading_when
from tests.waiting import PATIENCE_S, eventually, until

pytestmark = pytest.mark.process

GIB = 2**30
PATIENT = ProbeTiming(interval_s=0.02, first_delay_s=0.02, longest_delay_s=0.1, recheck_s=0.05)
HASTY = ProbeTiming(
    interval_s=0.02,
    first_line_s=0.3,
    silent_s=0.3,
    first_delay_s=0.02,
    longest_delay_s=0.02,
    kill_wait_s=0.05,
)


@pytest_asyncio.fixture
async def reader(driver: StubDriver, clock: ManualClock) -> AsyncIterator[NvmlReader]:
    reader = NvmlReader(clock=clock, environ=driver.environ, timing=PATIENT)
    yield reader
    await reader.stop()


@pytest_asyncio.fixture
async def hasty(driver: StubDriver, clock: ManualClock) -> AsyncIterator[NvmlReader]:
    reader = NvmlReader(clock=clock, environ=driver.environ, timing=HASTY)
    yield reader
    await reader.stop()


def has_gpus(reading: GpuReading) -> bool:
    return bool(reading.gpus)


def probes() -> list[psutil.Process]:
    """The probes of this process that are alive."""
    return [
        child
        for child in psutil.Process().children()
        if child.status() != psutil.STATUS_ZOMBIE and any("nvml_probe" in word for word in child.cmdline())
    ]


def start_ticks(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


async def another_probe_than(pids: set[int]) -> psutil.Process:
    return (await until(lambda: [probe for probe in probes() if probe.pid not in pids]))[0]


@pytest.mark.asyncio
async def test_every_figure_arrives_in_its_unit(reader: NvmlReader, driver: StubDriver) -> None:
    driver.add("gpu", index=0, uuid="GPU-a", name="H200", total=141 * GIB, util=37, temp=41, mw=71500, mig=0)
    await reader.start()
    (one,) = (await reading_when(reader, has_gpus)).gpus or ()
    assert (one.utilization, one.temperature_c, one.power_w) == (0.37, 41.0, 71.5)
    assert (one.memory_total, one.memory_used) == (141 * GIB, 0)
    assert one.health is GpuHealth.HEALTHY


@pytest.mark.asyncio
async def test_what_a_gpu_does_not_offer_is_unknown_not_zero_and_no_illness(
    reader: NvmlReader, driver: StubDriver
) -> None:
    driver.add("gpu", index=0, uuid="GPU-a")
    await reader.start()
    (one,) = (await reading_when(reader, has_gpus)).gpus or ()
    assert (one.memory_total, one.memory_used, one.utilization, one.temperature_c, one.power_w) == (None,) * 5
    assert (one.name, one.holders, one.health) == ("", (), GpuHealth.HEALTHY)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("code", "health"),
    [(4, GpuHealth.HEALTHY), (15, GpuHealth.LOST), (16, GpuHealth.QUARANTINED), (999, GpuHealth.UNKNOWN)],
    ids=["no permission", "lost", "reset required", "unknown error"],
)
async def test_an_error_of_one_call_costs_its_field_and_tells_of_health(
    reader: NvmlReader, driver: StubDriver, code: int, health: GpuHealth
) -> None:
    driver.add("gpu", index=0, uuid="GPU-a", total=80 * GIB, mw=70000)
    driver.add("gpu", index=1, uuid="GPU-b", mw=70000)
    driver.add("fail", call="nvmlDeviceGetPowerUsage", uuid="GPU-a", code=code)
    await reader.start()
    first, second = (await reading_when(reader, has_gpus)).gpus or ()
    assert (first.power_w, first.memory_total, first.health) == (None, 80 * GIB, health)
    assert (second.power_w, second.health) == (70.0, GpuHealth.HEALTHY)


@pytest.mark.asyncio
async def test_a_gpu_that_was_lost_before_the_first_sweep_is_shown_without_its_name(
    reader: NvmlReader, driver: StubDriver
) -> None:
    driver.add("gpu", index=0, uuid="GPU-a")
    driver.add("gpu", index=1, uuid="GPU-b", open=15)
    await reader.start()
    gpus = (await reading_when(reader, has_gpus)).gpus or ()
    assert [(one.uuid, one.health) for one in gpus] == [
        ("GPU-a", GpuHealth.HEALTHY),
        ("index-1", GpuHealth.LOST),
    ]
    driver.change("gpu", {"uuid": "GPU-b"}, open=0)
    again = await reading_when(
        reader, lambda reading: all(one.uuid[:4] == "GPU-" for one in reading.gpus or ())
    )
    assert [one.uuid for one in again.gpus or ()] == ["GPU-a", "GPU-b"]


@pytest.mark.asyncio
async def test_mig_devices_stand_for_the_gpu_that_they_are_cut_from(
    reader: NvmlReader, driver: StubDriver
) -> None:
    driver.add("gpu", index=0, uuid="GPU-a", total=80 * GIB, mig=0)
    driver.add("gpu", index=1, uuid="GPU-b", total=80 * GIB, mig=0)
    await reader.start()
    await reading_when(reader, has_gpus)
    driver.add("mig", parent=1, slot=0, uuid="MIG-x", name="H100 MIG 3g.40gb", total=40 * GIB, base=GIB)
    driver.add("mig", parent=1, slot=4, uuid="MIG-y", name="H100 MIG 1g.10gb", total=10 * GIB)
    driver.change("gpu", {"uuid": "GPU-b"}, mig=1)
    cut = await reading_when(reader, lambda reading: len(reading.gpus or ()) == 3)
    assert [(one.uuid, one.index, one.memory_total, one.health) for one in cut.gpus or ()] == [
        ("GPU-a", 0, 80 * GIB, GpuHealth.HEALTHY),
        ("MIG-x", 1, 40 * GIB, GpuHealth.HEALTHY),
        ("MIG-y", 1, 10 * GIB, GpuHealth.HEALTHY),
    ]
    driver.change("gpu", {"uuid": "GPU-b"}, mig=0)
    whole = await reading_when(reader, lambda reading: len(reading.gpus or ()) == 2)
    assert [one.uuid for one in whole.gpus or ()] == ["GPU-a", "GPU-b"]


@pytest.mark.asyncio
async def test_signs_of_a_gpus_condition_arrive(reader: NvmlReader, driver: StubDriver) -> None:
    well = {"clocks": 0, "ecc": 0, "remap_pending": 0, "remap_failed": 0, "recovery": 0}
    ill = {"clocks": 0x1FF, "ecc": 3, "remap_pending": 1, "remap_failed": 1, "recovery": 4}
    driver.add("gpu", index=0, uuid="GPU-a", **well)
    driver.add("gpu", index=1, uuid="GPU-b", **ill)
    driver.add("gpu", index=2, uuid="GPU-c")
    await reader.start()
    first, second, third = (await reading_when(reader, has_gpus)).gpus or ()
    assert first.signs == GpuSigns(
        ecc_uncorrected=0, remap_pending=False, remap_failed=False, recovery=RecoveryAction.NONE
    )
    assert second.signs == GpuSigns(
        slowdowns=(
            Slowdown.HARDWARE,
            Slowdown.HARDWARE_THERMAL,
            Slowdown.SOFTWARE_THERMAL,
            Slowdown.POWER_BRAKE,
        ),
        ecc_uncorrected=3,
        remap_pending=True,
        remap_failed=True,
        recovery=RecoveryAction.DRAIN_AND_RESET,
    )
    assert third.signs == GpuSigns(), "what a GPU does not offer is no sign"
    assert {one.health for one in (first, second, third)} == {GpuHealth.HEALTHY}, "judging is done elsewhere"


@pytest.mark.asyncio
async def test_xids_are_counted_and_old_ones_are_no_news(reader: NvmlReader, driver: StubDriver) -> None:
    driver.add("gpu", index=0, uuid="GPU-a")
    driver.add("gpu", index=1, uuid="GPU-b", mig=1)
    driver.add("mig", parent=1, slot=0, uuid="MIG-x")
    driver.add("xid", uuid="GPU-a", code=13)
    await reader.start()
    await reading_when(reader, has_gpus)
    for code in (31, 31, 79):
        driver.add("xid", uuid="GPU-a", code=code)
    driver.add("xid", uuid="GPU-b", code=48)
    reading = await reading_when(reader, lambda reading: 48 in (reading.gpus or ())[1].signs.xids)
    assert [(one.uuid, one.signs.xids) for one in reading.gpus or ()] == [
        ("GPU-a", {31: 2, 79: 1}),
        ("MIG-x", {48: 1}),
    ]
    driver.change("gpu", {"uuid": "GPU-a"}, open=15)
    probes()[0].kill()
    lost = await reading_when(reader, lambda reading: (reading.gpus or ())[0].health is GpuHealth.LOST)
    assert (lost.gpus or ())[0].signs.xids == {31: 2, 79: 1}, "counts outlive the probe and the GPU"


@pytest.mark.asyncio
async def test_a_wait_for_events_that_fails_says_nothing_of_any_gpu(
    reader: NvmlReader, driver: StubDriver
) -> None:
    driver.add("gpu", index=0, uuid="GPU-a", temp=40)
    driver.add("broken", call="nvmlEventSetWait_v2", code=999)
    await reader.start()
    await reading_when(reader, has_gpus)
    driver.change("gpu", {"uuid": "GPU-a"}, temp=41)
    (one,) = (
        await reading_when(reader, lambda reading: (reading.gpus or ())[0].temperature_c == 41.0)
    ).gpus or ()
    assert one.health is GpuHealth.HEALTHY


@pytest.mark.asyncio
async def test_holders_are_named_without_their_options(
    reader: NvmlReader, driver: StubDriver, bystander: "subprocess.Popen[bytes]"
) -> None:
    driver.add("gpu", index=0, uuid="GPU-a", total=80 * GIB)
    driver.add("process", uuid="GPU-a", pid=bystander.pid, bytes=GIB)
    driver.add("process", uuid="GPU-a", pid=os.getpid())
    await reader.start()
    (one,) = (await reading_when(reader, has_gpus)).gpus or ()
    first, second = one.holders
    assert (first.pid, first.owner, first.command) == (bystander.pid, getpass.getuser(), "/bin/sh")
    assert (second.pid, second.bytes) == (os.getpid(), 0)


@pytest.mark.asyncio
async def test_memory_of_an_ended_process_is_in_use_until_the_driver_lets_go(
    reader: NvmlReader, driver: StubDriver, bystander: "subprocess.Popen[bytes]"
) -> None:
    driver.add("gpu", index=0, uuid="GPU-a", total=80 * GIB)
    start = start_ticks(bystander.pid)
    process = {"uuid": "GPU-a", "pid": bystander.pid}
    driver.add("process", **process, start=start, bytes=9 * GIB, lag_ms=10**9)
    await reader.start()
    await reading_when(
        reader, lambda reading: has_gpus(reading) and bool(reading.gpus and reading.gpus[0].holders)
    )
    bystander.kill()
    bystander.wait()
    (lagging,) = (
        await reading_when(reader, lambda reading: bool(reading.gpus and not reading.gpus[0].holders))
    ).gpus or ()
    assert lagging.memory_used == 9 * GIB
    driver.change("process", dict(process), lag_ms=0)
    await reading_when(reader, lambda reading: bool(reading.gpus and reading.gpus[0].memory_used == 0))


@pytest.mark.asyncio
async def test_without_gpus_the_probe_ends_and_says_so_once(
    reader: NvmlReader, driver: StubDriver, caplog: pytest.LogCaptureFixture
) -> None:
    driver.add("driver", init=9)
    with caplog.at_level(logging.INFO, "supervisord_cp.adapters.nvml"):
        await reader.start()
        reading = await reading_when(reader, lambda reading: reading.gpus is not None)
        assert (reading.gpus, reading.reason.code) == ((), ReasonCode.NO_GPU)
        seen: set[int] = set()
        for _ in range(3):  # looked at again and again, without another word
            seen.add((await another_probe_than(seen)).pid)
    assert [record.getMessage() for record in caplog.records] == ["no GPU: Driver Not Loaded"]
    driver.remove("driver")
    driver.add("gpu", index=0, uuid="GPU-a")
    await reading_when(reader, has_gpus)


@pytest.mark.asyncio
async def test_a_host_without_gpus_has_no_probe_between_two_looks(
    driver: StubDriver, clock: ManualClock
) -> None:
    reader = NvmlReader(clock=clock, environ=driver.environ)
    await reader.start()
    try:
        reading = await reading_when(reader, lambda reading: reading.gpus is not None)
        assert reading.gpus == ()
        await until(lambda: not probes())
    finally:
        await reader.stop()


@pytest.mark.asyncio
async def test_gpus_of_a_driver_that_was_unloaded_are_unknown_not_gone(
    reader: NvmlReader, driver: StubDriver, clock: ManualClock
) -> None:
    driver.add("gpu", index=0, uuid="GPU-a")
    await reader.start()
    await reading_when(reader, has_gpus)
    driver.add("driver", init=9)
    probes()[0].kill()
    await reading_when(reader, lambda reading: reading.reason.code is ReasonCode.NO_GPU)
    clock.advance(11.0)
    (one,) = reader.read().gpus or ()
    assert (one.uuid, one.health) == ("GPU-a", GpuHealth.UNKNOWN)


@pytest.mark.asyncio
async def test_a_library_that_does_not_fit_its_driver_is_tried_again_in_a_new_process(
    reader: NvmlReader, driver: StubDriver
) -> None:
    driver.add("gpu", index=0, uuid="GPU-a")
    driver.add("driver", init=18)
    await reader.start()
    reading = await reading_when(reader, lambda reading: reading.reason.code is ReasonCode.PROBE_FAILED)
    assert reading.gpus is None
    assert "version mismatch" in str(reading.reason.params["error"])
    driver.remove("driver")
    await reading_when(reader, has_gpus)


@pytest.mark.asyncio
async def test_a_killed_probe_is_replaced(reader: NvmlReader, driver: StubDriver) -> None:
    driver.add("gpu", index=0, uuid="GPU-a", base=1, total=9)
    await reader.start()
    await reading_when(reader, has_gpus)
    (first,) = probes()
    first.kill()
    driver.change("gpu", {"uuid": "GPU-a"}, base=2)
    await reading_when(reader, lambda reading: bool(reading.gpus and reading.gpus[0].memory_used == 2))
    assert first.pid not in [probe.pid for probe in probes()]


@pytest.mark.asyncio
async def test_with_a_lost_gpu_the_library_is_opened_anew_from_time_to_time(
    reader: NvmlReader, driver: StubDriver
) -> None:
    driver.add("gpu", index=0, uuid="GPU-a", error=15)
    await reader.start()
    await reading_when(reader, has_gpus)
    (first,) = probes()
    await another_probe_than({first.pid})
    assert not first.is_running()
    assert reader.read().reason == NO_REASON


@pytest.mark.asyncio
async def test_a_hung_probe_is_killed_and_replaced(hasty: NvmlReader, driver: StubDriver) -> None:
    driver.add("gpu", index=0, uuid="GPU-a")
    driver.add("hang", call="nvmlDeviceGetName")
    await hasty.start()
    first = await another_probe_than(set())
    second = await another_probe_than({first.pid})
    assert second.pid != first.pid
    assert not first.is_running()


@pytest.mark.asyncio
async def test_only_one_probe_that_cannot_be_killed_is_left_behind(
    hasty: NvmlReader, driver: StubDriver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    driver.add("hang", call="nvmlInitWithFlags")
    monkeypatch.setattr("supervisord_cp.adapters.child.Child.kill", lambda process: None)  # as if in state D
    await hasty.start()
    first = await another_probe_than(set())
    second = await another_probe_than({first.pid})
    await until(lambda: sum("left behind" in record.getMessage() for record in caplog.records) == 2)
    await asyncio.sleep(HASTY.kill_wait_s * 4)  # room enough for a third, were one started
    assert {probe.pid for probe in probes()} == {first.pid, second.pid}
    first.kill()
    third = await another_probe_than({first.pid, second.pid})
    assert third.is_running()
    monkeypatch.undo()


def test_a_probe_that_hangs_does_not_outlive_its_parent(driver: StubDriver) -> None:
    driver.add("hang", call="nvmlInitWithFlags")
    source = (
        "import subprocess, sys; "
        "p = subprocess.Popen([sys.executable, '-m', 'supervisord_cp.adapters.nvml_probe']); "
        "print(p.pid, flush=True); p.wait()"
    )
    parent = subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, env=driver.environ)
    assert parent.stdout is not None
    probe = psutil.Process(int(parent.stdout.readline()))
    try:
        wait_until_it_hangs(probe)
        parent.kill()
        probe.wait(timeout=PATIENCE_S)
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
    assert not probe.is_running()


def wait_until_it_hangs(probe: psutil.Process) -> None:
    """Until it has loaded the library and sleeps."""
    eventually(
        lambda: (
            any("libnvidia-ml" in area.path for area in probe.memory_maps()) and probe.status() == "sleeping"
        ),
        "the probe calls the library",
    )


def test_has_gpu_sees_one(driver: StubDriver) -> None:
    driver.add("gpu", index=0, uuid="GPU-a")
    assert has_gpu(20.0, environ=driver.environ)


def test_has_gpu_counts_a_lost_one(driver: StubDriver) -> None:
    driver.add("gpu", index=0, uuid="GPU-a", open=15)
    assert has_gpu(20.0, environ=driver.environ)


def test_has_gpu_sees_none(driver: StubDriver, tmp_path: Path) -> None:
    assert not has_gpu(20.0, environ=driver.environ, driver_folder=tmp_path / "none")


@pytest.mark.parametrize(
    ("kind", "fields", "timeout_s"),
    [("hang", {"call": "nvmlInitWithFlags"}, 0.5), ("driver", {"init": 18}, 20.0)],
    ids=["hangs", "does not fit"],
)
def test_has_gpu_asks_the_kernel_when_the_driver_gives_no_answer(
    driver: StubDriver, tmp_path: Path, kind: str, fields: Fields, timeout_s: float
) -> None:
    driver.add(kind, **fields)
    listed = tmp_path / "gpus"
    assert not has_gpu(timeout_s, environ=driver.environ, driver_folder=listed)
    (listed / "0000:3b:00.0").mkdir(parents=True)
    assert has_gpu(timeout_s, environ=driver.environ, driver_folder=listed)
    assert probes() == []
