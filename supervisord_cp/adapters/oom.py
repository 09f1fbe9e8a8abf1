"""The kernel's OOM killer: whether it killed an engine's processes, from the best evidence there is.

An engine with a cgroup of its own (a unit of its own) has a counter of its own. Else the kernel's log names
the victims, where this user may read it. Else there is the counter of the whole host, which may speak of
somebody else's process.
"""

import os
import re
from collections import deque
from collections.abc import Collection
from pathlib import Path
from typing import Final

from supervisord_cp.clock import Clock
from supervisord_cp.model.base import Value

VMSTAT: Final = Path("/proc/vmstat")
KERNEL_LOG: Final = Path("/dev/kmsg")
CGROUPS: Final = Path("/sys/fs/cgroup")
PROC: Final = Path("/proc")
FIRST_PID_NAMESPACE: Final = "pid:[4026531836]"
"""In any other one the numbers in the kernel's log are not ours."""
WINDOW_S: Final = 20.0
"""An engine can outlive its killed part by some seconds: vLLM's server looks after its core every 5 s."""
APART_S: Final = 1.0
RECORD_BYTES: Final = 8192
MOST_RECORDS: Final = 10_000

_VICTIM: Final = re.compile(r"Killed process (?P<pid>\d+) \((?P<name>[^)]*)\)")


class OomKills(Value, frozen=True, kw_only=True):
    """Kills that explain an end."""

    number: int = 0
    evidence: str = ""


NO_KILLS: Final = OomKills()


class Cgroup:
    """The control group that an engine has to itself, with what its counter said at first."""

    def __init__(self, folder: Path) -> None:
        self._events = folder / "memory.events"
        self._before = kills(self._events) or 0

    def kills(self) -> int | None:
        """Kills in it since then; None: it is not there any more."""
        now = kills(self._events)
        return None if now is None else now - self._before


class KernelLog:
    """Victims of the OOM killer that the kernel's log names."""

    def __init__(self, clock: Clock, path: Path = KERNEL_LOG, proc: Path = PROC) -> None:
        self._clock = clock
        self._file: int | None = None
        self._victims: deque[tuple[float, int, str]] = deque()
        try:
            if str((proc / "self/ns/pid").readlink()) == FIRST_PID_NAMESPACE:
                self._file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                os.lseek(self._file, 0, os.SEEK_END)
        except OSError:
            self._file = None

    def victims(self) -> dict[int, str] | None:
        """Names of the processes that were killed lately, by pid; None: it cannot be told."""
        if self._file is None:
            return None
        now = self._clock.now()
        for _ in range(MOST_RECORDS):
            try:
                record = os.read(self._file, RECORD_BYTES)
            except BrokenPipeError:
                continue  # records were overwritten before they were read
            except OSError:
                break  # nothing new
            if not record:
                break
            for match in _VICTIM.finditer(record.decode(errors="replace")):
                self._victims.append((now, int(match["pid"]), match["name"]))
        while self._victims and self._victims[0][0] <= now - WINDOW_S:
            self._victims.popleft()
        return {pid: name for _, pid, name in self._victims}


class OomWatch:
    """Counts recent kills. Wants to be looked at about once a second."""

    def __init__(self, clock: Clock, path: Path = VMSTAT, *, log: KernelLog | None = None) -> None:
        self._clock = clock
        self._path = path
        self._log = log
        self._counts: deque[tuple[float, int]] = deque()

    def look(self) -> None:
        """Note how many there have been; quick, and often means nothing."""
        now = self._clock.now()
        if not self._counts or now - self._counts[-1][0] >= APART_S:
            self._note(now)

    def of(self, pids: Collection[int], cgroup: Cgroup | None) -> OomKills:
        """What it has done to an engine with these processes within the last seconds."""
        if cgroup is not None and (number := cgroup.kills()) is not None:
            return OomKills(number=number, evidence=f"the kernel's OOM killer ended {_counted(number)} of it")
        host = self._recent()
        victims = self._log.victims() if self._log is not None and host else None
        if victims is None:
            ended = f"the kernel's OOM killer ended {_counted(host)} of this host just before"
            return OomKills(number=host, evidence=ended)
        named = [f"{pid} ({victims[pid]})" for pid in sorted(set(pids) & set(victims))]
        return OomKills(number=len(named), evidence=f"the kernel's OOM killer ended its {', '.join(named)}")

    def _recent(self) -> int:
        """Processes of this host that were killed for want of memory within the last seconds."""
        self._note(self._clock.now())
        return self._counts[-1][1] - self._counts[0][1] if self._counts else 0

    def _note(self, now: float) -> None:
        count = kills(self._path)
        if count is None:
            return
        self._counts.append((now, count))
        while len(self._counts) > 1 and self._counts[1][0] <= now - WINDOW_S:
            self._counts.popleft()


def kills(path: Path = VMSTAT) -> int | None:
    """Kills that a file of counters tells; None: there is no such counter."""
    try:
        text = path.read_text(encoding="ascii")
    except OSError:
        return None
    for line in text.splitlines():
        name, _, number = line.partition(" ")
        if name == "oom_kill" and number.isdigit():
            return int(number)
    return None


def cgroup_of(pid: int, proc: Path = PROC, cgroups: Path = CGROUPS) -> Cgroup | None:
    """The control group (version 2) of a process; None when it shares that with us, or it cannot be told."""
    theirs, ours = _cgroup_path(proc / str(pid)), _cgroup_path(proc / "self")
    if not theirs or theirs in ("/", ours) or ours.startswith(f"{theirs}/"):
        return None
    folder = cgroups / theirs.lstrip("/")
    return Cgroup(folder) if kills(folder / "memory.events") is not None else None


def _cgroup_path(folder: Path) -> str:
    try:
        lines = (folder / "cgroup").read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.removeprefix("0::") for line in lines if line.startswith("0::")), "")


def _counted(number: int) -> str:
    return "1 process" if number == 1 else f"{number} processes"
