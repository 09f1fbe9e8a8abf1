"""What an agent keeps on disk."""

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from supervisord_cp.agent.state import StateDir
from supervisord_cp.core.instances.intake import Book
from supervisord_cp.core.instances.life import Ended, History, Launch
from supervisord_cp.errors import UsageError
from supervisord_cp.model.base import Incarnation, InstanceId
from supervisord_cp.model.instance import ExitCause
from supervisord_cp.model.launch import Generation
from tests.core.instances_kit import desired

BOOK = Book(
    generation=Generation(epoch="e", counter=3),
    instances=(desired("chat-0"), desired("chat-1", args={"max-model-len": 8192})),
    unlisted=(InstanceId("chat-1"),),
)
HISTORY = History(
    restarts=4,
    failures=2,
    retry_at=110.0,
    last=Ended(at=100.0, code=1, cause=ExitCause.KV_CACHE, detail="too small"),
    failed=Launch.of(desired()),
    ended=Incarnation("chat-0.1"),
    ready=Incarnation("chat-0.2"),
    ready_since=50.0,
)
NAME = InstanceId("chat-0")


def test_the_book_survives(tmp_path: Path) -> None:
    state = StateDir(tmp_path / "a" / "b", boot_id="x")
    assert state.load_book() == Book()
    state.save_book(BOOK)
    assert StateDir(tmp_path / "a" / "b", boot_id="y").load_book() == BOOK


@pytest.mark.parametrize("content", [b"", b"{", b'{"instances": 7}', b"\xff"])
def test_a_damaged_book_is_kept_aside(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "desired.json").write_bytes(content)
    assert StateDir(tmp_path, boot_id="x").load_book() == Book()
    assert (tmp_path / "desired.bad").read_bytes() == content


def test_what_was_cut_short_while_writing_changes_nothing(tmp_path: Path) -> None:
    state = StateDir(tmp_path, boot_id="x")
    state.save_book(BOOK)
    (tmp_path / ".desired.json.new").write_text("half a bo")
    assert state.load_book() == BOOK
    state.save_book(Book())
    assert state.load_book() == Book()


def test_files_are_their_owners_alone(tmp_path: Path) -> None:
    state = StateDir(tmp_path / "state", boot_id="x")
    state.save_book(BOOK)
    state.save_history(NAME, HISTORY)
    lock = state.lock()
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "state").rglob("*")}
    assert set(modes.values()) == {0o600, 0o700}
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700
    lock.release()


def test_history_within_one_boot_and_after_another(tmp_path: Path) -> None:
    state = StateDir(tmp_path, boot_id="x")
    assert state.load_history(NAME, 120.0) == History()
    state.save_history(NAME, HISTORY)
    assert state.load_history(NAME, 120.0) == HISTORY
    rebooted = StateDir(tmp_path, boot_id="y").load_history(NAME, 7.0)
    assert (rebooted.restarts, rebooted.ended) == (4, "chat-0.1")
    assert (rebooted.failures, rebooted.retry_at, rebooted.ready, rebooted.ready_since) == (
        2,
        None,
        None,
        None,
    )
    assert rebooted.last is not None
    assert (rebooted.last.at, rebooted.last.detail) == (7.0, "too small")
    state.forget(NAME)
    assert state.load_history(NAME, 120.0) == History()


def test_a_damaged_history_begins_anew(tmp_path: Path) -> None:
    state = StateDir(tmp_path, boot_id="x")
    state.save_history(NAME, HISTORY)
    (tmp_path / "histories" / "chat-0.json").write_text("?")
    assert state.load_history(NAME, 1.0) == History()


def test_a_history_that_cannot_be_written_is_no_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = StateDir(tmp_path, boot_id="x")
    (tmp_path / "histories").rmdir()
    state.save_history(NAME, HISTORY)
    assert "cannot be written" in caplog.text


def test_a_directory_that_cannot_be_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be used"):
        StateDir(tmp_path / "file" / "state", boot_id="x")


@pytest.mark.process
def test_the_lock_ends_with_its_process_however_that_ends(tmp_path: Path) -> None:
    source = (
        "import sys, time; from pathlib import Path; from supervisord_cp.agent.state import StateDir;"
        "lock = StateDir(Path(sys.argv[1]), boot_id='x').lock(); print('locked', flush=True); time.sleep(600)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", source, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(UsageError, match=rf"another agent \(pid {holder.pid}\)"):
            StateDir(tmp_path, boot_id="x").lock()
    finally:
        holder.kill()
        holder.communicate()
    StateDir(tmp_path, boot_id="x").lock().release()
