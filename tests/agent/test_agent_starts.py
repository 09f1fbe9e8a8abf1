"""Watching starts: estimates from starts before, kept over agents; what stands still is said."""

import asyncio
import os
import threading
from collections import Counter
from pathlib import Path
from typing import Self

import pytest

from supervisord_cp.adapters.tree_work import work_of
from supervisord_cp.agent import start_watch
from supervisord_cp.agent.log_files import LogFollower
from supervisord_cp.agent.log_reading import LogReading
from supervisord_cp.agent.starts import Starts
from supervisord_cp.agent.state import StateDir
from supervisord_cp.clock import ManualClock
from supervisord_cp.core.instances.startup import StartHistory, Work
from supervisord_cp.model.base import DeploymentName
from supervisord_cp.model.instance import ExitCause, InstanceState, Phase
from supervisord_cp.model.reason import ReasonCode
from tests.agent.daemon import AgentHost
from tests.agent.fake_central import FakeCentral
from tests.agent.fakes import BOOT, REFUSED, assembled
from tests.core.instances_kit import desired
from tests.waiting import until

A = desired("chat-0")
URL = "http://127.0.0.1:100"


def test_histories_are_kept_by_deployment_and_model(tmp_path: Path) -> None:
    starts = Starts(StateDir(tmp_path, boot_id=BOOT))
    assert starts.of(A) == StartHistory()
    starts.save(starts.note(A, {Phase.LOADING: 60.0}))
    again = Starts(StateDir(tmp_path, boot_id="another boot"))
    assert again.of(A) == starts.of(A)
    assert [start[Phase.LOADING] for start in again.of(desired("chat-7")).starts] == [60.0]
    assert again.of(desired("chat-0", model="other")) == StartHistory()
    assert again.of(desired("code-0")) == StartHistory()


@pytest.mark.parametrize("content", ["", "{", '{"chat": 7}'])
def test_a_damaged_file_is_no_history(tmp_path: Path, content: str) -> None:
    (tmp_path / "starts.json").write_text(content)
    assert Starts(StateDir(tmp_path, boot_id=BOOT)).of(A) == StartHistory()


def test_a_disk_that_takes_nothing_costs_the_estimate_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = StateDir(tmp_path, boot_id=BOOT)
    (tmp_path / "starts.json").mkdir()
    state.save_starts({DeploymentName("chat"): StartHistory()})
    assert "cannot be written" in caplog.text


@pytest.mark.asyncio
async def test_a_start_is_estimated_and_learned_from(tmp_path: Path) -> None:
    with assembled(tmp_path) as parts:
        parts.starts.note(A, {Phase.SPAWNED: 500.0, Phase.LOADING: 1000.0})
        parts.http.health_of[URL] = REFUSED
        parts.take(A)
        await until(lambda: parts.state_of("chat-0") is InstanceState.STARTING)
        status = parts.roster.instances[A.id].status
        await until(lambda: status().eta_s is not None)
        assert 1400.0 < (status().eta_s or 0.0) <= 1500.0
        (tmp_path / "chat-0.log").write_text("loading\n")
        await until(lambda: (status().eta_s or 0.0) <= 1000.0, what="the phase is in the estimate")
        assert status().phase is Phase.LOADING
        del parts.http.health_of[URL]
        await until(lambda: parts.state_of("chat-0") is InstanceState.READY)
        assert status().eta_s is None
        await until(lambda: (tmp_path / "starts.json").exists(), what="written down")
    assert len(Starts(StateDir(tmp_path, boot_id=BOOT)).of(A).starts) == 2


@pytest.mark.asyncio
async def test_what_stands_still_is_said_and_then_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look is three seconds after the one before."""
    monkeypatch.setattr(start_watch, "READ_S", 0.005)
    clock = ManualClock()

    def still(pids: object) -> Work:
        clock.advance(3.0)
        return Work()

    monkeypatch.setattr(start_watch, "work_of", still)
    with assembled(tmp_path, clock=clock) as parts:
        parts.starts.note(A, {Phase.SPAWNED: 10.0})
        parts.http.health_of[URL] = REFUSED
        parts.take(A)
        await until(lambda: parts.state_of("chat-0") is InstanceState.STARTING)
        instance = parts.roster.instances[A.id]
        process = await until(lambda: parts.backend.processes.get(A.id), what="spawned")
        said = set()

        def ended() -> object:
            said.add(instance.status().reason.code)
            return process.stops

        await until(ended, what="ended")
        assert ReasonCode.STUCK_IN_PHASE in said
        await until(lambda: instance.life.history.last is not None and instance.life.history.last.detail)
        last = instance.life.history.last
        assert last is not None
        assert last.cause is ExitCause.START_TIMEOUT
        assert last.detail.startswith("nothing has moved for 12")
        assert last.detail.endswith("s (spawned, usually 10 s)")


class HungLog:
    """Reading one log never ends, until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self.let_go = threading.Event()
        self.readers: list[int] = []
        read = LogFollower.read

        def hangs(follower: LogFollower) -> bytes:
            if follower._path.name == name and not self.let_go.is_set():
                self.readers.append(threading.get_ident())
                if threading.get_ident() != threading.main_thread().ident:
                    self.let_go.wait()
            return read(follower)

        monkeypatch.setattr(LogFollower, "read", hangs)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.let_go.set()


@pytest.mark.asyncio
async def test_a_log_whose_disk_hangs_costs_the_phase_of_its_own_start_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(start_watch, "READ_S", 0.005)
    monkeypatch.setattr(start_watch, "WORK_S", 0.0)
    monkeypatch.setattr(start_watch, "DISK_S", 0.01)
    looks: Counter[frozenset[int]] = Counter()
    monkeypatch.setattr(start_watch, "work_of", lambda pids: looks.update([pids]) or Work())
    b = desired("chat-1", devices=("slot-1",))
    with assembled(tmp_path) as parts, HungLog(monkeypatch, "chat-0.log") as hung:
        for one in (A, b):
            (tmp_path / f"{one.id}.log").write_text("loading\n")
        parts.http.health_of = dict.fromkeys((URL, "http://127.0.0.1:101"), REFUSED)
        parts.take(A, b)
        await until(lambda: len(parts.roster.instances) == 2)
        mine, other = (parts.roster.instances[one.id] for one in (A, b))
        await until(lambda: other.status().phase is Phase.LOADING, what="the other start is followed")
        await until(lambda: hung.readers, what="the read")
        seen = looks.total()
        await until(lambda: len(looks) == 2 and looks.total() > seen + 6, what="its processes are looked at")
        assert mine.status().phase is Phase.SPAWNED
        assert hung.readers == [hung.readers[0]], "one read at a time"
        assert hung.readers[0] != threading.main_thread().ident
        assert [record.message for record in caplog.records].count(
            f"the log {tmp_path / 'chat-0.log'} cannot be read: its disk does not answer"
        ) == 1
        hung.let_go.set()
        await until(lambda: mine.status().phase is Phase.LOADING, what="followed when the disk answers")


@pytest.mark.asyncio
async def test_a_start_that_ends_while_its_log_hangs_leaves_no_file_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.log"
    path.write_text("loading\n")
    closed = threading.Event()
    monkeypatch.setattr(LogFollower, "close", lambda follower: closed.set())
    with HungLog(monkeypatch, path.name) as hung:
        log = LogReading(path)
        assert await log.read(0.01) == b""
        log.close()
        await asyncio.sleep(0)
        assert not closed.is_set(), "it is being read"
        hung.let_go.set()
        await until(closed.is_set, what="closed")


def test_work_is_what_the_kernel_counts(tmp_path: Path) -> None:
    before = work_of([os.getpid()])
    (tmp_path / "file").write_bytes(bytes(1_000_000))
    after = work_of([os.getpid(), 2**22 + 1])
    assert after.io_bytes - before.io_bytes >= 1_000_000
    assert after.cpu_s >= before.cpu_s > 0.0


@pytest.mark.process
@pytest.mark.asyncio
async def test_the_second_start_of_the_fake_engine_has_an_eta(host: AgentHost, central: FakeCentral) -> None:
    await host.connect()
    wanted = desired("fake-0", args={"fake-load-s": 2.5})
    await central.desire(wanted)
    await central.reached(InstanceState.READY, "fake-0")
    assert all(status.eta_s is None for report in central.reports for status in report.instances)
    await central.desire(desired("fake-0", args={"fake-load-s": 2.5}, restart=1))
    await central.sees(lambda c: c.instances["fake-0"].eta_s is not None)
    assert 0.0 < (central.instances["fake-0"].eta_s or 0.0) < 60.0
    await central.reached(InstanceState.READY, "fake-0")
