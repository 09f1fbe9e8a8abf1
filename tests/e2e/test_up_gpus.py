"""`supervisord-cp up` on a host with GPUs: a stub of the driver, and the fake engine as its vLLM."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.e2e.local import Up, running
from tests.fakes.nvml_stub import StubDriver, build_library

pytestmark = pytest.mark.process
GIB = 2**30


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[StubDriver]:
    """Three GPUs; somebody else's process holds memory of the second."""
    try:
        library = build_library(tmp_path)
    except FileNotFoundError:
        pytest.skip("gcc is missing: the stub of libnvidia-ml.so.1 cannot be compiled")
    driver = StubDriver(library, tmp_path / "nvml-state")
    for index in range(3):
        driver.add("gpu", index=index, uuid=f"GPU-{index}", name="H200", total=141 * GIB, util=0)
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as stranger:
        driver.add("process", uuid="GPU-1", pid=stranger.pid, bytes=20 * GIB)
        yield driver
        stranger.communicate()


@pytest.fixture
def vllm(tmp_path: Path) -> Path:
    program = tmp_path / "vllm"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m supervisord_cp.engines.fake "$@"\n')
    program.chmod(0o755)
    return program


def device_of(up: Up, instance: str) -> str:
    return psutil.Process(up.instances()[instance]["pid"]).environ()["CUDA_VISIBLE_DEVICES"]


def test_one_engine_on_each_free_gpu(tmp_path: Path, driver: StubDriver, vllm: Path) -> None:
    with running(tmp_path, "org/Model-1B", "--vllm", str(vllm), environ=driver.environ) as up:
        up.ready()
        assert up.output.startswith("2 of 3 GPUs free: two vLLM engines with org/Model-1B.\n")
        assert {device_of(up, "model-1b-0"), device_of(up, "model-1b-1")} == {"0", "2"}
        use = {item["index"]: item["use"] for item in up.look("gpus")}
        assert use == {0: "serving", 1: "foreign", 2: "serving"}
        assert "foreign" in up.ask("gpus").stdout
        assert '"model": "org/Model-1B"' in up.curl


def test_engines_of_two_gpus(tmp_path: Path, driver: StubDriver, vllm: Path) -> None:
    words = ("m", "--vllm", str(vllm), "--", "--tensor-parallel-size", "2")
    with running(tmp_path, *words, environ=driver.environ) as up:
        up.ready()
        assert device_of(up, "m-0") == "0,2"


def test_vllm_is_found_on_the_path(tmp_path: Path, driver: StubDriver, vllm: Path) -> None:
    environ = {**driver.environ, "PATH": f"{tmp_path}:{driver.environ['PATH']}"}
    with running(tmp_path, "--replicas", "1", environ=environ) as up:
        up.ready()
        assert up.output.startswith("2 of 3 GPUs free: one vLLM engine with Qwen/Qwen2.5-0.5B-Instruct.\n")


def test_without_a_vllm_it_says_so_and_runs_fakes(tmp_path: Path, driver: StubDriver) -> None:
    environ = {**driver.environ, "PATH": str(tmp_path)}
    with running(tmp_path, environ=environ) as up:
        up.ready()
        assert up.output.startswith(
            "A GPU, but no vLLM on PATH (install it, or --vllm PATH): two fake engines "
        )


def test_a_gpu_that_cannot_be_read_is_not_free(tmp_path: Path, driver: StubDriver, vllm: Path) -> None:
    driver.add("gpu", index=3, uuid="GPU-3", total=GIB)
    driver.change("gpu", {"index": 0}, error=999)
    with running(tmp_path, "m", "--vllm", str(vllm), environ=driver.environ) as up:
        up.ready()
        assert up.output.startswith("2 of 4 GPUs free")
