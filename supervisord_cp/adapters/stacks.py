"""What the threads of processes are doing, as the kernel tells it: no debugger, nothing is stopped."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")
MAX_THREADS: Final = 512
"""Of one process; CUDA and OpenMP bring hundreds that all sleep in the same place."""


def stacks_of(pids: Iterable[int], proc: Path = PROC) -> str:
    """One block per process: its state, and its threads by what they wait for. Processes that are gone
    are left out. What the kernel does not tell this user is left out, too.

    Command lines are not read: that blocks behind a process which is stuck in the kernel.
    """
    return "\n".join(line for pid in pids for line in _process(proc / str(pid)))


def _process(folder: Path) -> Iterator[str]:
    stat = _text(folder / "stat")
    if not stat:
        return
    fields = stat.rpartition(")")[2].split()
    cpu_ticks = sum(map(int, fields[11:13]))
    yield (
        f"pid {folder.name} {_text(folder / 'comm')}: state {fields[0]}, parent {fields[1]},"
        f" {fields[17]} threads, {cpu_ticks} CPU ticks"
    )
    for thread, count in Counter(_threads(folder)).most_common():
        yield f"  {count} x {thread}"
    for line in _text(folder / "stack").splitlines():
        yield f"    {line}"


def _threads(folder: Path) -> Iterator[str]:
    try:
        tasks = sorted((folder / "task").iterdir())[:MAX_THREADS]
    except OSError:
        return
    for task in tasks:
        state = _text(task / "stat").rpartition(")")[2].split()[:1]
        if state:
            call = _text(task / "syscall").split(" ")[0]
            where = _text(task / "wchan")
            waits = f" in {where}" if where not in ("", "0") else ""
            called = f" (system call {call})" if call.isdigit() else ""
            yield f"{_text(task / 'comm')}: {state[0]}{waits}{called}"


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
