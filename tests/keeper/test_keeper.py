"""A keeper by itself: what it says on its socket, what clients and disks cannot do to it."""

import asyncio
import json
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from supervisord_cp.keeper import run
from tests.keeper import programs
from tests.keeper.host import Host, ends, is_alive
from tests.waiting import PATIENCE_S, until

pytestmark = [pytest.mark.process, pytest.mark.asyncio]

KEEPER = Path(run.__file__).with_name("__main__.py")
Status = dict[str, Any]


class Client:
    """A connection to a keeper, without any of the agent's code."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    async def next(self) -> Status | None:
        """What it says next, None when it closes."""
        async with asyncio.timeout(PATIENCE_S):
            line = await self._reader.readline()
        return json.loads(line) if line else None

    async def until(self, holds: Callable[[Status], bool]) -> Status:
        while (status := await self.next()) is not None:
            if holds(status):
                return status
        raise AssertionError("the keeper closed the connection")

    def ask(self, **request: object) -> None:
        self.say(json.dumps(request).encode())

    def say(self, line: bytes) -> None:
        self.writer.write(line + b"\n")


@contextmanager
def address(directory: Path) -> Iterator[str]:
    """The keeper's socket by a name that fits in an address however deep the folder is."""
    parent = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{parent}/keeper.sock"
    finally:
        os.close(parent)


@asynccontextmanager
async def connected(directory: Path) -> AsyncIterator[Client]:
    with address(directory) as name:
        reader, writer = await asyncio.open_unix_connection(name)
    try:
        yield Client(reader, writer)
    finally:
        writer.transport.abort()  # what it did not read or send does not matter
        with suppress(ConnectionError):
            await writer.wait_closed()


def exit_document(directory: Path) -> Status:
    document: Status = json.loads((directory / "exit.json").read_text())
    return document


async def test_every_connection_is_told_how_things_are(host: Host) -> None:
    engine = await host.spawn(programs.SLEEPER)
    directory = host.directory(engine.record)
    for _ in range(2):
        async with connected(directory) as client:
            status = await client.next()
            assert status is not None
            assert status["record"] == json.loads((directory / "record.json").read_text())
            assert (status["stopping"], status["exit"], status["gone"]) == (False, None, False)
            client.ask(op="status")
            assert await client.next() == status


async def test_changes_are_told_in_order(host: Host) -> None:
    engine = await host.spawn((*programs.ESCAPEES, "keep"))
    async with connected(host.directory(engine.record)) as client:
        client.ask(op="stop", grace_s=PATIENCE_S)
        await client.until(lambda status: status["stopping"] and status["exit"] is None)
        ended = await client.until(lambda status: status["exit"] is not None)
        assert (ended["exit"]["code"], ended["exit"]["requested"], ended["gone"]) == (0, True, False)
        left = await client.until(lambda status: status["survivors"] != [])
        assert set(left["survivors"]) <= {engine.record.pid, *host.numbers_said()}
        gone = await client.until(lambda status: status["gone"])
        assert gone["survivors"] == []
        assert exit_document(host.directory(engine.record))["gone"] is True
        assert await client.next() is None


async def test_a_signal_is_passed_on(host: Host) -> None:
    engine = await host.spawn(programs.EXITS_ON_USR1)
    async with connected(host.directory(engine.record)) as client:
        client.ask(op="signal", signal=int(signal.SIGUSR1))
        ended = await client.until(lambda status: status["exit"] is not None)
    assert (ended["exit"]["code"], ended["exit"]["requested"]) == (7, False)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"not json",
        b"[]",
        b"\xff",
        b'{"op": "dance"}',
        b'{"op": "stop"}',
        b'{"op": "stop", "grace_s": -1}',
        b'{"op": "stop", "grace_s": NaN}',
        b'{"op": "stop", "grace_s": "1"}',
        b'{"op": "signal", "signal": 4000}',
    ],
)
async def test_nonsense_is_ignored(host: Host, line: bytes) -> None:
    engine = await host.spawn(programs.SLEEPER)
    async with connected(host.directory(engine.record)) as client:
        before = await client.next()
        client.say(line)
        client.ask(op="status")
        assert await client.next() == before
    assert is_alive(engine.record.pid)


async def test_a_line_without_end_ends_the_connection_only(host: Host) -> None:
    engine = await host.spawn(programs.SLEEPER)
    async with connected(host.directory(engine.record)) as client:
        client.writer.write(b"x" * 1024 * 1024)
        with pytest.raises((AssertionError, ConnectionError)):
            await client.until(lambda _: False)
    async with connected(host.directory(engine.record)) as client:
        assert await client.next()


def pester(directory: Path) -> None:
    """Ask and never read, until the keeper has had enough."""
    with socket.socket(socket.AF_UNIX) as connection, address(directory) as name:
        connection.connect(name)
        for _ in range(100):
            connection.sendall(b'{"op": "status"}\n' * 1000)


async def test_a_client_that_does_not_read_is_let_go(host: Host) -> None:
    engine = await host.spawn(programs.SLEEPER)
    with pytest.raises(ConnectionError):
        await asyncio.to_thread(pester, host.directory(engine.record))
    async with connected(host.directory(engine.record)) as client:
        assert await client.next()
    assert is_alive(engine.record.pid)


async def test_too_many_clients_are_turned_away(host: Host) -> None:
    engine = await host.spawn(programs.SLEEPER)
    directory = host.directory(engine.record)
    async with AsyncExitStack() as stack:
        said = [await (await stack.enter_async_context(connected(directory))).next() for _ in range(40)]
    assert said[0] is not None
    assert said[-1] is None
    assert is_alive(engine.record.keeper_pid)
    await engine.stop(grace_s=0)
    await engine.gone()


async def test_no_line_is_lost_over_a_hundred_rotations(host: Host) -> None:
    request = host.request(programs.counts_to(200_000), log_max_bytes=20_000, log_files=130)
    engine = host.keep(await host.agent().spawn(request))
    await engine.gone()
    assert exit_document(host.directory(engine.record))["code"] == 0
    files = host.logs()
    assert len(files) > 100
    assert max(path.stat().st_size for path in files) <= 20_000
    lines = [line for path in files for line in path.read_text().splitlines()]
    assert lines == [f"line {number:06}" for number in range(200_000)]


async def test_the_last_words_are_in_the_log_when_the_exit_is_told(host: Host) -> None:
    engine = host.keep(await host.agent().spawn(host.request(programs.counts_to(20_000))))
    await engine.exited
    assert host.text().endswith("line 019999\n")


async def test_an_engine_that_floods_its_output_can_be_stopped(host: Host) -> None:
    engine = host.keep(await host.agent().spawn(host.request(programs.FLOOD, log_files=1)))
    await until(lambda: len(list(host.log.parent.iterdir())) == 2)
    await engine.stop(grace_s=0)
    await engine.gone()
    assert sum(path.stat().st_size for path in host.log.parent.iterdir()) < 5 * 1024 * 1024


async def test_a_full_disk_blocks_nobody_and_hides_no_exit(host: Host) -> None:
    engine = await host.spawn(programs.FLOODS_ON_USR1)
    keeper, directory = engine.record.keeper_pid, host.directory(engine.record)
    soft, hard = resource.prlimit(keeper, resource.RLIMIT_FSIZE)
    resource.prlimit(keeper, resource.RLIMIT_FSIZE, (16, hard))  # no file may grow beyond
    os.kill(engine.record.pid, signal.SIGUSR1)
    status = await engine.exited
    assert status.code == 4
    await engine.gone()
    async with connected(directory) as client:
        told = await client.next()
        assert told is not None
        assert (told["gone"], told["log_dropped_bytes"] > 1_000_000) == (True, True)
    assert not (directory / "exit.json").exists()
    resource.prlimit(keeper, resource.RLIMIT_FSIZE, (soft, hard))
    await ends(keeper)
    assert (exit_document(directory)["code"], exit_document(directory)["gone"]) == (4, True)


async def test_a_keeper_whose_directory_is_removed_does_not_stay_for_ever(host: Host) -> None:
    engine = await host.spawn(programs.POLITE)
    directory = host.directory(engine.record)
    directory.rename(directory.with_name("elsewhere"))
    for path in directory.with_name("elsewhere").iterdir():
        path.unlink()
    directory.with_name("elsewhere").rmdir()
    os.kill(engine.record.pid, signal.SIGTERM)
    await ends(engine.record.keeper_pid)


async def test_a_keeper_starts_an_incarnation_once(host: Host) -> None:
    engine = await host.spawn(programs.SLEEPER)
    directory = host.directory(engine.record)
    assert await asyncio.to_thread(start_keeper, directory) == (1, {"answer": "busy"})
    await engine.stop(grace_s=0)
    await engine.gone()
    await ends(engine.record.keeper_pid)
    again = {"answer": "failed", "message": "this incarnation was started before"}
    assert await asyncio.to_thread(start_keeper, directory) == (1, again)


def start_keeper(directory: Path) -> tuple[int, Status]:
    """Exit code and answer of one that ends at once."""
    read_end, write_end = os.pipe()
    argv = [sys.executable, "-I", "-S", str(KEEPER), str(directory), "--ready-fd", str(write_end)]
    with os.fdopen(read_end, "rb") as answers, subprocess.Popen(argv, pass_fds=(write_end,)) as keeper:
        os.close(write_end)
        answer: Status = json.loads(answers.read())
        return keeper.wait(), answer


SWEEPER = """
import os, sys, time
sys.path.append(sys.argv[1])
os.chdir(sys.argv[2])
from supervisord_cp.keeper.keeper import Keeper, exit_document

class Tree:
    def kill(self):
        return [] if os.path.exists("gone") else SURVIVORS

CHILD
Keeper(tree=Tree(), record=None, ended=exit_document(None, requested=False)).run()
"""
UNKILLABLE = SWEEPER.replace("SURVIVORS", "[4711, 4712]").replace("CHILD", "")
OVERLOOKED = SWEEPER.replace("SURVIVORS", "[]").replace(
    "CHILD", "if os.fork() == 0:\n    while not os.path.exists('gone'): time.sleep(0.01)\n    os._exit(0)"
)


@contextmanager
def keeper_of(program: str, directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The keeper's loop with a process table of the test's own making."""
    argv = [sys.executable, "-I", "-S", "-c", program, str(KEEPER.parents[2]), str(directory)]
    with subprocess.Popen(argv) as keeper:
        try:
            yield keeper
        finally:
            keeper.kill()


def listens(directory: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as connection, address(directory) as name:
        return connection.connect_ex(name) == 0


async def test_processes_that_cannot_be_killed_are_shown_and_tried_again(tmp_path: Path) -> None:
    with keeper_of(UNKILLABLE, tmp_path) as keeper:
        await until(lambda: listens(tmp_path))
        async with connected(tmp_path) as client:
            await client.until(lambda status: status["survivors"] == [4711, 4712])
            client.ask(op="stop", grace_s=0)
            client.ask(op="status")
            assert (await client.until(lambda status: not status["gone"]))["survivors"] == [4711, 4712]
            (tmp_path / "gone").touch()
            await client.until(lambda status: status["gone"])
        assert await asyncio.to_thread(keeper.wait) == 0
    assert exit_document(tmp_path)["gone"] is True


async def test_nothing_is_gone_while_a_child_is_there(tmp_path: Path) -> None:
    """Whoever forks quickly enough is in no look at the process table."""
    with keeper_of(OVERLOOKED, tmp_path) as keeper:
        await until(lambda: listens(tmp_path))
        for _ in range(20):
            async with connected(tmp_path) as client:
                status = await client.next()
                assert status is not None
                assert not status["gone"]
        (tmp_path / "gone").touch()
        assert await asyncio.to_thread(keeper.wait) == 0
    assert exit_document(tmp_path)["gone"] is True
