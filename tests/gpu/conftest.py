"""The stub driver, compiled once."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from subprocess import Popen

import pytest
import pytest_asyncio

from supervisord_cp.clock import ManualClock
from tests.agent.daemon import AgentHost
from tests.agent.fake_central import FakeCentral
from tests.fakes.nvml_stub import StubDriver, build_library


@pytest.fixture(scope="session")
def stub_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return build_library(tmp_path_factory.mktemp("nvml"))
    except FileNotFoundError:
        pytest.skip("gcc is missing: the stub of libnvidia-ml.so.1 cannot be compiled")


@pytest.fixture
def driver(stub_library: Path, tmp_path: Path) -> StubDriver:
    return StubDriver(stub_library, tmp_path / "nvml-state")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def bystander() -> Iterator["Popen[bytes]"]:
    """A process of somebody, with a secret among its options."""
    process = Popen(["/bin/sh", "-c", "read line", "train.py", "--token", "s3cret"], stdin=-1)
    yield process
    process.kill()
    process.wait()
    if process.stdin is not None:
        process.stdin.close()


@pytest_asyncio.fixture
async def central() -> AsyncIterator[FakeCentral]:
    fake = FakeCentral()
    await fake.start()
    yield fake
    await fake.stop()


@pytest_asyncio.fixture
async def host(tmp_path: Path, central: FakeCentral, driver: StubDriver) -> AsyncIterator[AgentHost]:
    """A host with eight GPUs, on which no agent runs yet."""
    for index in range(8):
        well = {"clocks": 0, "ecc": 0, "remap_pending": 0, "remap_failed": 0, "recovery": 0}
        driver.add("gpu", index=index, uuid=f"GPU-{index}", name="NVIDIA H100", total=80 * 2**30, **well)
    agent = AgentHost(tmp_path, central, device="cuda")
    agent.environ = driver.environ
    yield agent
    await agent.clean()
