"""Telling systemd how we are: READY, STATUS, STOPPING, RELOADING, WATCHDOG. Without systemd: nothing."""

import logging
import os
import socket
import time
from array import array
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Final

log = logging.getLogger(__name__)

_FIRST_PASSED: Final = 3


class Notifier:
    """Sends datagrams to `NOTIFY_SOCKET`. Never raises, never blocks: the manager may be gone."""

    def __init__(self, environ: Mapping[str, str], pid: int | None = None) -> None:
        """`environ` is the process's environment; `pid` (default: ours) is whom the watchdog watches."""
        path = environ.get("NOTIFY_SOCKET", "")
        self._address = b"\0" + path[1:].encode() if path.startswith("@") else path.encode()
        self.watchdog_s = _watchdog_s(environ, os.getpid() if pid is None else pid)
        """How often at least `watchdog()` must be called, in seconds; None: not at all."""

    def ready(self, status: str = "") -> None:
        """The start is complete."""
        self._send(f"READY=1\nSTATUS={status}" if status else "READY=1")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._send(f"STATUS={text}")

    def reloading(self) -> None:
        """The configuration is being read again; `ready()` ends it."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The end has begun."""
        self._send("STOPPING=1")

    def keep(self, sockets: Sequence[socket.socket], name: str, *, instead: bool = False) -> None:
        """Have systemd hold these sockets open while we are restarted (`FileDescriptorStoreMax=`), `instead`
        of those that it holds by this name. They need not listen yet."""
        if instead:
            self._send(f"FDSTOREREMOVE=1\nFDNAME={name}")
        self._send(f"FDSTORE=1\nFDPOLL=0\nFDNAME={name}", [one.fileno() for one in sockets])

    def watchdog(self) -> None:
        """Still making progress. Call it from the work itself, not from a timer beside it."""
        self._send("WATCHDOG=1")

    def _send(self, text: str, descriptors: Sequence[int] = ()) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.setblocking(False)
                # Not socket.send_fds, which ignores the address before Python 3.12.
                rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors))
                sender.sendmsg([text.encode()], [rights] if descriptors else [], 0, self._address)
        except OSError as error:
            log.debug("systemd was not told %r: %s", text, error)


def _watchdog_s(environ: Mapping[str, str], pid: int) -> float | None:
    """Half of what systemd waits, as its documentation advises."""
    microseconds = environ.get("WATCHDOG_USEC", "")
    if not microseconds.isdecimal() or environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    return int(microseconds) / 2e6 or None


def take_sockets(environ: MutableMapping[str, str]) -> list[socket.socket]:
    """The sockets that systemd has passed to this process, of a socket unit or kept over a restart; taken
    out of the environment."""
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdecimal():
        return []
    passed = range(_FIRST_PASSED, _FIRST_PASSED + int(count))
    for descriptor in passed:
        os.set_inheritable(descriptor, False)
    return [socket.socket(fileno=descriptor) for descriptor in passed]
