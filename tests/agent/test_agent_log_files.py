"""Reading logs that are rotated under the reader."""

import asyncio
import os
import threading
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from supervisord_cp.agent import log_files
from supervisord_cp.agent.log_files import LogFollower, last_lines, tail_text
from supervisord_cp.agent.logs import NoLog, read_log
from supervisord_cp.keeper.output import LONGEST_LINE_BYTES, RotatedLog
from tests.waiting import PATIENCE_S, until


class Log:
    """A log as a keeper writes it."""

    def __init__(self, path: Path, files: int = 5) -> None:
        self.path = path
        self._files = files

    def write(self, text: str) -> None:
        with self.path.open("a") as file:
            file.write(text)

    def age(self, seconds: int) -> None:
        """As if it had been written for the last time so long ago."""
        then = time.time() - seconds
        os.utime(self.path, (then, then))

    def rotate(self) -> None:
        for number in range(self._files - 1, 0, -1):
            older = self.path.with_name(f"{self.path.name}.{number}")
            if older.exists():
                older.rename(self.path.with_name(f"{self.path.name}.{number + 1}"))
        self.path.rename(self.path.with_name(f"{self.path.name}.1"))
        self.path.touch()


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "x.log")


def drain(follower: LogFollower) -> str:
    pieces = []
    while piece := follower.read():
        pieces.append(piece)
    return b"".join(pieces).decode()


def test_a_follower_loses_nothing_over_rotations(log: Log) -> None:
    log.write("before\n")
    follower = LogFollower(log.path, from_end=True)
    log.write("1\n")
    assert drain(follower) == "1\n"
    log.write("2\n")
    log.rotate()
    log.write("3\n")
    log.rotate()
    log.write("4\n")
    log.rotate()
    assert drain(follower) == "2\n3\n4\n"
    log.write("5\n")
    assert drain(follower) == "5\n"
    follower.close()


def test_a_follower_waits_for_a_log_and_survives_its_emptying(log: Log) -> None:
    follower = LogFollower(log.path)
    assert drain(follower) == ""
    log.write("first\n")
    assert drain(follower) == "first\n"
    log.path.write_text("")
    assert drain(follower) == ""
    log.write("new\n")
    assert drain(follower) == "new\n"
    follower.close()


def test_the_next_incarnation_begins_a_new_log(log: Log) -> None:
    log.write("old full\n")
    log.age(30)
    log.rotate()
    log.write("old\n")
    log.age(20)
    follower = LogFollower(log.path, from_end=True)
    log.write("old end\n")
    log.age(10)
    log.path.rename(log.path.with_name("x.log.previous"))
    log.write("new full\n")
    log.rotate()
    log.write("new\n")
    assert drain(follower) == "old end\nnew full\nnew\n"
    assert last_lines(log.path, 9) == b"new full\nnew\n"
    follower.close()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(st.sampled_from(["write", "rotate", "read"]), max_size=30),
    lines=st.integers(0, 40),
)
def test_tail_and_follower_together_are_the_log(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str], lines: int
) -> None:
    log = Log(tmp_path_factory.mktemp("log") / "x.log", files=100)
    written: list[str] = []

    def write() -> None:
        written.append(f"line {len(written)}\n")
        log.write(written[-1])

    for step in steps:
        write() if step == "write" else log.rotate() if step == "rotate" and log.path.exists() else None
    if not log.path.exists():
        log.path.touch()
    follower = LogFollower(log.path, from_end=True)
    tail = last_lines(log.path, lines, before=follower.start).decode()
    assert tail == "".join(written[len(written) - lines :] if lines < len(written) else written)
    seen = len(written)
    read = ""
    for step in steps:
        if step == "write":
            write()
        elif step == "rotate":
            log.rotate()
        else:
            read += drain(follower)
    read += drain(follower)
    follower.close()
    assert read == "".join(written[seen:])


def test_last_lines_over_blocks_and_files(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_files, "BLOCK", 7)
    lines = [f"{'x' * number}\n" for number in range(20)]
    log.write("".join(lines[:10]))
    log.rotate()
    log.write("".join(lines[10:]) + "unfinished")
    for count in range(22):
        whole = [*lines, "unfinished"]
        assert last_lines(log.path, count).decode() == "".join(whole[len(whole) - count :] if count else [])
    assert last_lines(log.path, 100).decode() == "".join([*lines, "unfinished"])
    assert last_lines(log.path.with_name("nothing"), 5) == b""


def test_tail_text_begins_with_a_line(log: Log) -> None:
    assert tail_text(log.path, 10) == ""
    log.write("first line\nsecond\n")
    assert tail_text(log.path, 100) == "first line\nsecond\n"
    assert tail_text(log.path, 10) == "second\n"


def test_tail_text_goes_back_over_a_rotation(log: Log) -> None:
    log.write("first line\nsecond\n")
    log.rotate()
    log.write("third\n")
    log.rotate()
    log.write("fourth\n")
    assert tail_text(log.path, 100) == "first line\nsecond\nthird\nfourth\n"
    assert tail_text(log.path, 21) == "second\nthird\nfourth\n"
    assert tail_text(log.path, 20) == "third\nfourth\n"
    assert tail_text(log.path, 13) == "third\nfourth\n"
    assert tail_text(log.path, 7) == "fourth\n"


def test_tail_text_is_of_one_incarnation_as_the_keeper_writes_it(log: Log) -> None:
    """The one before ended just when its log was full."""
    kept = {"max_bytes": 40, "files": 3}
    first = RotatedLog(str(log.path), **kept)
    first.write(b"first: all is well\n" * 2)
    first.write(b"x" * (LONGEST_LINE_BYTES + 40) + b"\n")
    first.close()
    second = RotatedLog(str(log.path), **kept)
    second.write(b"second: short\n")
    assert tail_text(log.path, 4096) == "second: short\n"
    assert last_lines(log.path, 9) == b"second: short\n"
    previous = log.path.with_name("x.log.previous")
    assert previous.exists()
    os.utime(previous, (0, 0))
    for file in log.path.parent.glob("x.log.[0-9]"):
        os.utime(file, (0, 0))
    second.write(b"second: a line that fills it\n")
    second.write(b"second: the end\n")
    second.close()
    assert log.path.read_text() == "second: the end\n"
    assert tail_text(log.path, 4096).startswith("second: short\n")
    assert tail_text(log.path, 4096).endswith("\nsecond: the end\n")


async def take(pieces: AsyncGenerator[str, None], enough: str) -> str:
    text = ""
    async with asyncio.timeout(PATIENCE_S):
        while enough not in text:
            text += await anext(pieces)
    return text


@pytest.mark.asyncio
async def test_read_log(log: Log) -> None:
    with pytest.raises(NoLog, match=r"x\.log"):
        await anext(read_log(log.path, lines=5, follow=False, previous=False))
    log.write("a\nb\nc\n")
    assert [piece async for piece in read_log(log.path, lines=2, follow=False, previous=False)] == ["b\nc\n"]
    log.path.with_name("x.log.previous").write_text("old\n")
    assert [piece async for piece in read_log(log.path, lines=9, follow=True, previous=True)] == ["old\n"]
    following = read_log(log.path, lines=1, follow=True, previous=False)
    assert await take(following, "c\n") == "c\n"
    log.write("d\n")
    log.rotate()
    log.write("e\n")
    assert await take(following, "e\n") == "d\ne\n"
    await following.aclose()


@pytest.mark.asyncio
async def test_the_disk_of_a_log_is_never_touched_on_the_loop(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    touched = set()
    real = log_files._open

    def opens(path: Path) -> int | None:
        touched.add(threading.current_thread())
        return real(path)

    monkeypatch.setattr(log_files, "_open", opens)
    log.write("a\n")
    following = read_log(log.path, lines=1, follow=True, previous=False)
    assert await take(following, "a\n") == "a\n"
    log.write("b\n")
    log.rotate()
    log.write("c\n")
    assert await take(following, "c\n") == "b\nc\n"
    await following.aclose()
    assert touched
    assert threading.main_thread() not in touched


@pytest.mark.asyncio
async def test_a_reader_that_leaves_while_the_disk_hangs_closes_no_file_under_the_read(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.write("a\n")
    reads, let_go, closed = threading.Event(), threading.Event(), threading.Event()

    def hangs(follower: LogFollower) -> bytes:
        reads.set()
        let_go.wait()
        return b""

    monkeypatch.setattr(LogFollower, "read", hangs)
    monkeypatch.setattr(LogFollower, "close", lambda follower: closed.set())
    following = read_log(log.path, lines=1, follow=True, previous=False)
    try:
        assert await take(following, "a\n") == "a\n"
        waiting = asyncio.create_task(anext(following))
        await until(reads.is_set)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert not closed.is_set()
    finally:
        let_go.set()
    await until(closed.is_set)


@pytest.mark.asyncio
async def test_a_character_that_comes_in_two_pieces(log: Log) -> None:
    log.write("x\n")
    following = read_log(log.path, lines=1, follow=True, previous=False)
    assert await take(following, "x\n") == "x\n"
    waiting = asyncio.create_task(take(following, "ü"))
    await asyncio.sleep(0)
    with log.path.open("ab") as file:
        file.write("ü\n".encode()[:1])
    with log.path.open("ab") as file:
        file.write("ü\n".encode()[1:])
    assert "�" not in await waiting
    await following.aclose()
