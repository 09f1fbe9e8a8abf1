"""The stub driver, compiled once."""

from collections.abc import Iterator
from pathlib import Path
from subprocess import Popen

import pytest

from supervisord_cp.clock import ManualClock
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
