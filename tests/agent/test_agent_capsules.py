"""Crash capsules: what they hold, what they never hold, how many and how large."""

import contextlib
import json
import os
import stat
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from supervisord_cp.agent import post_mortem
from supervisord_cp.agent.capsules import (
    KEPT,
    KEPT_OF_ONE,
    MAX_BYTES,
    Capsules,
    NoCapsule,
    encoded,
    read_capsule,
    superfluous,
)
from supervisord_cp.agent.gpu_timeline import KEPT_S, GpuTimeline
from supervisord_cp.clock import ManualClock
from supervisord_cp.model.base import DeploymentName, DeviceId, Incarnation, InstanceId
from supervisord_cp.model.capsule import Capsule
from supervisord_cp.model.gpu import Gpu, GpuSigns
from supervisord_cp.model.instance import ExitCause, InstanceState
from supervisord_cp.model.launch import EngineKind, RunState
from supervisord_cp.ports.gpu import GpuReading
from supervisord_cp.ports.process import ExitStatus
from tests.agent.daemon import AgentHost
from tests.agent.fake_central import FakeCentral
from tests.agent.fakes import FixedGpus, Parts, assembled
from tests.core.instances_kit import desired
from tests.waiting import until

A = desired("chat-0")
CANARY = "canary-3f9a77c1"


def capsule(name: str = "chat-0", **changes: object) -> Capsule:
    made = Capsule(
        instance=InstanceId(name),
        deployment=DeploymentName("chat"),
        incarnation=Incarnation(f"{name}.1"),
        revision="r",
        engine="fake",
        model="m",
    )
    return replace(made, **changes)


async def crashed(parts: Parts, status: ExitStatus) -> dict:
    """Let a serving engine end and be started again; the capsule as central gets it."""
    await until(lambda: parts.state_of("chat-0") is InstanceState.READY, what="ready")
    parts.backend.processes[A.id].end(status)
    await until(lambda: len(parts.backend.requests) == 2, what="started again")
    return json.loads("".join([piece async for piece in read_capsule(parts.capsules, A.id)]))


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("xid", "cause", "expected"),
    [
        (79, ExitCause.ENGINE_DEAD, ExitCause.GPU_FAULT),
        (48, ExitCause.STALLED, ExitCause.GPU_FAULT),
        (31, ExitCause.UNKNOWN, ExitCause.GPU_FAULT),
        (43, ExitCause.ENGINE_DEAD, ExitCause.ENGINE_DEAD),  # reports such an end, whatever its cause
        (79, ExitCause.CONFIGURATION, ExitCause.CONFIGURATION),
        (79, ExitCause.KILLED, ExitCause.KILLED),
    ],
)
async def test_an_xid_of_its_gpu_explains_the_end(
    tmp_path: Path, xid: int, cause: ExitCause, expected: ExitCause
) -> None:
    gpu = Gpu(uuid=DeviceId("slot-0"), index=3, signs=GpuSigns(xids={63: 2}))
    other = replace(gpu, uuid=DeviceId("slot-1"), index=1, signs=GpuSigns())
    gpus = FixedGpus(GpuReading(gpus=(gpu, other)))
    with assembled(tmp_path, gpu=gpus) as parts:
        parts.engine.cause = cause
        parts.take(A)
        await until(lambda: parts.state_of("chat-0") is InstanceState.READY, what="ready")
        parts.timeline.sample()
        seen = replace(gpu, signs=GpuSigns(xids={63: 2, xid: 1}))
        gpus.reading = GpuReading(gpus=(seen, replace(other, signs=GpuSigns(xids={95: 1}))))
        parts.backend.processes[A.id].end(ExitStatus(code=1))
        await until(lambda: parts.roster.instances[A.id].status().restarts == 1, what="its end")
        last = parts.roster.instances[A.id].status().last_exit
        assert last is not None
        assert last.cause is expected
        assert (f"Xid {xid} on GPU 3: " in last.detail) == (expected is ExitCause.GPU_FAULT)


@pytest.mark.asyncio
async def test_an_abnormal_end_is_kept_with_its_evidence(tmp_path: Path) -> None:
    gpu = Gpu(uuid=DeviceId("slot-0"), index=0, memory_used=7, utilization=0.5)
    other = replace(gpu, uuid=DeviceId("slot-1"), index=1)
    with assembled(tmp_path, gpu=FixedGpus(GpuReading(gpus=(gpu, other)))) as parts:
        (tmp_path / "chat-0.log").write_text("INFO: serving\nRuntimeError: something new\n")
        parts.timeline.sample()
        parts.take(A)
        kept = await crashed(parts, ExitStatus(code=3))
        assert kept["cause"] == "engine_dead"
        assert kept["evidence"] == "RuntimeError: something new"
        assert (kept["code"], kept["served"], kept["phase"]) == (3, True, "ready")
        assert kept["revision"] == A.revision
        assert kept["log_tail"].endswith("RuntimeError: something new\n")
        assert [(one["uuid"], one["memory_used"]) for one in kept["gpus"]] == [("slot-0", 7)]
        assert kept["incarnation"] == parts.roster.instances[A.id].life.history.ended


@pytest.mark.asyncio
async def test_an_end_just_after_a_rotation_is_kept_with_what_was_before_it(tmp_path: Path) -> None:
    with assembled(tmp_path) as parts:
        (tmp_path / "chat-0.log.previous").write_text("the incarnation before\n")
        (tmp_path / "chat-0.log.2").write_text("long ago\n")
        for old in ("chat-0.log.previous", "chat-0.log.2"):
            os.utime(tmp_path / old, (1000, 1000))
        (tmp_path / "chat-0.log.1").write_text("RuntimeError: something new\n")
        (tmp_path / "chat-0.log").write_text("INFO: good bye\n")
        parts.take(A)
        kept = await crashed(parts, ExitStatus(code=3))
        assert kept["log_tail"] == "RuntimeError: something new\nINFO: good bye\n"
        assert kept["evidence"] == "RuntimeError: something new"


@pytest.mark.asyncio
async def test_an_end_that_was_asked_for_is_not_kept(tmp_path: Path) -> None:
    with assembled(tmp_path) as parts:
        parts.take(A)
        await until(lambda: parts.state_of("chat-0") is InstanceState.READY)
        parts.take(replace(A, run=RunState.STOPPED))
        await until(lambda: parts.state_of("chat-0") is InstanceState.STOPPED)
        with pytest.raises(NoCapsule):
            parts.capsules.last(A.id)


@pytest.mark.asyncio
@pytest.mark.parametrize("source", ["environment", "engine key", "deployment"])
async def test_no_secret_gets_into_a_capsule_a_report_or_our_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, source: str
) -> None:
    caplog.set_level("DEBUG")
    environ = {"PATH": "/bin", **({"HF_TOKEN": CANARY} if source == "environment" else {})}
    wanted = desired("chat-0", env={"MY_API_KEY": CANARY}) if source == "deployment" else A
    with assembled(tmp_path, loopback=False, environ=environ) as parts:
        parts.launcher.allow = replace(parts.launcher.allow, env=("MY_API_KEY",))
        parts.reporter.begin()
        parts.take(wanted)
        await until(lambda: parts.state_of("chat-0") is InstanceState.READY)
        request = parts.backend.requests[0]
        secret = request.env["VLLM_API_KEY"] if source == "engine key" else CANARY
        assert secret in request.env.values()
        log = f"INFO: started with {secret}\nRuntimeError: {secret} was refused by http://u:{secret}@host\n"
        (tmp_path / "chat-0.log").write_text(log)
        kept = await crashed(parts, ExitStatus(code=1))
        parts.reporter.flush()
        assert kept["evidence"].startswith("RuntimeError: *** was refused")
        assert secret not in json.dumps(kept)
        assert secret not in caplog.text
        assert not any(secret in argument for argument in request.argv)
        said = [message for message in parts.sent if type(message).__name__ != "EngineKeys"]
        assert len(said) > 1
        assert secret not in repr(said)
        files = [path for path in (tmp_path / "capsules").iterdir() if secret in path.read_text()]
        assert files == []


@pytest.mark.asyncio
async def test_a_disk_that_takes_no_capsule_costs_the_capsule_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "capsules").touch()
    with assembled(tmp_path) as parts:
        parts.take(A)
        await until(lambda: parts.state_of("chat-0") is InstanceState.READY)
        parts.backend.processes[A.id].end(ExitStatus(code=1))
        await until(lambda: len(parts.backend.requests) == 2, what="started again")
    assert "no capsule is kept of chat-0." in caplog.text


@pytest.mark.asyncio
async def test_a_text_that_the_rules_choke_on_is_kept_as_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def choke(*_: object) -> None:
        raise ValueError("a log that nobody has seen before")

    monkeypatch.setattr(post_mortem, "diagnose", choke)
    with assembled(tmp_path) as parts:
        parts.take(A)
        assert (await crashed(parts, ExitStatus(code=1))).get("cause", "unknown") == ExitCause.UNKNOWN


def test_capsules_are_private_and_the_newest_is_last(tmp_path: Path) -> None:
    capsules = Capsules(tmp_path)
    for number in range(KEPT_OF_ONE + 3):
        capsules.add(capsule(code=number))
    capsules.add(capsule("chat-0-1", code=99))
    kept = list((tmp_path / "capsules").iterdir())
    assert len(kept) == KEPT_OF_ONE + 1
    assert {stat.S_IMODE(path.stat().st_mode) for path in kept} == {0o600}
    assert stat.S_IMODE((tmp_path / "capsules").stat().st_mode) == 0o700
    assert json.loads(Capsules(tmp_path).last(InstanceId("chat-0")))["code"] == KEPT_OF_ONE + 2
    with pytest.raises(NoCapsule):
        capsules.last(InstanceId("chat-1"))


@given(st.lists(st.sampled_from("abcdefgh"), max_size=200), st.integers(1, 10), st.integers(1, 4))
def test_the_newest_are_kept_and_nobody_pushes_out_everybody(names: list[str], most: int, own: int) -> None:
    kept = [(number, name, Path(str(number))) for number, name in enumerate(names)]
    gone = superfluous(kept, most, own)
    left = [one for one in kept if one not in gone]
    assert len(left) <= most
    assert all(count <= own for count in Counter(name for _, name, _ in left).values())
    assert len(left) == min(most, sum(min(own, count) for count in Counter(names).values()))
    if names:
        assert kept[-1] in left
    assert KEPT_OF_ONE < KEPT


@settings(deadline=None)
@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=400), st.integers(0, 3000))
def test_a_capsule_is_bounded_and_keeps_the_end_of_the_log(text: str, repeat: int) -> None:
    tail = f"{text * repeat}the last words"
    data = encoded(capsule(log_tail=tail, stacks=text * repeat))
    assert len(data) <= MAX_BYTES
    assert json.loads(data)["log_tail"].endswith("the last words")


def test_the_timeline_is_the_last_minute(tmp_path: Path) -> None:
    clock, gpus = ManualClock(), FixedGpus(GpuReading(gpus=None))
    timeline = GpuTimeline(gpus, clock)
    timeline.sample()
    assert timeline.of([DeviceId("GPU-1")]) == ()
    for used in range(100):
        gpus.reading = GpuReading(gpus=(Gpu(uuid=DeviceId("GPU-1"), index=0, memory_used=used, age_ms=500),))
        timeline.sample()
        timeline.sample()
        clock.advance(1.0)
    found = timeline.of([DeviceId("GPU-1")])
    assert [sample.memory_used for sample in found] == list(range(100 - len(found), 100))
    assert found[0].before_s <= KEPT_S + 1.5
    assert found[-1].before_s == 1.5
    assert len(found) == KEPT_S + 1


def command_lines() -> list[bytes]:
    """Of all processes of this machine."""
    found = []
    for path in Path("/proc").glob("[1-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(path.read_bytes())
    return found


@pytest.mark.process
@pytest.mark.asyncio
async def test_a_token_of_the_node_is_nowhere_but_in_environments(
    host: AgentHost, central: FakeCentral
) -> None:
    """The engine prints it and crashes; then everything that the agent has written is searched."""
    host.environ = {**os.environ, "HF_TOKEN": CANARY}
    await host.connect()
    program = "import os; print('RuntimeError: bad token ' + os.environ['HF_TOKEN']); raise SystemExit(3)"
    crashing = desired("chat-0", engine=EngineKind.COMMAND, command=(sys.executable, "-c", program))
    await central.desire(crashing, host.engine("chat-1", 1))
    await central.reached(InstanceState.READY, "chat-1")
    await central.reached(InstanceState.BACKOFF, "chat-0")
    assert CANARY in (host.log_dir / "chat-0.log").read_text(), "the engine's own log is the engine's"
    kept = await central.answer("capsule", instance="chat-0")
    assert json.loads(kept)["evidence"] == "RuntimeError: bad token ***"
    said = repr((central.reports, central.events, central.hellos))
    files = [path for path in host.state_dir.rglob("*") if path.is_file()]
    assert any(path.parent.name == "capsules" for path in files)
    written = [kept, said, host.log(), *(path.read_text(errors="replace") for path in files)]
    assert not any(CANARY in text for text in written)
    commands = command_lines()
    assert any(b"keeper" in command for command in commands)
    assert not any(CANARY.encode() in command for command in commands)
