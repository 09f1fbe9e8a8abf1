"""Which processes belong to an engine, and ending them all.

A process is the engine's when that is proven: it descends from the keeper (a subreaper, which starts
nothing else), it is the recorded main process, it carries the nonce in its environment, it is in the
session of the main process while a proven member is in that session too, or it descends from such a
one. Nothing is concluded from a bare pid.
"""

import errno
import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

from supervisord_cp.keeper.protocol import NONCE_VARIABLE

INIT: Final = 1
LISTINGS: Final = 20
FREEZE_ROUNDS: Final = 50
"""A process that cannot be frozen (state D) does not fork either; the next kill tries it again."""
FREEZE_PAUSE_S: Final = 0.001


class Process(NamedTuple):
    """One line of the process table."""

    pid: int
    parent: int
    session: int
    state: str
    threads: int
    start_ticks: int

    @property
    def identity(self) -> "Identity":
        return Identity(self.pid, self.start_ticks)

    @property
    def alive(self) -> bool:
        """Not a zombie; one whose other threads still run is alive, and so is what it holds."""
        return self.state not in "ZX" or self.threads > 1

    @property
    def runs(self) -> bool:
        """May fork at this moment."""
        return self.state in "RS"


class Identity(NamedTuple):
    """What no other process of this boot has."""

    pid: int
    start_ticks: int


Table = Mapping[int, Process]


class Unsettled(Exception):
    """It cannot be told whether anything is left."""


def parse_stat(stat: str) -> Process:
    """`/proc/PID/stat`; the name in it may hold blanks and parentheses.

    Raises:
        ValueError: it is not one.
    """
    head, _, tail = stat.rpartition(")")
    fields = tail.split()
    if len(fields) < 20:
        raise ValueError("not a stat line")
    return Process(
        pid=int(head.partition(" ")[0]),
        parent=int(fields[1]),
        session=int(fields[3]),
        state=fields[0],
        threads=int(fields[17]),
        start_ticks=int(fields[19]),
    )


def read_process(pid: int) -> Process | None:
    """A process, None when there is none.

    Raises:
        OSError: it cannot be told.
    """
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return parse_stat(file.read())
    except (FileNotFoundError, ProcessLookupError):
        return None


def read_table() -> tuple[dict[int, Process], bool]:
    """Every process of the machine, and whether that is all.

    One that ended between being listed and being read may have left a child that was not there to be
    listed. So it is listed again until none does; where they are faster than that, it may not be all.
    """
    table: dict[int, Process] = {}
    seen: set[int] = set()
    for listing in range(LISTINGS):
        new = {int(name) for name in os.listdir("/proc") if name.isdigit()} - seen
        found = [process for pid in new if (process := read_process(pid)) is not None]
        table |= {process.pid: process for process in found}
        seen |= new
        # The first listing takes long to read: the second one brings it up to date.
        if listing and len(found) == len(new) and all(process.alive for process in found):
            return table, True
    return table, False


def members(
    table: Table, *, keeper: int, main: Identity | None, carries: Callable[[Process], bool]
) -> dict[int, Process]:
    """The processes of a table that are proven to be the engine's, zombies included."""
    children: dict[int, list[Process]] = {}
    for process in table.values():
        children.setdefault(process.parent, []).append(process)
    proven: dict[int, Process] = {}

    def prove(seeds: Iterable[Process]) -> None:
        pending = list(seeds)
        while pending:
            process = pending.pop()
            if process.pid not in proven and process.pid not in (keeper, INIT):
                proven[process.pid] = process
                pending += children.get(process.pid, ())

    prove(children.get(keeper, ()))
    if main is not None:
        prove(process for process in table.values() if process.identity == main)
    prove(process for process in table.values() if process.pid not in proven and carries(process))
    if main is not None and any(process.session == main.pid for process in proven.values()):
        # The session was the main process's when this member joined it, and a session's number is
        # not given again while it has members.
        prove(process for process in table.values() if process.session == main.pid)
    return proven


class Tree:
    """The processes of one engine."""

    def __init__(self, *, nonce: str, main: Identity | None) -> None:
        if not nonce:
            raise ValueError("an empty nonce proves nothing")
        self._keeper = os.getpid()
        self._main = main
        self._mark = mark_of(nonce)
        self._carries: dict[Identity, bool] = {}

    def kill(self) -> list[int]:
        """SIGKILL to all of it. Whom it was sent to, in order of pid: nobody when nothing is left.

        They are frozen first, until a look finds none that is new and none that runs: whoever forks
        faster than it is killed, or leaves its parent meanwhile, is caught.

        Raises:
            OSError: the process table cannot be read.
            Unsettled: none was found, but there may be some.
        """
        frozen: dict[Identity, Process] = {}
        settled = False
        for _ in range(FREEZE_ROUNDS):
            found, settled = self._scan()
            new = {process.identity: process for process in found if process.identity not in frozen}
            for process in new.values():
                signal_exactly(process, signal.SIGSTOP)
            frozen |= new
            if settled and not new and not any(process.runs for process in found):
                break
            time.sleep(FREEZE_PAUSE_S)
        for process in frozen.values():
            signal_exactly(process, signal.SIGKILL)
        if not frozen and not settled:
            raise Unsettled("processes come and go faster than they can be looked at")
        return sorted(process.pid for process in frozen.values())

    def _scan(self) -> tuple[list[Process], bool]:
        table, settled = read_table()
        found = members(table, keeper=self._keeper, main=self._main, carries=self._carries_nonce)
        return [process for process in found.values() if process.alive], settled

    def _carries_nonce(self, process: Process) -> bool:
        if (known := self._carries.get(process.identity)) is not None:
            return known
        variables = environment(process.pid)
        carries = self._mark in variables
        if variables:  # nothing to be read now may be something a moment later
            self._carries[process.identity] = carries
        return carries


def mark_of(nonce: str) -> bytes:
    """What the environment of a process with this nonce holds."""
    return f"{NONCE_VARIABLE}={nonce}".encode()


def contradicts(pid: int, nonce: str) -> bool:
    """Whether the environment of a process can be read and is that of somebody else."""
    variables = environment(pid)
    return any(variables) and mark_of(nonce) not in variables


def environment(pid: int) -> list[bytes]:
    """The environment a process was started with, empty when it cannot be read."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read().split(b"\0")
    except OSError:
        return []


def signal_exactly(process: Process, number: signal.Signals) -> bool:
    """Send a signal to this process and to no later owner of its pid. Whether it was sent."""
    try:
        pidfd = os.pidfd_open(process.pid)
    except OSError as error:
        if error.errno in (errno.ESRCH, errno.EINVAL):  # EINVAL: a thread's number by now
            return False
        raise
    try:
        now = read_process(process.pid)
        if now is None or now.identity != process.identity:
            return False
        signal.pidfd_send_signal(pidfd, number)
    except (ProcessLookupError, PermissionError):
        return False
    finally:
        os.close(pidfd)
    return True
