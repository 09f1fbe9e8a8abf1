"""Signals as bytes in a pipe, so that the keeper's loop waits for them as for everything else."""

import os
import signal
from types import FrameType
from typing import Final

WATCHED: Final = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""SIGHUP is watched to be ignored: a handler, unlike SIG_IGN, is not handed on to the engine."""


class SignalPipe:
    """From its making on, watched signals do nothing but show up here."""

    def __init__(self) -> None:
        self.read_end, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        for number in WATCHED:
            signal.signal(number, _nothing)

    def read(self) -> set[int]:
        """The numbers that came since the last time."""
        try:
            return set(os.read(self.read_end, 4096))
        except BlockingIOError:
            return set()


def _nothing(number: int, frame: FrameType | None) -> None:
    """The byte in the pipe is the news."""
