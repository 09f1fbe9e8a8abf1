"""Signals as values in a loop that sleeps: no work is done in handlers."""

import contextlib
import select
import signal
import socket
from collections.abc import Iterator
from typing import Final

STOPPING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Asked to end; SIGHUP is the terminal that was closed."""


class Signals:
    """What has arrived since it was last asked."""

    def __init__(self, receiver: socket.socket) -> None:
        self._receiver = receiver

    def wait(self, timeout_s: float) -> list[int]:
        """Sleep until a signal comes or the time has passed. SIGCHLD wakes too and is returned."""
        if not select.select([self._receiver], [], [], timeout_s)[0]:
            return []
        with contextlib.suppress(BlockingIOError):
            return list(self._receiver.recv(4096))
        return []

    def asked_to_stop(self, timeout_s: float) -> int:
        """How often we were asked to end within one `wait`."""
        return sum(number in STOPPING for number in self.wait(timeout_s))


@contextlib.contextmanager
def caught() -> Iterator[Signals]:
    """Catch the signals that end us, and those of children, until the block is left. Main thread only."""
    receiver, sender = socket.socketpair()
    receiver.setblocking(False)
    sender.setblocking(False)
    watched = [*STOPPING, signal.SIGCHLD]
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        watched.remove(signal.SIGHUP)  # nohup
    before = {number: signal.signal(number, lambda *_: None) for number in watched}
    wakeup = signal.set_wakeup_fd(sender.fileno())
    try:
        yield Signals(receiver)
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        receiver.close()
        sender.close()
