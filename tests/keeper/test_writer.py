"""The log is written beside the keeper: a disk that hangs holds up nobody, and what it costs is counted."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisord_cp.keeper import writer
from supervisord_cp.keeper.output import RotatedLog
from supervisord_cp.keeper.writer import BUFFER_BYTES, HUNG_S, LogWriter
from tests.waiting import PATIENCE_S

PIECE = b"x" * 64 * 1024


class Disk(RotatedLog):
    """A log on a disk that answers when it is told to."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), max_bytes=1 << 30, files=1)
        self.answers = threading.Event()
        self.asked = threading.Event()

    def write(self, data: bytes) -> None:
        self.asked.set()
        assert self.answers.wait(PATIENCE_S)
        super().write(data)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    made = Disk(tmp_path / "log")
    yield made
    made.answers.set()


def test_pieces_are_written_in_their_order(tmp_path: Path, disk: Disk) -> None:
    disk.answers.set()
    written = LogWriter(disk)
    for number in range(100):
        written.put(f"{number}\n".encode(), time.monotonic())
    assert written.flush(PATIENCE_S)
    written.close(PATIENCE_S)
    assert (tmp_path / "log").read_text().split() == [str(number) for number in range(100)]


def test_a_slow_disk_is_waited_for(disk: Disk) -> None:
    written = LogWriter(disk)
    now = time.monotonic()
    while written.takes_more(now):
        written.put(PIECE, now)
    assert not written.flush(0.0)
    disk.answers.set()
    assert written.flush(PATIENCE_S)
    assert written.takes_more(now)
    assert written.dropped_bytes == 0
    written.close(PATIENCE_S)


def test_what_a_hung_disk_does_not_take_is_dropped_counted_and_noted(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = LogWriter(disk)
    now = time.monotonic()
    while written.takes_more(now):
        written.put(PIECE, now)
    assert disk.asked.wait(PATIENCE_S)
    later = now + HUNG_S + PATIENCE_S
    assert written.takes_more(later), "the engine goes on"
    written.put(PIECE, later)
    assert written.dropped_bytes == len(PIECE)
    monkeypatch.setattr(writer, "HUNG_S", -1.0)
    assert not written.flush(PATIENCE_S), "and nobody waits for it"
    monkeypatch.undo()
    disk.answers.set()
    assert written.flush(PATIENCE_S)
    written.put(b"\nafter\n", time.monotonic())
    written.close(PATIENCE_S)
    text = (tmp_path / "log").read_text()
    assert f"[keeper] {len(PIECE)} bytes of output are missing here: the disk did not answer\n" in text
    assert len(text) > BUFFER_BYTES
    assert text.endswith("\nafter\n")
    assert written.dropped_bytes == len(PIECE)
