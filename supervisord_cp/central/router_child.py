"""The router that central starts: it outlives central, so the next central finds it and lets it be."""

import asyncio
import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from supervisord_cp.adapters.listeners import bind_error, in_use, listener_of
from supervisord_cp.config.schema import Listen

log = logging.getLogger(__name__)

FIRST_DELAY_S: Final = 0.2
LONGEST_DELAY_S: Final = 5.0
STOP_S: Final = 5.0
CONNECTS_S: Final = 5.0
"""How long a router that serves may take to dial a central that has just begun."""


class RouterChild:
    """Keeps one router process running; its identity is on disk, so that it is never started twice."""

    def __init__(
        self, config_path: Path, state_dir: Path, api_listen: Listen, connected: Callable[[str], int | None]
    ) -> None:
        """`connected` gives the pid of the router that follows us and serves an address, if one does."""
        self._config_path = config_path
        self._api = api_listen
        self._connected = connected
        self._record = state_dir / "router.json"
        self._log = state_dir / "router.log"
        self._child: subprocess.Popen[bytes] | None = None
        self._pidfd: int | None = None
        self.pid: int | None = None
        self._said = ""

    async def run(self) -> None:
        """Start it, or find it, and start it again whenever it ends; until cancelled."""
        delay, blocked_since = FIRST_DELAY_S, 0.0
        while True:
            if (found := self._find()) is not None:
                self.pid, self._pidfd = found
                log.info("the router (pid %d) of an earlier central goes on serving", self.pid)
            elif (blocked := self._blocked()) is not None:
                # It may be a router that has yet to connect; only after a while is it somebody else.
                blocked_since = blocked_since or time.monotonic()
                if time.monotonic() - blocked_since > CONNECTS_S:
                    self._say(blocked)
                await asyncio.sleep(delay)
                delay = min(LONGEST_DELAY_S, delay * 2)
                continue
            else:
                self._spawn()
            self._said, blocked_since = "", 0.0
            started = asyncio.get_running_loop().time()
            await self._ended()
            healthy = asyncio.get_running_loop().time() - started > 10.0
            delay = FIRST_DELAY_S if healthy else min(LONGEST_DELAY_S, delay * 2)
            log.warning("the router (pid %s) ended; its log is %s; starting another", self.pid, self._log)
            self._forget()
            await asyncio.sleep(delay)

    def _blocked(self) -> str | None:
        """Why none can be started: somebody listens there, perhaps a router that has yet to connect."""
        error = bind_error(self._api.host, self._api.port)
        if error is None:
            return None
        holder = listener_of(self._api.port) if in_use(error) else ""
        by = f" by {holder}" if holder else ""
        return f"no router is started: [router] api_listen = {self._api}: {error.strerror}{by}"

    def _say(self, message: str) -> None:
        if message != self._said:
            self._said = message
            log.warning("%s", message)

    async def stop(self, drain_s: float, hurry: asyncio.Event) -> None:
        """End it: it has `drain_s` seconds for its open requests, or until somebody hurries."""
        if self._pidfd is None:
            return
        ended = asyncio.create_task(self._ended())
        hurried = asyncio.create_task(hurry.wait())
        self._signal(signal.SIGTERM)
        await asyncio.wait([ended, hurried], timeout=drain_s + STOP_S, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        for number in (signal.SIGTERM, signal.SIGKILL):
            if not ended.done():
                self._signal(number)
                await asyncio.wait([ended], timeout=STOP_S)
        ended.cancel()
        await asyncio.gather(ended, hurried, return_exceptions=True)
        self._forget()

    def _signal(self, number: signal.Signals) -> None:
        if self._pidfd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def close(self) -> None:
        """Let go of it without touching it."""
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None
        if self._child is not None:
            self._child.returncode = 0  # it is meant to outlive us: no warning about a forgotten child
            self._child = None

    def _spawn(self) -> None:
        argv = [sys.executable, "-P", "-m", "supervisord_cp", "router", "-c", str(self._config_path)]
        with self._log.open("ab") as out:
            self._child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={k: v for k, v in os.environ.items() if k not in ("NOTIFY_SOCKET", "WATCHDOG_USEC")},
            )
        self.pid = self._child.pid
        self._pidfd = os.pidfd_open(self.pid)
        self._write_record(self.pid)

    def _write_record(self, pid: int) -> None:
        record = {"pid": pid, "start_ticks": _start_ticks(pid), "boot_id": _boot_id()}
        temporary = self._record.with_suffix(".tmp")
        temporary.write_text(json.dumps(record))
        temporary.replace(self._record)

    def _find(self) -> tuple[int, int] | None:
        """The router that serves already: the recorded one if that very process is still alive, or one
        that follows us (the record may be lost): its pid and a pidfd."""
        if (pid := self._connected(str(self._api))) is not None:
            with contextlib.suppress(OSError):
                pidfd = os.pidfd_open(pid)
                self._write_record(pid)
                return pid, pidfd
        try:
            record = json.loads(self._record.read_text())
            pid, ticks = int(record["pid"]), int(record["start_ticks"])
            if record["boot_id"] != _boot_id():
                return None
            pidfd = os.pidfd_open(pid)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if _start_ticks(pid) != ticks:
            os.close(pidfd)
            return None
        return pid, pidfd

    async def _ended(self) -> None:
        if self._pidfd is None:
            return
        loop = asyncio.get_running_loop()
        over = asyncio.Event()
        loop.add_reader(self._pidfd, over.set)
        try:
            await over.wait()
        finally:
            loop.remove_reader(self._pidfd)
        if self._child is not None:
            self._child.wait()
            self._child = None

    def _forget(self) -> None:
        if self._pidfd is not None:
            os.close(self._pidfd)
        self._pidfd = self.pid = None
        self._record.unlink(missing_ok=True)


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _start_ticks(pid: int) -> int:
    """Field 22 of /proc/PID/stat, -1 when there is no such process."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return -1
