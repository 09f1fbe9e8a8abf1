"""An agent with engines on a host with eight GPUs: the real probe over the stub of the driver."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from supervisord_cp.model.base import DeviceId
from supervisord_cp.model.gpu import Gpu, GpuHealth
from supervisord_cp.model.instance import InstanceState, InstanceStatus
from supervisord_cp.model.launch import EngineKind
from supervisord_cp.model.reason import ReasonCode, render
from tests.agent.daemon import AgentHost, alive, members
from tests.agent.fake_central import FakeCentral
from tests.core.instances_kit import desired
from tests.fakes.nvml_stub import StubDriver

pytestmark = [pytest.mark.process, pytest.mark.asyncio]

GIB = 2**30
FOR_GOOD = 10**9


def gpus(central: FakeCentral) -> tuple[Gpu, ...]:
    """All GPUs as they were last reported."""
    return next((report.gpus for report in reversed(central.reports) if report.gpus), ())


def gpu(central: FakeCentral, index: int) -> Gpu:
    """A GPU as it was last reported, by the number in its name; unknown before the first reading."""
    name = DeviceId(f"GPU-{index}")
    unknown = Gpu(uuid=name, index=index, health=GpuHealth.UNKNOWN)
    return next((one for one in gpus(central) if one.uuid == name), unknown)


def reason(central: FakeCentral, name: str) -> str:
    return render(central.instances[name].reason)


def engine_of(central: FakeCentral, name: str) -> tuple[InstanceStatus, int]:
    status = central.instances[name]
    assert status.pid is not None
    return status, status.pid


def visible(pid: int) -> str:
    variables = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(variable.partition("=")[::2] for variable in variables)["CUDA_VISIBLE_DEVICES"]


def hold(driver: StubDriver, index: int, pid: int, gib: int, lag_ms: int = 0) -> None:
    """A process takes memory of a GPU, which comes back so long after its end."""
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    driver.add("process", uuid=f"GPU-{index}", pid=pid, start=ticks, bytes=gib * GIB, lag_ms=lag_ms)


async def ready(central: FakeCentral, *names: str) -> None:
    await central.reached(InstanceState.READY, *names)


async def test_a_start_waits_for_the_memory_of_an_outsider(
    host: AgentHost, central: FakeCentral, driver: StubDriver, bystander: "subprocess.Popen[bytes]"
) -> None:
    vllm = host.folder / "vllm"
    vllm.write_text(f'#!/bin/sh\nexec {sys.executable} -m supervisord_cp.engines.fake "$@"\n')
    vllm.chmod(0o755)
    host.allow = {"executables": [str(vllm)]}
    hold(driver, 1, bystander.pid, 20)
    await host.connect()
    wanted = [
        desired(
            f"chat-{number}",
            engine=EngineKind.VLLM,
            executable=str(vllm),
            devices=(f"GPU-{number}",),
            args={"gpu-memory-utilization": 0.8},
        )
        for number in range(2)
    ]
    await central.desire(*wanted)
    await ready(central, "chat-0")
    await central.reached(InstanceState.GATED, "chat-1")
    await central.sees(lambda c: c.instances["chat-1"].reason.code is ReasonCode.AWAITING_MEMORY)
    assert reason(central, "chat-1").startswith(
        "waiting for 64.0 GiB of GPU memory, 60.0 GiB free; held by pid "
    )
    assert f"pid {bystander.pid} (" in reason(central, "chat-1")
    await central.sees(lambda c: gpu(c, 1).holders)
    (holder,) = gpu(central, 1).holders
    assert (holder.pid, holder.bytes, holder.instance) == (bystander.pid, 20 * GIB, "")
    bystander.kill()
    bystander.wait()
    await ready(central, "chat-1")


async def test_an_ended_engine_is_releasing_until_its_memory_is_back(
    host: AgentHost, central: FakeCentral, driver: StubDriver
) -> None:
    await host.connect()
    chat = host.engine("chat-0", devices=("GPU-4",))
    await central.desire(chat)
    await ready(central, "chat-0")
    status, pid = engine_of(central, "chat-0")
    hold(driver, 4, pid, 30, lag_ms=FOR_GOOD)
    await central.sees(lambda c: [one.instance for one in gpu(c, 4).holders] == ["chat-0"])
    os.kill(pid, signal.SIGKILL)
    await central.reached(InstanceState.RELEASING, "chat-0")
    assert reason(central, "chat-0") == "ended; the driver still holds 30.0 GiB of the memory of GPU-4"
    await central.desire(chat, host.engine("chat-1", devices=("GPU-4",)))
    await central.reached(InstanceState.GATED, "chat-1")
    assert reason(central, "chat-1") == "waiting for GPU-4, which chat-0 still uses"
    assert central.instances["chat-0"].state is InstanceState.RELEASING
    driver.change("process", {"pid": pid}, lag_ms=0)
    await central.sees(
        lambda c: InstanceState.READY in (c.instances["chat-0"].state, c.instances["chat-1"].state)
    )
    states = [e.data["to"] for e in central.events if e.kind == "instance.state" and e.subject == "chat-0"]
    assert states[states.index("ready") :][:2] == ["ready", "releasing"]
    assert central.instances["chat-0"].incarnation == status.incarnation or not alive(pid)


async def test_a_gpu_that_falls_off_the_bus_costs_its_own_engine_only(
    host: AgentHost, central: FakeCentral, driver: StubDriver
) -> None:
    await host.connect()
    wanted = [host.engine(f"chat-{number}", devices=(f"GPU-{number}",)) for number in (2, 3)]
    await central.desire(*wanted)
    await ready(central, "chat-2", "chat-3")
    well, survivor = engine_of(central, "chat-2")
    _, victim = engine_of(central, "chat-3")
    assert [visible(pid) for pid in (survivor, victim)] == ["2", "3"]
    driver.add("xid", uuid="GPU-3", code=79)
    driver.change("gpu", {"uuid": "GPU-3"}, open=15)
    await central.sees(lambda c: gpu(c, 3).health is GpuHealth.LOST)
    assert render(gpu(central, 3).health_reason) == "Xid 79: fallen off the bus"
    os.kill(victim, signal.SIGKILL)
    await central.reached(InstanceState.GATED, "chat-3")
    assert reason(central, "chat-3") == "waiting for GPU-3, which is lost (Xid 79: fallen off the bus)"
    # The driver is loaded again without it: the others are counted anew.
    driver.remove("gpu", uuid="GPU-3")
    for index in range(4, 8):
        driver.change("gpu", {"uuid": f"GPU-{index}"}, index=index - 1)
    await central.sees(lambda c: gpu(c, 7).index == 6)
    await central.desire(*wanted, host.engine("chat-5", devices=("GPU-5",)))
    await ready(central, "chat-5")
    assert visible(engine_of(central, "chat-5")[1]) == "GPU-5"
    assert central.instances["chat-2"].incarnation == well.incarnation
    assert gpu(central, 3).health is GpuHealth.LOST


async def test_errors_are_told_by_what_they_mean_and_remembered(
    host: AgentHost, central: FakeCentral, driver: StubDriver
) -> None:
    await host.connect()
    await central.desire(host.engine("chat-0", devices=("GPU-0",)))
    await ready(central, "chat-0")
    before, pid = engine_of(central, "chat-0")
    tree = members(pid)
    driver.add("xid", uuid="GPU-0", code=48)
    driver.add("xid", uuid="GPU-1", code=31)
    driver.change("gpu", {"uuid": "GPU-2"}, recovery=1)
    await central.sees(lambda c: gpu(c, 0).health is GpuHealth.QUARANTINED)
    await central.sees(lambda c: gpu(c, 2).health is GpuHealth.QUARANTINED)
    assert [gpu(central, index).signs.xids for index in (0, 1, 2)] == [{48: 1}, {31: 1}, {}]
    assert gpu(central, 1).health is GpuHealth.HEALTHY, "that was an application's fault"
    assert render(gpu(central, 2).health_reason) == "the driver asks for: gpu reset"
    await central.sees(lambda c: {"gpu.xid", "gpu.health"} <= {event.kind for event in c.events})
    assert central.instances["chat-0"].state is InstanceState.READY, "what serves is left alone"
    await host.end(signal.SIGKILL)
    await host.connect()
    await ready(central, "chat-0")
    await central.sees(lambda c: gpu(c, 0).health is not GpuHealth.UNKNOWN)
    assert gpu(central, 0).health is GpuHealth.QUARANTINED, "the next agent knows"
    assert members(pid) == tree
    assert central.instances["chat-0"].incarnation == before.incarnation


async def test_a_call_that_never_returns_delays_nothing(
    host: AgentHost, central: FakeCentral, driver: StubDriver
) -> None:
    await host.connect()
    await central.desire(host.engine("chat-0", devices=("GPU-0",)))
    await ready(central, "chat-0")
    driver.add("hang", call="nvmlDeviceGetMemoryInfo")
    await central.sees(lambda c: gpu(c, 0).age_ms > 1500)
    first, pid = engine_of(central, "chat-0")
    os.kill(pid, signal.SIGKILL)
    await central.reached(InstanceState.CRASHED, "chat-0")
    await ready(central, "chat-0")
    assert central.instances["chat-0"].incarnation != first.incarnation
    assert gpu(central, 0).memory_used == 0
    assert gpu(central, 0).age_ms > 2500, "old figures are shown as old"


async def test_mig_devices_and_groups_see_what_they_were_given(
    host: AgentHost, central: FakeCentral, driver: StubDriver
) -> None:
    driver.change("gpu", {"uuid": "GPU-1"}, mig=1)
    driver.add("mig", parent=1, slot=0, uuid="MIG-x", name="H100 MIG 3g.40gb", total=40 * GIB)
    driver.add("mig", parent=1, slot=3, uuid="MIG-y", name="H100 MIG 3g.40gb", total=40 * GIB)
    await host.connect()
    await central.desire(
        host.engine("chat-0", devices=("MIG-y",)), host.engine("chat-1", devices=("GPU-3", "GPU-2"))
    )
    await ready(central, "chat-0", "chat-1")
    seen = [visible(engine_of(central, name)[1]) for name in ("chat-0", "chat-1")]
    assert seen == ["MIG-y", "GPU-3,GPU-2"], "CUDA and NVML count differently beside a GPU in MIG mode"
    driver.add("xid", uuid="GPU-1", code=95)
    driver.add("xid", uuid="GPU-2", code=119)
    await central.sees(
        lambda c: (
            {one.uuid for one in gpus(c) if one.health is GpuHealth.QUARANTINED}
            == {"MIG-x", "MIG-y", "GPU-2"}
        )
    )
    os.kill(engine_of(central, "chat-1")[1], signal.SIGKILL)
    await central.reached(InstanceState.GATED, "chat-1")
    expected = "waiting for GPU-2, which is quarantined (Xid 119: GSP firmware does not answer)"
    assert reason(central, "chat-1") == expected
