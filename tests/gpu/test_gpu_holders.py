"""Whose the processes are that hold GPU memory, as agents report it."""

from pathlib import Path

import pytest

from supervisord_cp.model.base import DeviceId
from supervisord_cp.model.gpu import Gpu, Holder
from supervisord_cp.model.instance import InstanceState
from supervisord_cp.ports.gpu import GpuReading
from tests.agent.fakes import assembled
from tests.agent.waiting import until
from tests.core.instances_kit import desired


def held_by(*pids: int) -> GpuReading:
    holders = tuple(Holder(pid=pid, owner="u", command="c", bytes=1) for pid in pids)
    return GpuReading(gpus=(Gpu(uuid=DeviceId("GPU-1"), index=0, holders=holders),))


@pytest.mark.asyncio
async def test_a_new_holder_is_told_from_strangers_at_once_and_a_pid_that_comes_back_too(
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
            (gpu,) = parts.reports[-1].gpus or ()
            return [holder.instance for holder in gpu.holders]

        parts.reporter.begin()
        assert reported(77) == [""]
        assert reported(77, pid) == ["", "chat-0"], "not after the next look at strangers"
        process.tree_gone.set()
        assert reported(77) == [""]
        assert reported(77, pid) == ["", ""], "somebody else's by now"
