"""Processes that tests leave behind.

A test process has a mark, which whatever it starts inherits: its limit on POSIX message queues, which nobody
here uses. Unlike an environment, it is not wiped by a process that titles itself.
"""

import contextlib
import os
import random
import resource
import time
from pathlib import Path
from typing import Final

import psutil

ENDING_S: Final = 30.0
"""What a test has told to end has this time to do so."""


def mark() -> None:
    """Give this process a mark of its own."""
    _, most = resource.getrlimit(resource.RLIMIT_MSGQUEUE)
    number = random.SystemRandom().randrange(1, 2**30 if most == resource.RLIM_INFINITY else most)
    resource.setrlimit(resource.RLIMIT_MSGQUEUE, (number, most))


def end() -> list[str]:
    """Kill what this process has started, directly or not, and what does not end by itself.

    Returns:
        The command line and the working directory of each.
    """
    deadline = time.monotonic() + ENDING_S
    while (found := _marked()) and time.monotonic() < deadline:
        time.sleep(0.02)
    told = []
    for pid in found:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            told.append(f"{' '.join(process.cmdline()).strip()} in {process.cwd()}")
            process.kill()
    return told


def _marked() -> list[int]:
    """Living processes with the mark of this one, which is none of them."""
    ours = resource.getrlimit(resource.RLIMIT_MSGQUEUE)
    found = []
    for pid in (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()):
        with contextlib.suppress(OSError):
            if pid != os.getpid() and resource.prlimit(pid, resource.RLIMIT_MSGQUEUE) == ours and _lives(pid):
                found.append(pid)
    return found


def _lives(pid: int) -> bool:
    """Whether it is no zombie."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
