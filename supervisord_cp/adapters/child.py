"""A child process whose output is read: started with subprocess, watched with a pidfd.

asyncio's own subprocess transport lets two parties reap a child, and the one that comes second reports
an exit status that nobody had.
"""

import asyncio
import os
import subprocess
from collections.abc import Mapping, Sequence


class Child:
    """A running child. Everything happens on the loop that started it."""

    def __init__(
        self, popen: subprocess.Popen[bytes], stdout: asyncio.StreamReader, pipe: asyncio.ReadTransport
    ) -> None:
        self._popen = popen
        self._pipe = pipe
        self._ended = asyncio.Event()
        self._pidfd = os.pidfd_open(popen.pid)
        self.stdout = stdout
        asyncio.get_running_loop().add_reader(self._pidfd, self._reap)

    @classmethod
    async def start(cls, argv: Sequence[str], *, env: Mapping[str, str] | None, limit: int) -> "Child":
        """Start it in a session of its own; `limit` bounds a line of its output, in bytes.

        Raises:
            OSError: it cannot be run.
        """
        popen = subprocess.Popen(  # noqa: ASYNC220 - a fork, some ms, once in a life of the child
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=env, start_new_session=True
        )
        assert popen.stdout is not None
        reader = asyncio.StreamReader(limit)
        pipe, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), popen.stdout
        )
        return cls(popen, reader, pipe)

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        return self._popen.returncode

    def kill(self) -> None:
        """SIGKILL, if it still runs."""
        if self.returncode is None:
            self._popen.kill()

    async def wait(self) -> None:
        """Wait for its end."""
        await self._ended.wait()

    def _reap(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._popen.wait()
        self._pipe.close()
        self._ended.set()
