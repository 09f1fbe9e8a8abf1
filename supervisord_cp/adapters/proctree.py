"""What /proc says of recorded processes: whether they are still themselves, and what descends from them.

Only looking: processes are ended by keepers alone.
"""

from pathlib import Path
from typing import Final

import psutil

from supervisord_cp.ports.process import ProcessRecord

NONCE_VARIABLE: Final = "SUPERVISORD_CP_NONCE"
BOOT_ID_PATH: Final = Path("/proc/sys/kernel/random/boot_id")


def running_boot_id() -> str:
    """The identity of the running boot."""
    return BOOT_ID_PATH.read_text(encoding="ascii").strip()


def start_ticks(pid: int) -> int | None:
    """Field 22 of /proc/PID/stat; None when there is no such process or only its zombie is left."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    # a process whose first thread has ended is shown as a zombie while others run
    if len(fields) < 20 or (fields[0] in "ZX" and fields[17] == "1"):
        return None
    return int(fields[19])


def is_running(record: ProcessRecord) -> bool:
    """Whether the recorded main process is alive, and is the recorded one in every respect."""
    return (
        record.boot_id == running_boot_id()
        and start_ticks(record.pid) == record.start_ticks
        and _carries(record.pid, record.nonce) is not False
    )


def is_kept(record: ProcessRecord) -> bool:
    """Whether the recorded keeper is alive."""
    return record.boot_id == running_boot_id() and start_ticks(record.keeper_pid) == record.keeper_start_ticks


def descendants(pid: int) -> list[int]:
    """Pids of living children, their children, and so on; in order."""
    try:
        children = psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []
    return sorted(child.pid for child in children if start_ticks(child.pid) is not None)


def _carries(pid: int, nonce: str) -> bool | None:
    """Whether the nonce is in the environment of a process; None when that cannot be read."""
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return None
    if not environment.strip(b"\0"):
        return None  # wiped by a change of title, or read while the program was being loaded
    return f"{NONCE_VARIABLE}={nonce}".encode() in environment.split(b"\0")
