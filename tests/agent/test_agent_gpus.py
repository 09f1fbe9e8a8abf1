"""An agent on a host with GPUs: the stub driver, read by the real reader."""

from pathlib import Path

import pytest

from supervisord_cp.model.instance import InstanceState
from supervisord_cp.model.reason import ReasonCode
from tests.agent.daemon import AgentHost
from tests.agent.fake_central import FakeCentral
from tests.agent.test_agent_daemon import pids
from tests.fakes.nvml_stub import StubDriver, build_library

pytestmark = [pytest.mark.process, pytest.mark.asyncio]

GIB = 2**30


@pytest.fixture(scope="session")
def stub_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return build_library(tmp_path_factory.mktemp("nvml"))
    except FileNotFoundError:
        pytest.skip("gcc is missing: the stub of libnvidia-ml.so.1 cannot be compiled")


@pytest.fixture
def driver(stub_library: Path, tmp_path: Path) -> StubDriver:
    stub = StubDriver(stub_library, tmp_path / "nvml-state")
    for index, name in enumerate("ab"):
        stub.add("gpu", index=index, uuid=f"GPU-{name}", total=80 * GIB, name="NVIDIA H100 80GB HBM3")
    return stub


async def test_engines_are_pinned_to_their_gpus_and_gpus_are_reported(
    host: AgentHost, central: FakeCentral, driver: StubDriver
) -> None:
    host.settings["device"] = "auto"
    host.environ = driver.environ
    await host.connect()
    inventory = central.hellos[-1].inventory
    assert inventory is not None
    assert (inventory.device, inventory.slots) == ("cuda", ())
    assert [gpu.uuid for gpu in central.reports[0].gpus or ()] == ["GPU-a", "GPU-b"]
    await central.desire(
        host.engine("chat-0", devices=("GPU-b",)),
        host.engine("chat-1", devices=("GPU-a",)),
        host.engine("chat-2", devices=("GPU-b",)),
        host.engine("chat-3", devices=("GPU-c",)),
    )
    await central.reached(InstanceState.READY, "chat-0", "chat-1")
    seen = {name: environ(pid) for name, pid in pids(central, "chat-0", "chat-1").items()}
    assert {name: env["CUDA_VISIBLE_DEVICES"] for name, env in seen.items()} == {"chat-0": "1", "chat-1": "0"}
    assert {env["CUDA_DEVICE_ORDER"] for env in seen.values()} == {"PCI_BUS_ID"}
    await central.reached(InstanceState.GATED, "chat-2", "chat-3")
    reasons = {name: central.instances[name].reason for name in ("chat-2", "chat-3")}
    assert {reason.code for reason in reasons.values()} == {ReasonCode.AWAITING_DEVICE}
    pid = pids(central, "chat-0")["chat-0"]
    driver.add("process", uuid="GPU-b", pid=pid, bytes=GIB)
    await central.sees(lambda c: "chat-0" in holders(c))


def holders(central: FakeCentral) -> list[str]:
    """Who holds GPU memory, as the latest report with figures says."""
    reports = [report for report in central.reports if report.gpus]
    return [holder.instance for gpu in reports[-1].gpus or () for holder in gpu.holders]


def environ(pid: int) -> dict[str, str]:
    variables = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(variable.partition("=")[::2] for variable in variables)
