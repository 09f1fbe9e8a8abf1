"""What the keeper asks of Linux itself."""

import ctypes
import fcntl
import os
import signal
import struct
import time
from typing import Final

PR_SET_CHILD_SUBREAPER: Final = 36
KEEPER_OOM_SCORE: Final = -500
PIDFD_GET_INFO: Final = 0xC040_FF0B
"""_IOWR(0xFF, 11, 64 bytes)"""
PIDFD_INFO_EXIT: Final = 1 << 3
BOOT_ID_PATH: Final = "/proc/sys/kernel/random/boot_id"
OOM_SCORE_PATH: Final = "/proc/self/oom_score_adj"


def become_subreaper() -> None:
    """Make orphaned descendants children of this process, wherever they fork to.

    Raises:
        OSError: the kernel refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def boot_id() -> str:
    """The identity of the running boot."""
    with open(BOOT_ID_PATH, encoding="ascii") as file:
        return file.read().strip()


def boottime() -> float:
    """Seconds since boot, suspended time included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def exit_code(pidfd: int, pid: int, start_ticks: int) -> int | None:
    """How a process that has ended and is no child of ours ended, negative for a signal; None: the kernel
    does not say.

    Until its parent has reaped it `/proc/PID/stat` says so, to who may trace it; from then on
    `PIDFD_GET_INFO` of linux/pidfd.h, Linux 6.15 and newer.
    """
    status = _zombie_status(pid, start_ticks)
    if status is None:
        status = _reaped_status(pidfd)
    return None if status is None else os.waitstatus_to_exitcode(status)


def _zombie_status(pid: int, start_ticks: int) -> int | None:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    is_it = len(fields) > 49 and fields[0] == "Z" and fields[19] == str(start_ticks)
    return int(fields[49]) if is_it else None


def _reaped_status(pidfd: int) -> int | None:
    info = bytearray(struct.pack("QQ12I", PIDFD_INFO_EXIT, *[0] * 13))
    try:
        fcntl.ioctl(pidfd, PIDFD_GET_INFO, info)
    except OSError:
        return None  # an older kernel
    mask, *_, status = struct.unpack("QQ11Ii", info)
    return status if mask & PIDFD_INFO_EXIT else None


def restore_signals() -> None:
    """Undo what the starter ignored or blocked: the engine would inherit both."""
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    # Python's own; subprocess restores them in the child
    keep = (signal.SIGPIPE, signal.SIGXFSZ)
    for number in signal.valid_signals():
        if number not in keep and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def raise_oom_score() -> None:
    """Before the engine is started: it must not inherit a protection that was meant for the agent."""
    if _oom_score() < 0:
        _set_oom_score(0)


def lower_oom_score() -> None:
    """After the engine was started: memory is to be had from the engine, not from its keeper."""
    if _oom_score() > KEEPER_OOM_SCORE:
        _set_oom_score(KEEPER_OOM_SCORE)


def _oom_score() -> int:
    try:
        with open(OOM_SCORE_PATH, encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return 0


def _set_oom_score(score: int) -> None:
    try:
        with open(OOM_SCORE_PATH, "w", encoding="ascii") as file:
            file.write(str(score))
    except OSError:
        pass  # lowering needs a privilege that most hosts do not give; nothing depends on it
