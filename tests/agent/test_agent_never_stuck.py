"""Whatever goes wrong on the disk or in code of ours, no instance is left where only a human can help."""

from pathlib import Path

import pytest

from supervisord_cp.agent import instance, node
from supervisord_cp.engines.base import Capabilities
from supervisord_cp.model.instance import ExitCause, InstanceState
from supervisord_cp.model.reason import ReasonCode
from supervisord_cp.ports.process import ExitStatus
from tests.agent.fakes import Parts, assembled
from tests.core.instances_kit import desired
from tests.waiting import until

A = desired("chat-0")


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instance, "EXAMINE_AGAIN_S", 0.01)
    monkeypatch.setattr(node, "WRITE_AGAIN_S", 0.01)


async def reached(parts: Parts, state: InstanceState) -> None:
    await until(lambda: parts.state_of(A.id) is state, what=state)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "trouble",
    [
        PermissionError(13, "Permission denied", "/opt/vllm/bin/vllm"),
        FileNotFoundError(2, "No such file or directory", "/opt/vllm/arg_utils.py"),
        RuntimeError("can't start new thread"),
    ],
)
async def test_a_program_that_cannot_be_looked_at_is_looked_at_again(
    tmp_path: Path, trouble: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is just being upgraded, for instance."""

    def probe(executable: str) -> Capabilities:
        raise trouble

    with assembled(tmp_path) as parts, monkeypatch.context() as broken:
        broken.setattr(parts.engine, "probe", probe)
        parts.take(A)
        await reached(parts, InstanceState.GATED)
        held = parts.roster.instances[A.id]
        await until(lambda: held.status().reason.code is ReasonCode.EXECUTABLE_MISSING, what="says why")
        assert str(trouble) in str(held.status().reason.params["error"])
        broken.undo()
        await reached(parts, InstanceState.READY)


@pytest.mark.asyncio
async def test_a_start_whose_inputs_cannot_be_looked_at_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def inputs(of: object) -> str:
        raise RuntimeError("can't start new thread")

    with assembled(tmp_path) as parts, monkeypatch.context() as broken:
        broken.setattr(parts.launcher, "inputs", inputs)
        parts.take(A)
        await reached(parts, InstanceState.BACKOFF)
        broken.undo()
        await reached(parts, InstanceState.READY)


@pytest.mark.asyncio
async def test_a_log_that_cannot_be_read_keeps_nobody_from_starting_again(tmp_path: Path) -> None:
    """Reading a folder fails as reading from a broken disk does: after it was opened."""
    (tmp_path / "chat-0.log").mkdir()
    with assembled(tmp_path) as parts:
        parts.take(A)
        await reached(parts, InstanceState.READY)
        parts.backend.processes[A.id].end(ExitStatus(code=1))
        await until(lambda: len(parts.backend.requests) == 2, what="started again")
        last = parts.roster.instances[A.id].status().last_exit
        assert last is not None
        assert last.cause is ExitCause.ENGINE_DEAD, "the exit status says something too"


@pytest.mark.asyncio
async def test_a_desired_state_that_the_disk_did_not_take_is_written_when_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a reboot would bring back what was before."""
    tries = []

    def save_book(book: object) -> None:
        tries.append(book)
        raise OSError(28, "No space left on device")

    with assembled(tmp_path) as parts, monkeypatch.context() as full:
        full.setattr(parts.state, "save_book", save_book)
        parts.take(A)
        await reached(parts, InstanceState.READY)
        await until(lambda: len(tries) > 2, what="tried again")
        assert parts.state.load_book().instances == ()
        full.undo()
        await until(lambda: parts.state.load_book().instances == (A,), what="written")
