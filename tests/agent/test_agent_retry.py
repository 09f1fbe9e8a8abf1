"""Failures of engines and what the agent does about them: ports, mended launches, the OOM killer."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from supervisord_cp.adapters.oom import WINDOW_S, OomWatch
from supervisord_cp.agent import instance
from supervisord_cp.agent.inputs import inputs_of
from supervisord_cp.clock import ManualClock
from supervisord_cp.config.schema import AllowConfig
from supervisord_cp.model.instance import ExitCause, InstanceState
from supervisord_cp.ports.process import ExitStatus
from tests.agent.fakes import REFUSED, Parts, assembled
from tests.core.instances_kit import desired
from tests.waiting import until

A = desired("chat-0")


async def reached(parts: Parts, state: InstanceState) -> None:
    await until(lambda: parts.state_of("chat-0") is state, what=state)


async def start(parts: Parts) -> None:
    """An engine that does not come up."""
    for port in range(100, 110):
        parts.http.health_of[f"http://127.0.0.1:{port}"] = REFUSED
    parts.take(A)
    await reached(parts, InstanceState.STARTING)


@pytest.mark.asyncio
async def test_after_a_taken_port_the_next_start_gets_another(tmp_path: Path) -> None:
    with assembled(tmp_path) as parts:
        parts.engine.cause = ExitCause.PORT_TAKEN
        await start(parts)
        parts.backend.processes[A.id].end(ExitStatus(code=1))
        await until(lambda: len(parts.backend.requests) == 2, what="started again")
        assert [context.port for context in parts.engine.contexts] == [100, 101]
        assert len({context.internal_ports for context in parts.engine.contexts}) == 2


@pytest.mark.asyncio
async def test_a_mended_node_is_noticed_while_a_configuration_error_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instance, "EXAMINE_AGAIN_S", 0.01)
    with assembled(tmp_path) as parts:
        await start(parts)
        parts.backend.processes[A.id].end(ExitStatus(code=2))
        await reached(parts, InstanceState.BACKOFF)
        backend = parts.backend
    backend.found = [backend.processes[A.id]]
    with assembled(tmp_path, backend=backend) as parts:
        await parts.node.adopt()
        assert parts.state_of("chat-0") is InstanceState.BACKOFF, "the wait goes on in the next agent"
        assert parts.roster.instances[A.id].status().restarts == 1
        parts.launcher.allow = replace(parts.launcher.allow, env=("MORE_*",))
        await until(lambda: len(backend.requests) == 2, what="started again")


@pytest.mark.asyncio
async def test_a_kill_by_the_kernel_is_told_from_one_by_somebody(tmp_path: Path) -> None:
    vmstat = tmp_path / "vmstat"
    vmstat.write_text("nr_free_pages 7\noom_kill 3\n")
    with assembled(tmp_path) as parts:
        parts.engine.cause = ExitCause.KILLED
        parts.take(A)
        await reached(parts, InstanceState.READY)
        vmstat.write_text("nr_free_pages 7\noom_kill 5\n")
        parts.backend.processes[A.id].end(ExitStatus(signal=9))
        await reached(parts, InstanceState.BACKOFF)
        last = parts.roster.instances[A.id].status().last_exit
        assert last is not None
        assert last.cause is ExitCause.HOST_MEMORY
        assert "OOM killer ended 2 processes" in last.detail


def test_only_recent_kills_count(tmp_path: Path) -> None:
    clock, vmstat = ManualClock(), tmp_path / "vmstat"
    watch = OomWatch(clock, vmstat)
    assert watch.of([7], None).number == 0, "a kernel that does not count"
    vmstat.write_text("oom_kill 1\n")
    watch.look()
    clock.advance(2.0)
    vmstat.write_text("oom_kill 2\n")
    assert watch.of([7], None).number == 1
    clock.advance(WINDOW_S + 1.0)
    watch.look()
    clock.advance(1.0)
    assert watch.of([7], None).number == 0


def test_inputs_are_program_model_policy_and_environment(tmp_path: Path) -> None:
    model, program = tmp_path / "model", tmp_path / "vllm"
    model.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    spec = replace(desired("chat-0", executable=str(program), model=str(model)).spec, engine="vllm")
    environ = {"PATH": "/bin", "HF_TOKEN": "one", "SHLVL": "1"}

    def digest(**changes: str) -> str:
        return inputs_of(spec, AllowConfig(), {**environ, **changes})

    first = digest()
    assert digest(SHLVL="2") == first, "a terminal's own variables say nothing"
    assert digest(HF_TOKEN="two") != first
    assert inputs_of(spec, AllowConfig(dev_mode=True), environ) != first
    (model / "config.json").write_text("{}")
    second = digest()
    assert second != first
    (model / "config.json").write_text('{"max_position_embeddings": 4096}')
    assert digest() not in (first, second)
    third = digest()
    program.write_text("#!/bin/sh\nexec true\n")
    assert digest() != third
    program.unlink()
    assert digest() != third
