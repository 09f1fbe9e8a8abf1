"""Instances and the node, in one process with engines in memory."""

import asyncio
from pathlib import Path

import pytest
from msgspec.structs import replace

from supervisord_cp.agent import incarnation
from supervisord_cp.core.instances.life import Stage
from supervisord_cp.model.base import Incarnation, InstanceId
from supervisord_cp.model.instance import ExitCause, InstanceState, Phase
from supervisord_cp.model.launch import EngineKind, RunState
from supervisord_cp.model.reason import ReasonCode, render
from supervisord_cp.ports.process import ExitStatus, SpawnFailed
from supervisord_cp.wire import messages as m
from tests.agent.fakes import REFUSED, FakeBackend, FakeProcess, Parts, assembled, record_of
from tests.core.instances_kit import desired
from tests.waiting import until

pytestmark = pytest.mark.asyncio

A, B = desired("chat-0"), desired("chat-1", devices=("slot-1",))


async def ready(parts: Parts, *names: str) -> None:
    await until(lambda: all(parts.state_of(name) is InstanceState.READY for name in names), what=str(names))


async def reached(parts: Parts, name: str, state: InstanceState) -> None:
    await until(lambda: parts.state_of(name) is state, what=f"{name} {state}")


async def test_what_is_wanted_is_started_and_stopped(tmp_path: Path) -> None:
    with assembled(tmp_path) as parts:
        parts.take(A, B)
        await ready(parts, "chat-0", "chat-1")
        assert sorted(request.instance for request in parts.backend.requests) == ["chat-0", "chat-1"]
        parts.take(replace(A, run=RunState.STOPPED), B)
        await reached(parts, "chat-0", InstanceState.STOPPED)
        assert parts.backend.processes[A.id].stops == [30.0]
        assert parts.state_of("chat-1") is InstanceState.READY


async def test_a_log_that_is_not_whole_is_an_event(tmp_path: Path) -> None:
    with assembled(tmp_path) as parts:
        parts.reporter.begin()
        parts.take(A)
        await ready(parts, "chat-0")
        parts.backend.processes[A.id].log_lost_bytes = 4096

        def told() -> list[str]:
            messages = [one for one in parts.sent if isinstance(one, m.Events)]
            events = [event for message in messages for event in message.events]
            return [event.message for event in events if event.kind == "log.incomplete"]

        await until(told, what="said")
        assert told() == [f"4096 bytes of output could not be written to {tmp_path / 'chat-0.log'}"]


async def test_a_restarted_agent_goes_on_with_what_is_on_disk(tmp_path: Path) -> None:
    with assembled(tmp_path) as parts:
        parts.take(A, B)
        await ready(parts, "chat-0", "chat-1")
        backend = parts.backend
    backend.found = list(backend.processes.values())
    with assembled(tmp_path, backend=backend) as parts:
        await parts.node.adopt()
        assert [parts.state_of(name) for name in ("chat-0", "chat-1")] == [InstanceState.UNKNOWN] * 2
        await parts.node.settled(5.0)
        await ready(parts, "chat-0", "chat-1")
        assert len(backend.requests) == 2
        assert parts.roster.ports_in_use() == {100, 101}


async def test_engines_without_a_written_desired_state_are_kept_as_unlisted(tmp_path: Path) -> None:
    with assembled(tmp_path) as parts:
        parts.take(A)
        await ready(parts, "chat-0")
        backend = parts.backend
    (tmp_path / "desired.json").write_text("{ not json")
    backend.found = list(backend.processes.values())
    with assembled(tmp_path, backend=backend) as parts:
        await parts.node.adopt()
        await ready(parts, "chat-0")
        status = parts.roster.instances[A.id].status()
        assert not status.listed
        assert status.revision == A.revision
        parts.take(A)
        await until(lambda: parts.roster.instances[A.id].status().listed)
        assert len(backend.requests) == 1


async def test_a_removal_goes_on_after_a_restart_of_the_agent(tmp_path: Path) -> None:
    with assembled(tmp_path) as parts:
        parts.reporter.begin()
        parts.take(A)
        await ready(parts, "chat-0")
        parts.backend.processes[A.id].polite = False
        parts.take(removals=("chat-0",))
        await reached(parts, "chat-0", InstanceState.STOPPING)
        await until(lambda: parts.backend.processes[A.id].stops, what="asked")
        backend = parts.backend
    process = backend.processes[A.id]
    backend.found = [process]
    with assembled(tmp_path, backend=backend) as parts:
        await parts.node.adopt()
        await until(lambda: len(process.stops) == 2, what="asked again")
        process.end(ExitStatus(code=0, requested=True))
        await until(lambda: not parts.roster.instances, what="gone")
        assert backend.forgotten == ["chat-0"]
        await until(lambda: parts.state.load_book().instances == (), what="off the book")


async def test_an_end_that_is_history_is_not_counted_again(tmp_path: Path) -> None:
    with assembled(tmp_path) as parts:
        parts.take(A)
        await ready(parts, "chat-0")
        process = parts.backend.processes[A.id]
        parts.engine.cause = ExitCause.GPU_FAULT
        process.end(ExitStatus(code=1))
        await reached(parts, "chat-0", InstanceState.BACKOFF)
        backend = parts.backend
    backend.found = [process]
    with assembled(tmp_path, backend=backend) as parts:
        await parts.node.adopt()
        assert parts.state_of("chat-0") is InstanceState.BACKOFF
        assert parts.roster.instances[A.id].last_port == 100
        await ready(parts, "chat-0")
        assert parts.roster.instances[A.id].status().restarts == 1


@pytest.mark.parametrize("how", ["rebooted", "cut short"])
async def test_what_ended_with_the_host_or_the_agent_is_no_failure(tmp_path: Path, how: str) -> None:
    with assembled(tmp_path) as parts:
        parts.take(A)
        await ready(parts, "chat-0")
        request = parts.backend.requests[0]
    backend = FakeBackend()
    pid, boot = (7, "earlier-boot") if how == "rebooted" else (0, "this-boot")
    process = FakeProcess(record_of(request, pid, boot))
    process.end(ExitStatus(keeper_lost=True))
    backend.found = [process]
    with assembled(tmp_path, backend=backend) as parts:
        await parts.node.adopt()
        await ready(parts, "chat-0")
        assert parts.roster.instances[A.id].status().restarts == 0
        assert len(backend.requests) == 1


async def test_a_stranger_in_our_records_is_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with assembled(tmp_path) as parts:
        parts.take(A)
        await ready(parts, "chat-0")
        request = parts.backend.requests[0]
    backend = FakeBackend()
    odd = replace(request, instance=InstanceId("odd-0"), meta={"notes": "?"})
    other = desired("other-0", engine=EngineKind.VLLM)
    with assembled(tmp_path / "x", engine_kind="vllm") as lender:
        lender.take(other)
        await ready(lender, "other-0")
        foreign = lender.backend.requests[0]
    backend.found = [FakeProcess(record_of(odd, 11)), FakeProcess(record_of(foreign, 12))]
    with assembled(tmp_path, backend=backend) as parts:
        await parts.node.adopt()
        assert caplog.text.count("left alone") == 2
        assert [process.stops for process in backend.found] == [[], []]


async def test_what_has_lost_its_records_is_ended_wanted_or_not(tmp_path: Path) -> None:
    with assembled(tmp_path) as parts:
        parts.take(A)
        await ready(parts, "chat-0")
        request = parts.backend.requests[0]
    backend = FakeBackend()
    lost = [
        replace(request, instance=InstanceId(name), incarnation=f"{name}.lost", meta={})
        for name in ("chat-0", "odd-0")
    ]
    backend.found = [FakeProcess(record_of(one, 0)) for one in lost]
    with assembled(tmp_path, backend=backend) as parts:
        await parts.node.adopt()
        await ready(parts, "chat-0")
        await until(lambda: all(process.stops for process in backend.found), what="both told to end")
        assert [process.stops for process in backend.found] == [[10.0], [0.0]]


async def test_what_an_earlier_agent_left_is_ended_before_a_new_start(tmp_path: Path) -> None:
    """Its records say who it is, and nothing of what it was started for."""
    with assembled(tmp_path) as parts:
        parts.take(A)
        await ready(parts, "chat-0")
        request = parts.backend.requests[0]
    backend = FakeBackend()
    left = FakeProcess(record_of(replace(request, meta={"notes": "?"}), 40), polite=False)
    backend.found = [left]
    with assembled(tmp_path, backend=backend) as parts:
        await parts.node.adopt()
        await until(lambda: left.stops, what="asked to end")
        status = parts.roster.instances[A.id].status()
        assert (status.state, status.reason.code) == (InstanceState.GATED, ReasonCode.AWAITING_LEFTOVERS)
        assert render(status.reason) == "ending what an earlier life left behind: 40, 41"
        parts.take(replace(A, run=RunState.STOPPED))
        await reached(parts, "chat-0", InstanceState.STOPPED)
        parts.take(A)
        await until(lambda: len(left.stops) == 2, what="taken up again where it was left")
        assert backend.requests == []
        left.end(ExitStatus(signal=9))
        await ready(parts, "chat-0")
        assert left.closed
        assert len(backend.requests) == 1


async def test_of_two_incarnations_the_one_that_runs_is_taken_over_and_the_other_is_ended(
    tmp_path: Path,
) -> None:
    with assembled(tmp_path) as parts:
        parts.take(A)
        await ready(parts, "chat-0")
        request = parts.backend.requests[0]
    backend = FakeBackend()
    ended, alive, second = (
        FakeProcess(record_of(replace(request, incarnation=Incarnation(f"chat-0.{name}")), pid))
        for name, pid in (("ended", 10), ("alive", 20), ("second", 30))
    )
    ended.end(ExitStatus(code=1))
    backend.found = [ended, alive, second]
    with assembled(tmp_path, backend=backend) as parts:
        await parts.node.adopt()
        await ready(parts, "chat-0")
        assert parts.roster.instances[A.id].status().pid == 20
        await until(lambda: ended.closed and second.closed)
        assert (alive.stops, second.stops) == ([], [30.0])
        assert parts.roster.instances[A.id].status().restarts == 0


async def test_an_unrequested_end_clears_away_the_tree_before_the_next_start(tmp_path: Path) -> None:
    with assembled(tmp_path) as parts:
        parts.take(A)
        await ready(parts, "chat-0")
        process = parts.backend.processes[A.id]
        process.end(ExitStatus(signal=9), leftovers=True)
        await reached(parts, "chat-0", InstanceState.CRASHED)
        assert parts.roster.occupancy().devices == {"slot-0": "chat-0"}
        assert len(parts.backend.requests) == 1
        process.tree_gone.set()
        await until(lambda: len(parts.backend.requests) == 2, what="started again")
        await ready(parts, "chat-0")
        assert process.closed
        last = parts.roster.instances[A.id].status().last_exit
        assert last is not None
        assert last.cause is ExitCause.ENGINE_DEAD


@pytest.mark.parametrize(
    "failure", [SpawnFailed("no such file"), OSError("no such file"), KeyError("no such file")]
)
async def test_a_start_that_fails_backs_off_whatever_it_was(tmp_path: Path, failure: Exception) -> None:
    with assembled(tmp_path) as parts:
        parts.backend.failure = failure
        parts.take(A)
        await reached(parts, "chat-0", InstanceState.BACKOFF)
        last = parts.roster.instances[A.id].status().last_exit
        assert last is not None
        assert last.cause is ExitCause.SPAWN_FAILED
        assert "no such file" in last.detail
        assert parts.roster.ports_in_use() == set()


async def test_a_specification_that_cannot_be_launched_says_why(tmp_path: Path) -> None:
    with assembled(tmp_path) as parts:
        parts.engine.bad_flag = "args: --port is ours"
        parts.take(A)
        await reached(parts, "chat-0", InstanceState.BACKOFF)
        last = parts.roster.instances[A.id].status().last_exit
        assert last is not None
        assert last.cause is ExitCause.CONFIGURATION
        assert "--port is ours" in last.detail


async def test_a_missing_program_holds_the_start(tmp_path: Path) -> None:
    with assembled(tmp_path) as parts:
        parts.engine.missing = "it is not on PATH"
        parts.take(A)
        await until(
            lambda: (
                A.id in parts.roster.instances
                and parts.roster.instances[A.id].status().reason.code is ReasonCode.EXECUTABLE_MISSING
            )
        )
        assert parts.state_of("chat-0") is InstanceState.GATED
        parts.take(replace(A, run=RunState.STOPPED))
        await reached(parts, "chat-0", InstanceState.STOPPED)


async def test_instances_that_share_a_device_follow_each_other(tmp_path: Path) -> None:
    with assembled(tmp_path) as parts:
        parts.reporter.begin()
        parts.take(A)
        await ready(parts, "chat-0")
        process = parts.backend.processes[A.id]
        process.polite = False
        successor = desired("chat-2")
        parts.take(successor, removals=("chat-0",))
        await reached(parts, "chat-2", InstanceState.GATED)
        await until(
            lambda: parts.roster.instances[successor.id].status().reason.code is ReasonCode.AWAITING_DEVICE
        )
        assert len(parts.backend.requests) == 1
        process.end(ExitStatus(code=0, requested=True))
        await ready(parts, "chat-2")


async def test_starts_wait_for_their_turn(tmp_path: Path) -> None:
    with assembled(tmp_path, max_parallel_starts=1) as parts:
        parts.http.health_of = {f"http://127.0.0.1:{port}": REFUSED for port in (100, 101)}
        parts.take(A, B)
        await reached(parts, "chat-0", InstanceState.STARTING)
        await until(
            lambda: parts.roster.instances[B.id].status().reason.code is ReasonCode.AWAITING_START_SLOT
        )
        del parts.http.health_of["http://127.0.0.1:100"]
        await ready(parts, "chat-0")
        await reached(parts, "chat-1", InstanceState.STARTING)
        del parts.http.health_of["http://127.0.0.1:101"]
        await ready(parts, "chat-1")


async def test_phases_and_load_are_read_and_a_page_that_breaks_us_is_survived(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with assembled(tmp_path) as parts:
        url = "http://127.0.0.1:100"
        parts.http.health_of[url] = REFUSED
        parts.http.running[url] = 3
        parts.engine.broken_pages = 1
        (tmp_path / "chat-0.log").write_text("hello\nloading weights\nhalf a li")
        parts.take(A)
        await reached(parts, "chat-0", InstanceState.STARTING)
        instance = parts.roster.instances[A.id]
        await until(lambda: instance.status().phase is Phase.LOADING)
        del parts.http.health_of[url]
        await until(lambda: instance.status().load is not None, what="load")
        assert instance.status().load.running == 3  # type: ignore[union-attr]
        assert "a page that nobody has seen before" in caplog.text


async def test_an_engine_that_fails_its_health_checks_is_degraded_and_left_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(incarnation, "SERVING_S", 0.01)
    with assembled(tmp_path) as parts:
        parts.take(A)
        await ready(parts, "chat-0")
        parts.http.health_of[parts.url_of("chat-0")] = REFUSED
        await reached(parts, "chat-0", InstanceState.DEGRADED)
        assert parts.roster.instances[A.id].status().reason == REFUSED
        parts.http.health_of.clear()
        await ready(parts, "chat-0")
        assert len(parts.backend.requests) == 1
        assert parts.backend.processes[A.id].stops == []


async def test_a_full_disk_costs_what_is_written_not_what_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with assembled(tmp_path) as parts:

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("supervisord_cp.agent.state._replace", full)
        monkeypatch.setattr(parts.state, "save_book", full)
        parts.reporter.begin()
        parts.take(A)
        await ready(parts, "chat-0")
        await until(
            lambda: any(
                event.kind == "state.unwritable"
                for message in parts.sent
                if isinstance(message, m.Events)
                for event in message.events
            )
        )


async def test_halting_waits_for_trees_and_starts_nothing_more(tmp_path: Path) -> None:
    with assembled(tmp_path) as parts:
        parts.take(A, B)
        await ready(parts, "chat-0", "chat-1")
        slow = parts.backend.processes[A.id]
        slow.polite = False
        halt = asyncio.create_task(parts.node.halt())
        await until(lambda: slow.stops)
        parts.take(A, B, desired("chat-2", devices=("slot-2",)))
        await reached(parts, "chat-2", InstanceState.STOPPED)
        assert not halt.done()
        await parts.node.hurry()
        assert slow.stops == [30.0, 0.0]
        slow.end(ExitStatus(signal=9, requested=True))
        await halt
        assert {one.life.stage for one in parts.roster.instances.values()} == {Stage.IDLE}
        assert len(parts.backend.requests) == 2
