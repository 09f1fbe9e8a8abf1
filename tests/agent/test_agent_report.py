"""Reports: what is said, when, and what is not said twice."""

import asyncio
from pathlib import Path

import pytest

from supervisord_cp.clock import ManualClock
from supervisord_cp.model.base import DeviceId
from supervisord_cp.model.event import Event
from supervisord_cp.model.gpu import Gpu, Holder
from supervisord_cp.model.instance import ExitCause, InstanceState
from supervisord_cp.model.reason import NO_REASON, Reason, ReasonCode
from supervisord_cp.ports.gpu import GpuReading
from supervisord_cp.ports.process import ExitStatus
from supervisord_cp.wire import messages as m
from tests.agent.fakes import FixedGpus, Parts, assembled, incarnation
from tests.core.instances_kit import desired
from tests.waiting import until

pytestmark = pytest.mark.asyncio

A = desired("chat-0")


async def ready(parts: Parts) -> None:
    await until(lambda: parts.state_of("chat-0") is InstanceState.READY)
    await until(lambda: said(parts)[-1:] == [InstanceState.READY])


def said(parts: Parts) -> list[InstanceState]:
    return [one.state for report in parts.reports for one in report.instances]


async def test_everything_first_then_what_changed(tmp_path: Path) -> None:
    with assembled(tmp_path) as parts:
        parts.reporter.begin()
        first = parts.reports[0]
        assert (first.sequence, first.full, first.instances, first.gpus) == (1, True, (), ())
        assert first.host is not None
        assert parts.reporter.inventory == 1
        parts.take(A)
        await ready(parts)
        later = parts.reports[1:]
        assert [report.sequence for report in parts.reports] == list(range(1, len(parts.reports) + 1))
        assert not any(report.full for report in later)
        assert all(report.gpus is None and report.host is None for report in later)
        assert later[-1].generation is not None
        before = len(parts.reports)
        for _ in range(5):
            parts.reporter.changed()
            await asyncio.sleep(0.01)
        assert len(parts.reports) == before, "nothing new, nothing said"
        parts.reporter.resync()
        assert parts.reports[-1].full
        assert [one.id for one in parts.reports[-1].instances] == ["chat-0"]
        assert parts.reporter.inventory == 1, "removals refer to the first one of a connection"


async def test_each_second_there_is_a_report_with_figures(tmp_path: Path) -> None:
    with assembled(tmp_path) as parts:
        beats: list[int] = []
        parts.reporter.begin()
        run = asyncio.create_task(parts.reporter.run(lambda: beats.append(len(parts.reports))))
        await until(lambda: len(beats) >= 2)
        run.cancel()
        assert beats[:2] == [2, 3]
        assert all(report.gpus == () and report.host is not None for report in parts.reports)


async def test_a_new_connection_begins_anew(tmp_path: Path) -> None:
    with assembled(tmp_path) as parts:
        parts.reporter.begin()
        parts.take(A)
        await ready(parts)
        parts.reporter.end()
        assert parts.reporter.inventory is None
        before = len(parts.sent)
        parts.reporter.told(Event(kind="x", subject="y"))
        parts.engine.cause = ExitCause.GPU_FAULT
        parts.backend.processes[A.id].end(ExitStatus(code=1))
        await until(lambda: parts.state_of("chat-0") is InstanceState.BACKOFF)
        assert len(parts.sent) == before, "nobody to say it to"
        parts.reporter.begin()
        report = parts.reports[-1]
        assert (report.sequence, report.full) == (1, True)
        assert [one.state for one in report.instances] == [InstanceState.BACKOFF]
        events = [one for message in parts.sent if isinstance(message, m.Events) for one in message.events]
        assert {"x", "instance.failed"} <= {event.kind for event in events}


async def test_a_message_that_was_not_taken_makes_the_next_report_full(tmp_path: Path) -> None:
    with assembled(tmp_path) as parts:
        parts.reporter.begin()
        parts.refusing.set()
        parts.take(A)
        await until(lambda: parts.state_of("chat-0") is InstanceState.READY and parts.refused)
        assert len(parts.reports) == 1
        parts.refusing.clear()
        parts.reporter.changed()
        await until(lambda: len(parts.reports) == 2)
        assert parts.reports[1].full
        assert parts.reports[1].sequence == 2
        assert [one.id for one in parts.reports[1].instances] == ["chat-0"]


async def test_what_is_gone_is_said_once(tmp_path: Path) -> None:
    with assembled(tmp_path) as parts:
        parts.reporter.begin()
        parts.take(A)
        await ready(parts)
        parts.take(removals=("chat-0", "chat-9"))
        await until(lambda: not parts.roster.instances)
        await until(lambda: {one for report in parts.reports for one in report.gone} == {"chat-0", "chat-9"})
        parts.reporter.resync()
        assert parts.reports[-1].gone == ()


async def test_events_carry_the_node_and_their_age(tmp_path: Path) -> None:
    clock = ManualClock()
    with assembled(tmp_path, clock=clock) as parts:
        parts.reporter.told(Event(kind="x", subject="y", age_ms=5))
        clock.advance(2.0)
        parts.reporter.begin()
        (message,) = [message for message in parts.sent if isinstance(message, m.Events)]
        assert message.events == (Event(kind="x", subject="y", node="n", age_ms=2005),)


async def test_keys_come_before_the_report_that_mentions_their_engines(tmp_path: Path) -> None:
    with assembled(tmp_path, loopback=False) as parts:
        parts.reporter.begin()
        assert isinstance(parts.sent[0], m.EngineKeys)
        parts.take(A)
        await ready(parts)
        name = incarnation(parts, "chat-0")
        key = parts.engine.contexts[0].api_key
        keyed = [
            index for index, message in enumerate(parts.sent) if message == m.EngineKeys(keys={name: key})
        ]
        mentioned = [
            index
            for index, message in enumerate(parts.sent)
            if isinstance(message, m.Report)
            and any(one.incarnation == name for one in message.report.instances)
        ]
        assert len(keyed) == 1
        assert keyed[0] < mentioned[0]
        assert parts.http.keys == {key}
        secret = [message for message in parts.sent if not isinstance(message, m.EngineKeys)]
        assert key not in repr(secret)
        assert key not in repr(parts.backend.requests[0].argv)


async def test_unknown_gpus_are_unknown_in_every_report(tmp_path: Path) -> None:
    reason = Reason(code=ReasonCode.GPU_DRIVER_SILENT)
    with assembled(tmp_path, gpu=FixedGpus(GpuReading(gpus=None, reason=reason))) as parts:
        parts.reporter.begin()
        parts.take(A)
        await ready(parts)
        assert {(report.gpus, report.gpu_reason.code) for report in parts.reports} == {(None, reason.code)}


async def test_the_reason_for_no_gpus_is_no_reason_to_doubt_a_delta(tmp_path: Path) -> None:
    reason = Reason(code=ReasonCode.NO_GPU, params={"error": "no driver"})
    with assembled(tmp_path, gpu=FixedGpus(GpuReading(gpus=(), reason=reason))) as parts:
        parts.reporter.begin()
        parts.take(A)
        await ready(parts)
        assert parts.reports[0].gpu_reason == reason
        assert all(report.gpu_reason == NO_REASON for report in parts.reports[1:])


async def test_holders_of_memory_are_told_from_strangers(tmp_path: Path) -> None:
    with assembled(tmp_path) as parts:
        parts.take(A)
        await until(lambda: parts.state_of("chat-0") is InstanceState.READY)
        pid = parts.backend.processes[A.id].record.pid
        holders = tuple(Holder(pid=one, owner="u", command="c", bytes=1) for one in (pid + 1, 77))
        parts.gpu.reading = GpuReading(gpus=(Gpu(uuid=DeviceId("GPU-1"), index=0, holders=holders),))
        parts.reporter.begin()
        (gpu,) = parts.reports[0].gpus or ()
        assert [(one.pid, one.instance) for one in gpu.holders] == [(pid + 1, "chat-0"), (77, "")]
