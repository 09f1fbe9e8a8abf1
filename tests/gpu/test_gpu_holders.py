"""Whose the processes are that hold GPU memory, as agents report it."""

from pathlib import Path

import pytest

from supervisord_cp.model.base import DeviceId
from supervisord_cp.model.gpu import Gpu, Holder
from supervisord_cp.model.instance import InstanceState
from supervisord_cp.ports.gpu import GpuReading
from supervisord_cp.wire import messages as m
from tests.agent.fakes import assembled
from tests.core.instances_kit import desired
from tests.waiting import until


def held_by(*pids: int) -> GpuReading:
    holders = tuple(Holder(pid=pid, owner="u", command="c", bytes=1) for pid in pids)
    own = Gpu(uuid=DeviceId("slot-0"), index=0, holders=holders)
    return GpuReading(gpus=(own, Gpu(uuid=DeviceId("GPU-1"), index=1, holders=holders)))


@pytest.mark.asyncio
async def test_holders_are_told_from_strangers_at_once_and_so_is_a_pid_that_comes_back(
    tmp_path: Path,
) -> None:
    with assembled(tmp_path) as parts:
        instance = desired("chat-0")
        parts.take(instance)
        await until(lambda: parts.state_of("chat-0") is InstanceState.READY)
        process = parts.backend.processes[instance.id]
        pid = process.record.pid

        def reported(*pids: int) -> list[str]:
            parts.gpu.reading = held_by(*pids)
            parts.reporter.resync()
            _, gpu = parts.reports[-1].gpus or ()
            return [holder.instance for holder in gpu.holders]

        parts.reporter.begin()
        assert reported(77) == [""]
        assert reported(77, pid) == ["", "chat-0"], "not after the next look at strangers"
        assert reported(77, pid) == ["", "chat-0"]
        messages = [message for message in parts.sent if isinstance(message, m.Events)]
        events = [event for message in messages for event in message.events]
        told = [event for event in events if event.kind == "gpu.misplaced"]
        assert [(event.subject, event.data) for event in told] == [
            ("chat-0", {"gpu": "GPU-1", "pid": pid})
        ], "once, and not of its own GPU"
        process.tree_gone.set()
        assert reported(77) == [""]
        assert reported(77, pid) == ["", ""], "somebody else's by now"
