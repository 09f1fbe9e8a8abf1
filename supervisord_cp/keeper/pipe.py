"""The engine's standard output and standard error, on their way into its log."""

import contextlib
import fcntl
import os
import stat
from typing import Final

from supervisord_cp.keeper.output import RotatedLog
from supervisord_cp.keeper.writer import LogWriter

CHUNK_BYTES: Final = 64 * 1024
PIPE_BYTES: Final = 256 * 1024
DRAIN_S: Final = 2.0
"""How long the last words may take to get to the disk before the end is told without them."""


class OutputPipe:
    """The pipe that is the engine's standard output and standard error.

    The engine holds its read end, too: while a killed keeper is replaced nobody gets SIGPIPE, and what is
    written meanwhile waits in the pipe.
    """

    def __init__(self, log: RotatedLog, read_end: int | None = None) -> None:
        """`read_end` of a pipe that an engine writes to already; default: a new pipe."""
        self._writer = LogWriter(log)
        if read_end is not None:
            self.read_end = read_end
            return
        self.read_end, self.write_end = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self.read_end, False)
        with contextlib.suppress(OSError):  # over the user's limit: the usual size will do
            fcntl.fcntl(self.write_end, fcntl.F_SETPIPE_SZ, PIPE_BYTES)

    @property
    def dropped_bytes(self) -> int:
        return self._writer.dropped_bytes

    def takes_more(self, now: float) -> bool:
        """Whether it makes sense to read on."""
        return self._writer.takes_more(now)

    def forward(self, now: float) -> bool:
        """Move what is there, one chunk at most. False: nothing more will come."""
        try:
            data = os.read(self.read_end, CHUNK_BYTES)
        except BlockingIOError:
            return True
        self._writer.put(data, now)
        return bool(data)

    def drain(self, now: float) -> None:
        """Have in the log what was written until now; neither who writes on for ever nor a disk that hangs
        is waited for."""
        for _ in range(2 * PIPE_BYTES // CHUNK_BYTES):
            try:
                data = os.read(self.read_end, CHUNK_BYTES)
            except BlockingIOError:
                break
            if not data:
                break
            self._writer.put(data, now)
        self._writer.flush(DRAIN_S)

    def started(self) -> None:
        """The engine has its end; from here on end of file means that nobody writes any more."""
        os.close(self.write_end)

    def close(self) -> None:
        os.close(self.read_end)
        self._writer.close(DRAIN_S)


def read_end_of(pid: int) -> int | None:
    """Another read end of the pipe that is a process's standard output; None: that is no pipe any more.

    Raises:
        OSError: the process is gone, or somebody else's.
    """
    path = f"/proc/{pid}/fd/1"
    if not stat.S_ISFIFO(os.stat(path).st_mode):
        return None
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
