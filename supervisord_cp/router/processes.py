"""A process that serves, as the one that holds the address sees it."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from msgspec.json import encode

from supervisord_cp.model.base import Value
from supervisord_cp.router.board import COLUMNS
from supervisord_cp.router.seat import SeatPlan, mailbox_name

_OF_SYSTEMD: Final = frozenset({"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"})


class ProcessState(Value, frozen=True, kw_only=True):
    """What is remembered of one while the program that keeps it is replaced."""

    pid: int
    number: int
    channel: int
    leaving: bool


class Process:
    """Our child. Whoever made it reaps it."""

    def __init__(self, pid: int, number: int, channel: socket.socket) -> None:
        self.pid = pid
        self.number = number
        self.channel = channel
        self.channel.setblocking(False)
        self.pidfd = os.pidfd_open(pid)
        self.ready = False
        self.leaving = False
        self._heard = b""

    @classmethod
    def spawn(
        cls, arguments: Sequence[str], claim: "Claim", listeners: Sequence[int], config: int, board: int
    ) -> "Process":
        """Start one; what it claims is its own from now on.

        Raises:
            OSError: no process can be made.
        """
        ours, theirs = socket.socketpair()
        mailbox = claim.mailbox
        with theirs, mailbox:
            plan = SeatPlan(
                number=claim.number,
                address=claim.address,
                holder=os.getpid(),
                listeners=tuple(listeners),
                config=config,
                board=board,
                mailbox=mailbox.fileno(),
                channel=theirs.fileno(),
            )
            try:
                child = subprocess.Popen(
                    [sys.executable, "-P", "-m", "supervisord_cp.router", *arguments, encode(plan).decode()],
                    stdin=subprocess.DEVNULL,
                    pass_fds=(*listeners, config, board, mailbox.fileno(), theirs.fileno()),
                    env={name: value for name, value in os.environ.items() if name not in _OF_SYSTEMD},
                    start_new_session=True,  # a terminal's Ctrl-C is for the one that holds the address
                )
            except OSError:
                ours.close()
                raise
        child.returncode = 0  # reaped by us, by its pid
        return cls(child.pid, claim.number, ours)

    @classmethod
    def resume(cls, state: ProcessState) -> "Process":
        """One that was made before our program was replaced."""
        made = cls(state.pid, state.number, socket.socket(fileno=state.channel))
        made.ready = True
        made.leaving = state.leaving
        return made

    @property
    def state(self) -> ProcessState:
        return ProcessState(
            pid=self.pid, number=self.number, channel=self.channel.fileno(), leaving=self.leaving
        )

    def tell(self, word: str) -> None:
        """Say something to it; it may have ended."""
        with contextlib.suppress(OSError):
            self.channel.send(f"{word}\n".encode())

    def heard(self) -> list[str]:
        """What it has said since we last listened."""
        try:
            self._heard += self.channel.recv(4096)
        except OSError:
            return []
        *lines, self._heard = self._heard.split(b"\n")
        return [line.decode() for line in lines]

    def signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, number)

    def reap(self) -> int:
        """After its end: how it ended, a negative signal or a status."""
        _, status = os.waitpid(self.pid, 0)
        os.close(self.pidfd)
        self.channel.close()
        return os.waitstatus_to_exitcode(status)


@dataclass(frozen=True, slots=True)
class Claim:
    """A number that no other living process of an address has, for as long as the mailbox is open."""

    address: str
    number: int
    mailbox: socket.socket


def free_number(address: str) -> Claim | None:
    """The lowest one; None: all are taken."""
    for number in range(1, COLUMNS + 1):
        mailbox = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            mailbox.bind(mailbox_name(address, number))
        except OSError:
            mailbox.close()
            continue
        return Claim(address, number, mailbox)
    return None
