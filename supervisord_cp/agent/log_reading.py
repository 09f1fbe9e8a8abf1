"""Reading a log in another thread: a disk that hangs holds up nobody who is not waiting for it."""

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

from supervisord_cp.agent.log_files import LogFollower, last_lines

log = logging.getLogger(__name__)


class LogReading:
    """A log's pieces in order, one read at a time."""

    def __init__(self, path: Path, *, from_end: bool = False) -> None:
        self._path = path
        self._from_end = from_end
        self._follower: LogFollower | None = None
        self._reading: asyncio.Future[bytes] | None = None
        self._late = False

    async def tail(self, lines: int) -> bytes:
        """The last lines before what `read` begins with; to be asked for first."""
        return await self._done(partial(self._tail, lines), None)

    async def read(self, within_s: float | None = None) -> bytes:
        """The next piece; empty when there is nothing new, or the disk does not answer in time. Such a read
        is not given up, and no other begins: a later call has what it found."""
        return await self._done(self._read, within_s)

    def close(self) -> None:
        """Let go of the file, as soon as nobody reads it."""
        if self._reading is None:
            self._close()
        else:
            self._reading.add_done_callback(self._closed_after)

    async def _done(self, read: Callable[[], bytes], within_s: float | None) -> bytes:
        if self._reading is None:
            self._reading = asyncio.get_running_loop().run_in_executor(None, read)
        await asyncio.wait([self._reading], timeout=within_s)  # which does not cancel it
        if not self._reading.done():
            if not self._late:
                log.warning("the log %s cannot be read: its disk does not answer", self._path)
            self._late = True
            return b""
        done, self._reading, self._late = self._reading, None, False
        return done.result()

    def _open(self) -> LogFollower:
        if self._follower is None:
            self._follower = LogFollower(self._path, from_end=self._from_end)
        return self._follower

    def _tail(self, lines: int) -> bytes:
        return last_lines(self._path, lines, before=self._open().start)

    def _read(self) -> bytes:
        return self._open().read()

    def _closed_after(self, reading: asyncio.Future[bytes]) -> None:
        if not reading.cancelled():
            reading.exception()  # nobody is interested any more
        self._close()

    def _close(self) -> None:
        if self._follower is not None:
            self._follower.close()
