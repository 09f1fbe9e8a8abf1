"""The engine's log: no line lost, rotated at line ends, and a full disk that nobody waits for."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisord_cp.keeper.output import LONGEST_LINE_BYTES, RotatedLog


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "chat-0.log"


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """How many more bytes the disk takes."""
    room = [0]
    write = os.write

    def limited(file: int, data: memoryview) -> int:
        if data and not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = write(file, data[: room[0]])
        room[0] -= written
        return written

    def set_room(count: int) -> None:
        room[0] = count
        monkeypatch.setattr("supervisord_cp.keeper.output.os.write", limited)

    return set_room


def contents(path: Path, number: int | None = None) -> str:
    return (path if number is None else path.with_name(f"{path.name}.{number}")).read_text()


def test_a_log_is_rotated_at_the_end_of_the_line_that_still_fits(path: Path) -> None:
    log = RotatedLog(str(path), max_bytes=10, files=3)
    log.write(b"aaa\nbbb\nccc\n")
    assert (contents(path), contents(path, 1)) == ("ccc\n", "aaa\nbbb\n")
    log.close()


def test_a_line_in_pieces_is_not_torn(path: Path) -> None:
    log = RotatedLog(str(path), max_bytes=10, files=3)
    for piece in (b"aaa\nbbb", b"bbb", b"bb\nc", b"c\n"):
        log.write(piece)
    assert (contents(path), contents(path, 1)) == ("cc\n", "aaa\nbbbbbbbb\n")
    log.close()


def test_a_line_longer_than_a_log_overruns_it(path: Path) -> None:
    log = RotatedLog(str(path), max_bytes=10, files=3)
    log.write(b"a\n" + b"b" * 50 + b"\nc\n")
    assert (contents(path), contents(path, 1), contents(path, 2)) == ("c\n", "b" * 50 + "\n", "a\n")
    log.close()


def test_an_endless_line_is_torn_at_last(path: Path) -> None:
    log = RotatedLog(str(path), max_bytes=10, files=1)
    for _ in range(40):
        log.write(b"x" * 64 * 1024)
    assert path.stat().st_size <= LONGEST_LINE_BYTES + 64 * 1024
    assert len(list(path.parent.iterdir())) == 2
    log.close()


def test_only_so_many_full_logs_are_kept(path: Path) -> None:
    log = RotatedLog(str(path), max_bytes=4, files=2)
    log.write(b"111\n222\n333\n444\n")
    assert (contents(path), contents(path, 1), contents(path, 2)) == ("444\n", "333\n", "222\n")
    assert len(list(path.parent.iterdir())) == 3
    log.close()


def test_without_full_logs_one_is_emptied(path: Path) -> None:
    log = RotatedLog(str(path), max_bytes=4, files=0)
    log.write(b"111\n222\n")
    assert [file.read_text() for file in path.parent.iterdir()] == ["222\n"]
    log.close()


def test_the_log_of_the_incarnation_before_is_kept(path: Path) -> None:
    for text in (b"first\n", b"second\n", b"third\n"):
        log = RotatedLog(str(path), max_bytes=100, files=2)
        log.write(text)
        log.close()
    assert contents(path) == "third\n"
    assert path.with_name("chat-0.log.previous").read_text() == "second\n"


def test_what_a_full_disk_does_not_take_is_counted_and_noted(
    path: Path, full_disk: Callable[[int], None]
) -> None:
    log = RotatedLog(str(path), max_bytes=1000, files=2)
    full_disk(6)
    log.write(b"one\ntwo\n")
    log.write(b"three\n")
    assert log.dropped_bytes == 2 + 6
    full_disk(1000)
    log.write(b"four\n")
    note = "[keeper] 8 bytes of output are missing here: No space left on device\n"
    assert contents(path) == f"one\ntw\n{note}four\n"
    assert log.dropped_bytes == 8
    log.close()


def test_a_note_that_does_not_fit_is_tried_again(path: Path, full_disk: Callable[[int], None]) -> None:
    log = RotatedLog(str(path), max_bytes=1000, files=2)
    full_disk(0)
    log.write(b"one\n")
    full_disk(5)
    log.write(b"two\n")
    full_disk(1000)
    log.write(b"three\n")
    log.close()
    assert log.dropped_bytes == 8
    assert contents(path).endswith("] 8 bytes of output are missing here: No space left on device\nthree\n")


def test_a_folder_that_vanishes_stops_nothing(path: Path) -> None:
    log = RotatedLog(str(path), max_bytes=4, files=2)
    path.unlink()
    path.parent.rmdir()
    log.write(b"111\n222\n333\n")
    assert log.dropped_bytes == 8  # the first line went to the file that had lost its name
    path.parent.mkdir()
    log.write(b"444\n")
    assert contents(path).endswith("444\n")
    log.close()


def test_a_log_that_cannot_be_opened_is_an_error_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError):
        RotatedLog(str(tmp_path / "file" / "chat.log"), max_bytes=4, files=2)
