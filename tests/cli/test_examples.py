"""Examples of output in the documentation are what the program prints: where it prints another thing, copy
the left side of the failed comparison into the document."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from supervisord_cp.adapters.nvml_lines import ProbeLine
from supervisord_cp.cli.main import program
from supervisord_cp.doctor.finding import Finding
from supervisord_cp.doctor.gpus import gpu_findings
from supervisord_cp.doctor.host import room, secret_findings
from supervisord_cp.doctor.instances import failing
from supervisord_cp.model.base import DeviceId
from supervisord_cp.model.gpu import Gpu, GpuHealth, Holder
from tests.cli.conftest import Run
from tests.cli.samples import CRASHED, READY, STALLED, STARTING, STATUS
from tests.cli.stub import StubCentral
from tests.cli.test_explained import TOLD
from tests.shape.sources import ROOT

GIB = 2**30
LOWERED = "lowered to the maximum of 8: hpa asks for 12"


def example(document: str, command: str) -> str:
    """What a document says that a command prints."""
    text = (ROOT / "docs" / document).read_text()
    found = re.search(
        rf"^```console\n(?:.*\n)*?\$ {re.escape(command)}\n((?:(?!\$ |```).*\n)*)", text, re.MULTILINE
    )
    assert found, f"{document} has no example of {command}"
    return found[1]


def trimmed(output: str) -> str:
    """Without the blanks at the ends of lines."""
    return "\n".join(line.rstrip() for line in output.splitlines()) + "\n"


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_status(run: Run, central: StubCentral) -> None:
    problems = ["chat: 1 of 2 ready (1 starting)"]
    chat = STATUS["deployments"][0] | {"ready": 1, "starting": 1}
    instances = {"ready": 1, "starting": 1}
    central.says(
        "status",
        STATUS | {"healthy": False, "problems": problems, "deployments": [chat], "instances": instances},
    )
    assert trimmed(run("status").stdout) == example("cli.md", "supervisord-cp status")


def test_instances(run: Run, central: StubCentral) -> None:
    uuids = [[f"GPU-{each}-aaaa-bbbb-cccc-000000000000"] for each in ("5c1b2d3e", "90af1c77", "d2400b6a")]
    stalled = STALLED | {"node": "gpu-b", "pid": 2290, "kv_cache_usage": 0.97, "requests_waiting": 31}
    central.says(
        "instances",
        [READY, STARTING | {"pid": 41377, "gpus": uuids[1]}, CRASHED | {"gpus": uuids[2]}, stalled],
    )
    assert trimmed(run("instances").stdout) == example("cli.md", "supervisord-cp instances")


@pytest.mark.usefixtures("utc")
def test_explain_deployment(run: Run, central: StubCentral) -> None:
    rate = {"name": "prompt_tokens_per_s", "value": 9400.0, "age_s": 0.3, "window_s": 10.0}
    told = TOLD | {
        "deployment": TOLD["deployment"] | {"cannot_place": []},
        "decision": TOLD["decision"] | {"at": 1_769_868_311.0, "message": LOWERED},
        "inputs": [
            TOLD["inputs"][0] | {"value": 41.0, "age_s": 0.3},
            TOLD["inputs"][0] | rate,
        ],
        "proposals": [
            TOLD["proposals"][0]
            | {"replicas": 12.0, "message": "prompt_tokens_per_s is 9400, its target 800"}
        ],
        "limits": [TOLD["limits"][0] | {"before": 12, "message": LOWERED}],
        "otherwise": [
            TOLD["otherwise"][0] | {"then": 12, "because": "prompt_tokens_per_s is 9400, its target 800"}
        ],
        "thresholds": [TOLD["thresholds"][0] | {"signal": "prompt_tokens_per_s", "less_below": 5600.0}],
        "events": [],
    }
    central.says("explain/deployment/chat", told)
    shown = trimmed(run("explain", "deployment", "chat").stdout)
    assert shown == example("autoscaling.md", "supervisord-cp explain deployment chat")


CRASHING = {
    "id": "chat-1",
    "node": "gpu-a",
    "state": "backoff",
    "restarts": 4,
    "last_exit": {
        "cause": "gpu_memory",
        "age_s": 12.3,
        "detail": "torch.OutOfMemoryError: CUDA out of memory.",
    },
}


def test_doctor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The findings are made by what makes them on a host."""
    token = tmp_path / "agent-token"
    token.write_text("x\n")
    token.chmod(0o644)
    stranger = Holder(pid=4711, owner="bob", command="train.py", bytes=20 * GIB)
    gpus = tuple(
        Gpu(
            uuid=DeviceId(f"GPU-{number}"),
            index=number,
            name="NVIDIA H200",
            memory_total=141 * GIB,
            health=GpuHealth.HEALTHY,
            holders=(stranger,) * (number == 1),
        )
        for number in range(2)
    )

    def examine(config: object) -> Iterator[Finding]:
        yield room("[agent] state_dir", Path("/var/lib/supervisord-cp/agent"), int(64.8 * GIB), 252 * GIB)
        yield from secret_findings([("[agent] token_file", token)])
        yield from gpu_findings(ProbeLine(gpus=gpus), "cuda", ours=())
        yield from failing([CRASHING])

    monkeypatch.setattr("supervisord_cp.doctor.examine.examine", examine)
    config = tmp_path / "config.toml"
    config.write_text("")
    shown = CliRunner().invoke(program, ["doctor", "-c", str(config)])
    assert shown.exit_code == 3
    text = trimmed(shown.stdout).replace(str(tmp_path), "/etc/supervisord-cp")
    assert text == example("cli.md", "supervisord-cp doctor -c /etc/supervisord-cp/config.toml")


def test_explain_request(run: Run, central: StubCentral) -> None:
    decision = {
        "pick": "chat-2",
        "alternates": ["chat-1"],
        "left_out": ["chat-0"],
        "scores": {"chat-1": -1290.0, "chat-2": -412.0},
        "booked": {"chat-0": 4100, "chat-1": 1258, "chat-2": 380},
        "inflight": {"chat-0": 17, "chat-1": 6, "chat-2": 2},
        "policy": "within_load + load_balanced",
        "age_s": 12.0,
    }
    central.says("explain/request/4f6c-17", {"request": "4f6c-17", "decisions": {"gpu-a:9000/1": [decision]}})
    shown = trimmed(run("explain", "request", "4f6c-17").stdout)
    assert shown == example("cli.md", "supervisord-cp explain request 4f6c-17")
