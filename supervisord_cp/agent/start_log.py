"""The log of a start, read in another thread: a disk that hangs holds up nobody who is not waiting for it."""

import asyncio
import logging
from pathlib import Path

from supervisord_cp.agent.log_files import LogFollower

log = logging.getLogger(__name__)


class StartLog:
    """What an engine writes from the beginning of its log, piece by piece."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._follower: LogFollower | None = None
        self._reading: asyncio.Future[bytes] | None = None
        self._late = False

    async def read(self, within_s: float) -> bytes:
        """The next piece; empty when there is nothing new, or the disk does not answer in time. Such a read
        is not given up, and no other begins: a later call has what it found."""
        if self._reading is None:
            self._reading = asyncio.get_running_loop().run_in_executor(None, self._read)
        await asyncio.wait([self._reading], timeout=within_s)
        if not self._reading.done():
            if not self._late:
                log.warning("the log %s cannot be read: its disk does not answer", self._path)
            self._late = True
            return b""
        done, self._reading, self._late = self._reading, None, False
        return done.result()

    def close(self) -> None:
        """Let go of the file, as soon as nobody reads it."""
        if self._reading is None:
            self._close()
        else:
            self._reading.add_done_callback(self._closed_after)

    def _read(self) -> bytes:
        if self._follower is None:
            self._follower = LogFollower(self._path)
        return self._follower.read()

    def _closed_after(self, reading: asyncio.Future[bytes]) -> None:
        if not reading.cancelled():
            reading.exception()  # nobody is interested any more
        self._close()

    def _close(self) -> None:
        if self._follower is not None:
            self._follower.close()
