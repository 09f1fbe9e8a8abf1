"""Writing the log in a thread of its own: a disk that does not answer holds up nobody but that thread."""

import threading
import time
from collections import deque
from typing import Final

from supervisord_cp.keeper.output import RotatedLog

BUFFER_BYTES: Final = 4 * 1024 * 1024
"""What waits for the disk. While there is no more room the engine's pipe is not read: a slow disk slows an
engine that writes without end, and loses nothing."""
HUNG_S: Final = 5.0
"""A write that takes longer is one of a disk that hangs: what does not fit any more is lost, and counted."""


class LogWriter:
    """Takes pieces of output in order, and writes them in order."""

    def __init__(self, log: RotatedLog) -> None:
        self._log = log
        self._pieces: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._lost_bytes = 0
        self._busy_since: float | None = None
        self._closing = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    @property
    def dropped_bytes(self) -> int:
        """Output that is not in the log."""
        return self._log.dropped_bytes + self._lost_bytes

    def takes_more(self, now: float) -> bool:
        """Whether there is room, or no sense in waiting for it."""
        return self._waiting_bytes < BUFFER_BYTES or self.is_hung(now)

    def is_hung(self, now: float) -> bool:
        """Whether the disk has not answered for long."""
        since = self._busy_since
        return since is not None and now - since > HUNG_S

    def put(self, data: bytes, now: float) -> None:
        """Have a piece written; while the disk hangs and no room is left it is counted instead."""
        with self._changed:
            if self._waiting_bytes >= BUFFER_BYTES and self.is_hung(now):
                self._lost_bytes += len(data)
                return
            self._pieces.append(data)
            self._waiting_bytes += len(data)
            self._changed.notify_all()
        if self._thread is None:  # not before there is something to do: the engine is started without threads
            self._thread = threading.Thread(target=self._write, daemon=True)
            self._thread.start()

    def flush(self, timeout_s: float) -> bool:
        """Wait until all of it is written; not for a disk that hangs. Whether it is."""
        with self._changed:
            if self.is_hung(time.monotonic()):
                return False
            return self._changed.wait_for(lambda: not self._waiting_bytes, timeout_s)

    def close(self, timeout_s: float) -> None:
        """Write what is left, and end; a thread that hangs is left behind."""
        self.flush(timeout_s)
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(timeout_s)
        if self._thread is None or not self._thread.is_alive():
            self._log.close()

    def _write(self) -> None:
        while (piece := self._next()) is not None:
            self._log.write(piece)
            with self._changed:
                self._busy_since = None
                self._waiting_bytes -= len(piece)
                lost, self._lost_bytes = self._lost_bytes, 0
                self._log.skip(lost, "the disk did not answer")
                self._changed.notify_all()

    def _next(self) -> bytes | None:
        with self._changed:
            self._changed.wait_for(lambda: self._pieces or self._closing)
            if not self._pieces:
                return None
            self._busy_since = time.monotonic()
            return self._pieces.popleft()
