"""The whole system on a host with GPUs: a replica whose GPU falls off the bus comes up on another one."""

import os
import signal
import sys
from pathlib import Path

import pytest

from tests.e2e.local import Up, running
from tests.fakes.nvml_stub import StubDriver
from tests.waiting import eventually

pytestmark = pytest.mark.process

GIB = 2**30


def test_a_crash_on_an_ill_gpu_goes_to_another_one(tmp_path: Path, driver: StubDriver) -> None:
    for index in range(2):
        driver.add("gpu", index=index, uuid=f"GPU-{index}", name="H200", total=141 * GIB)
    vllm = tmp_path / "vllm"
    vllm.write_text(f'#!/bin/sh\nexec {sys.executable} -m supervisord_cp.engines.fake "$@"\n')
    vllm.chmod(0o755)
    with running(tmp_path, "m", "--replicas", "1", "--vllm", str(vllm), environ=driver.environ) as up:
        up.ready()
        before = up.instances()["m-0"]
        (ill,) = before["gpus"]
        driver.add("xid", uuid=ill, code=79)
        driver.change("gpu", {"uuid": ill}, open=15)
        eventually(lambda: health(up)[ill] == "lost", "the GPU is seen to be lost")
        assert up.instances()["m-0"]["ready"], "what serves is left alone"
        os.kill(before["pid"], signal.SIGKILL)
        eventually(lambda: "m-1" in up.instances() and up.instances()["m-1"]["ready"], "m-1 is ready")
        (well,) = up.instances()["m-1"]["gpus"]
        assert well != ill
        assert "fallen off the bus" in up.ask("gpus").stdout
        eventually(lambda: list(up.instances()) == ["m-1"], "m-0 is removed")


def health(up: Up) -> dict[str, str]:
    return {gpu["uuid"]: gpu["health"] for gpu in up.look("gpus")}
