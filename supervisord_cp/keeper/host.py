"""What the keeper asks of Linux itself."""

import ctypes
import os
import signal
import time
from typing import Final

PR_SET_CHILD_SUBREAPER: Final = 36
KEEPER_OOM_SCORE: Final = -500
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
