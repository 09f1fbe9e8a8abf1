"""The fake engine, any other server by its command, and the registry."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from supervisord_cp.engines.base import Capabilities, LaunchRefused
from supervisord_cp.engines.command import CommandEngine
from supervisord_cp.engines.environment import base_environment
from supervisord_cp.engines.fake_launch import FakeEngine
from supervisord_cp.engines.registry import all_engines
from supervisord_cp.model.base import DeviceId
from supervisord_cp.model.instance import EngineLoad, ExitCause
from supervisord_cp.model.launch import EngineKind
from tests.engines.samples import context, recorded, spec

FOUND = Capabilities(executable="/usr/bin/server")
COMMAND = ("server", "--listen={host}:{port}", "--model", "{model}", "--gpus={devices}", '{"json": 1}')


def test_every_kind_that_can_be_launched_has_an_engine() -> None:
    assert set(all_engines()) == {kind.value for kind in EngineKind} - {EngineKind.NONE.value}
    assert all(engine.kind == kind for kind, engine in all_engines().items())


def test_the_fake_is_vllm_run_by_our_own_python() -> None:
    engine = FakeEngine()
    prepared = engine.prepare(spec(EngineKind.FAKE), context(), engine.probe(""))
    assert prepared.argv[:5] == (
        sys.executable,
        "-m",
        "supervisord_cp.engines.fake",
        "serve",
        "meta-llama/Llama-3.1-8B",
    )
    assert "--shutdown-timeout" in prepared.argv
    assert prepared.env["CUDA_VISIBLE_DEVICES"] == "3"
    assert (engine.metrics_path, engine.ready_path(spec(EngineKind.FAKE))) == ("/metrics", "/health")


def test_a_command_is_filled_in() -> None:
    asked = spec(EngineKind.COMMAND, model="m", command=COMMAND, env={"THREADS": "4"})
    prepared = CommandEngine().prepare(asked, context(), FOUND)
    assert prepared.argv == (
        "/usr/bin/server",
        "--listen=127.0.0.1:8000",
        "--model",
        "m",
        "--gpus=3",
        '{"json": 1}',
    )
    assert prepared.env == {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": "3",
        "SPT_NOENV": "1",
        "SUPERVISORD_CP_NONCE": "n0nce",
        "THREADS": "4",
    }


def test_what_is_filled_in_is_not_filled_in_again() -> None:
    asked = spec(EngineKind.COMMAND, model="{port}", command=("server", "{model}"))
    assert CommandEngine().prepare(asked, context(), FOUND).argv[1] == "{port}"


def test_slots_go_by_name() -> None:
    asked = spec(EngineKind.COMMAND, command=("server", "{devices}"))
    slots = context(device_kind="cpu", devices=(DeviceId("slot-0"), DeviceId("slot-1")), device_indexes=())
    assert CommandEngine().prepare(asked, slots, FOUND).argv[1] == "slot-0,slot-1"


def test_a_key_for_a_command() -> None:
    asked = spec(EngineKind.COMMAND, command=("server",))
    prepared = CommandEngine().prepare(asked, context(api_key="s3cret"), FOUND)
    assert prepared.env["SUPERVISORD_CP_API_KEY"] == "s3cret"
    assert prepared.secrets == {"SUPERVISORD_CP_API_KEY"}


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "needs `command`"),
        ({"command": ("server",), "args": {"seed": 1}}, "has no `args`"),
        ({"command": ("server", "a\0b")}, "NUL"),
        ({"command": ("server",), "env": {"SPT_NOENV": "0"}}, "SPT_NOENV cannot be set"),
    ],
)
def test_commands_that_are_refused(fields: dict[str, object], text: str) -> None:
    with pytest.raises(LaunchRefused, match=text):
        CommandEngine().prepare(spec(EngineKind.COMMAND, **fields), context(), FOUND)


def test_finding_the_program_of_a_command(tmp_path: Path) -> None:
    program = tmp_path / "server"
    with pytest.raises(LaunchRefused, match="not there, or not executable"):
        CommandEngine().probe(str(program))
    program.write_text("#!/bin/sh\n")
    with pytest.raises(LaunchRefused, match="not there, or not executable"):
        CommandEngine().probe(str(program))  # not executable
    program.chmod(0o755)
    assert CommandEngine().probe(str(program)) == Capabilities(executable=str(program))


def test_nothing_is_known_of_a_command_but_how_it_ended() -> None:
    engine = CommandEngine()
    asked = spec(EngineKind.COMMAND, command=("server",), ready_path="/ready")
    assert (engine.ready_path(asked), engine.metrics_path) == ("/ready", "")
    assert engine.load(recorded("metrics-0.32.txt")) == EngineLoad()
    assert engine.phase("Application startup complete") is None
    assert engine.classify(None, 9, "", was_ready=True) is ExitCause.KILLED


@pytest.mark.process
def test_the_fake_takes_our_flags() -> None:
    """It knows every flag that we give: with one more, unknown one, that one alone is complained of."""
    engine = FakeEngine()
    asked = spec(EngineKind.FAKE, args={"no-such-flag": 1, "disable-log-stats": False}, gpus=2)
    on = context(device_kind="cpu", devices=(DeviceId("slot-0"), DeviceId("slot-1")), device_indexes=())
    prepared = engine.prepare(asked, on, engine.probe(""))
    ended = subprocess.run(
        prepared.argv,
        env={"PATH": "/usr/bin:/bin", **prepared.env},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 2
    assert "unrecognized arguments: --no-such-flag 1" in ended.stderr.splitlines()[-1]


def run_fake(port: int, faults: dict[str, object]) -> "subprocess.Popen[str]":
    engine = FakeEngine()
    asked = spec(EngineKind.FAKE, env={"FAKE_VLLM": json.dumps(faults)})
    prepared = engine.prepare(asked, context(port=port), engine.probe(""))
    return subprocess.Popen(
        prepared.argv,
        env={**base_environment(os.environ), **prepared.env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@pytest.mark.process
@pytest.mark.parametrize(
    ("failure", "cause"),
    [
        ("configuration", ExitCause.CONFIGURATION),
        ("gated_repo", ExitCause.MODEL_ACCESS),
        ("cuda_oom", ExitCause.GPU_MEMORY),
        ("silent", ExitCause.UNKNOWN),
    ],
)
def test_the_fakes_failures_are_told_apart(failure: str, cause: ExitCause) -> None:
    server = run_fake(1, {"fail_start": failure})
    try:
        log, _ = server.communicate(timeout=60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
    assert server.returncode == 1
    assert FakeEngine().classify(server.returncode, None, log, was_ready=False) is cause, log
