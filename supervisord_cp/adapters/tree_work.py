"""What processes have done so far, as the kernel counts it."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from supervisord_cp.core.instances.startup import Work

PROC: Final = Path("/proc")
IO_FIELDS: Final = frozenset({"rchar", "wchar", "read_bytes"})
"""What is read through calls, written, and brought in by page faults (mapped weights)."""


def work_of(pids: Iterable[int], proc: Path = PROC) -> Work:
    """The sum over these processes. Those that are gone, and what another user may not see, count nothing."""
    ticks = os.sysconf("SC_CLK_TCK")
    io_bytes, cpu_ticks = 0, 0
    for pid in pids:
        io_bytes += _io_bytes(proc / str(pid))
        cpu_ticks += _cpu_ticks(proc / str(pid))
    return Work(io_bytes=io_bytes, cpu_s=cpu_ticks / ticks)


def _io_bytes(folder: Path) -> int:
    try:
        lines = (folder / "io").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.partition(":")[0] in IO_FIELDS)


def _cpu_ticks(folder: Path) -> int:
    try:
        fields = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return 0
    return sum(map(int, fields[11:13]))
