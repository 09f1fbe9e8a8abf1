"""The keeper's loop: output, requests, signals, deadlines; in the end nothing of the tree is left."""

import contextlib
import math
import os
import selectors
import signal
import time
from typing import Any, Final

from supervisord_cp.keeper import host
from supervisord_cp.keeper.control import Control
from supervisord_cp.keeper.directory import complain, write_document
from supervisord_cp.keeper.pipe import OutputPipe
from supervisord_cp.keeper.proctree import Tree, Unsettled
from supervisord_cp.keeper.protocol import EXIT, PROTOCOL, ExitDocument, RecordDocument, StatusDocument
from supervisord_cp.keeper.signals import SignalPipe

DEFAULT_GRACE_S: Final = 30.0
"""Of a stop by SIGTERM to the keeper itself."""
FIRST_RETRY_S: Final = 0.005
LONGEST_RETRY_S: Final = 1.0
"""A process in state D may stay for hours: it is tried again this often, and shown meanwhile."""
READ_AGAIN_S: Final = 0.01
LOSSES_APART_S: Final = 10.0
SAVE_RETRY_S: Final = 1.0
"""The keeper stays until the disk has room for how the engine ended."""


class Keeper:
    """Keeps one engine whose main process is a child; or, without one, ends what is left of an engine."""

    def __init__(
        self,
        *,
        tree: Tree,
        record: RecordDocument | None,
        output: OutputPipe | None = None,
        ended: ExitDocument | None = None,
        main_pidfd: int | None = None,
    ) -> None:
        """`output` comes with a running main process, `ended` without one, `main_pidfd` with one that is
        no child.

        Raises:
            OSError: the socket cannot be made.
        """
        self._tree = tree
        self._record = record
        self._output = output
        self._exit = ended
        self._stopping = False
        self._survivors: list[int] = []
        self._childless = False
        self._gone = False
        self._over = False
        self._kill_at = math.inf if ended is None else 0.0
        self._kill_retry_s = FIRST_RETRY_S
        self._save_at = math.inf
        self._read_at = math.inf
        self._losses_told = 0
        self._losses_told_at = -math.inf
        self._selector = selectors.DefaultSelector()
        self._signals = SignalPipe()
        self._selector.register(self._signals.read_end, selectors.EVENT_READ, self._on_signal)
        self._main_pidfd = main_pidfd
        if main_pidfd is not None:
            self._selector.register(main_pidfd, selectors.EVENT_READ, self._on_main_ended)
        if output is not None:
            self._selector.register(output.read_end, selectors.EVENT_READ, self._on_output)
        self._control = Control(self._selector, status=self._status, handle=self._handle)

    def run(self) -> None:
        """Until nothing of the tree is left and how it ended is on disk."""
        try:
            self._turn(time.monotonic())  # it may have ended before signals were watched
            while not self._over:
                for key, mask in self._selector.select(self._wait_s()):
                    key.data(mask)
                self._turn(time.monotonic())
        finally:
            self._control.close()
            if self._output is not None:
                self._output.close()
            self._selector.close()

    def _wait_s(self) -> float | None:
        due = min(self._kill_at, self._save_at, self._read_at)
        return None if due == math.inf else max(0.0, due - time.monotonic())

    def _turn(self, now: float) -> None:
        self._reap(now)
        if now >= self._kill_at:
            self._kill(now)
        if now >= self._save_at:
            self._save(now)
        if now >= self._read_at:
            self._read_on()
        self._tell_of_losses(now)

    def _reap(self, now: float) -> None:
        """Collect every child that ended: the main process, and orphans that came to us."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self._childless = True
                return
            self._childless = False
            if pid == 0:
                return
            if self._record is not None and pid == self._record["pid"] and self._exit is None:
                self._on_exit(os.waitstatus_to_exitcode(status), now)
            elif self._exit is not None and not self._gone:
                self._kill_at = now  # perhaps it was the last one

    def _on_main_ended(self, _: int) -> None:
        """Of a main process that is no child: its parent, the init process, has its status."""
        assert self._main_pidfd is not None
        assert self._record is not None
        self._selector.unregister(self._main_pidfd)
        code = host.exit_code(self._main_pidfd, self._record["pid"], self._record["start_ticks"])
        self._on_exit(code, time.monotonic())

    def _on_exit(self, code: int | None, now: float) -> None:
        if self._output is not None:
            self._output.drain(now)  # its last words are in the log before anybody hears of its end
        self._exit = exit_document(code, requested=self._stopping)
        self._control.publish()
        self._kill_at = now
        self._kill_retry_s = FIRST_RETRY_S
        self._save_at = now

    def _kill(self, now: float) -> None:
        try:
            killed = self._tree.kill()
        except (OSError, Unsettled) as error:
            complain(f"cannot look for processes: {error}; trying again")
            killed = self._survivors
        else:
            # Whoever descends from a keeper is, however quickly it forks, a child's descendant: having
            # no child is the proof. A sweeper never has one and goes by the process table alone.
            if self._exit is not None and not killed and self._childless:
                self._kill_at = math.inf
                self._on_gone(now)
                return
        self._kill_at = now + self._kill_retry_s
        self._kill_retry_s = min(LONGEST_RETRY_S, 2 * self._kill_retry_s)
        if self._exit is not None and killed != self._survivors:
            self._survivors = killed
            self._control.publish()

    def _on_gone(self, now: float) -> None:
        if self._output is not None:
            self._output.drain(now)
        self._gone = True
        self._survivors = []
        self._save(now)
        self._control.publish()

    def _save(self, now: float) -> None:
        """Write how it ended; when the disk is full, try again later rather than be gone without it."""
        assert self._exit is not None
        self._exit["gone"] = self._gone
        self._exit["log_dropped_bytes"] = self._dropped_bytes()
        try:
            write_document(EXIT, self._exit)
        except FileNotFoundError:
            pass  # the directory was removed: nobody wants to know
        except OSError as error:
            complain(f"cannot write {EXIT}: {error}; trying again")
            self._save_at = now + SAVE_RETRY_S
            return
        self._save_at = math.inf
        self._over = self._gone

    def _on_output(self, _: int) -> None:
        assert self._output is not None
        now = time.monotonic()
        if not self._output.takes_more(now):
            self._selector.unregister(self._output.read_end)
            self._read_at = now + READ_AGAIN_S
        elif not self._output.forward(now):
            self._selector.unregister(self._output.read_end)

    def _read_on(self) -> None:
        """The disk was slower than the engine."""
        assert self._output is not None
        self._read_at = math.inf
        self._selector.register(self._output.read_end, selectors.EVENT_READ, self._on_output)

    def _on_signal(self, _: int) -> None:
        for number in self._signals.read():
            if number in (signal.SIGTERM, signal.SIGINT):
                self._stop(DEFAULT_GRACE_S)
                self._over = self._over or self._gone

    def _handle(self, request: dict[str, Any]) -> None:
        match request:
            case {"op": "stop", "grace_s": int() | float() as grace_s} if 0 <= grace_s < math.inf:
                self._stop(grace_s)
            case {"op": "signal", "signal": int() as number} if number in signal.valid_signals():
                self._signal(number)
            case _:
                raise ValueError(f"unknown request {request}")

    def _stop(self, grace_s: float) -> None:
        if self._exit is not None:
            return
        if not self._stopping:
            self._stopping = True
            self._signal(signal.SIGTERM)
            self._signal(signal.SIGCONT)  # a stopped process would never see the other one
            self._control.publish()
        self._kill_at = min(self._kill_at, time.monotonic() + grace_s)

    def _signal(self, number: int) -> None:
        """To the main process: as a child that is not reaped its pid is its own, else there is a pidfd."""
        if self._record is None or self._exit is not None:
            return
        if self._main_pidfd is None:
            os.kill(self._record["pid"], number)
        else:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._main_pidfd, number)

    def _tell_of_losses(self, now: float) -> None:
        """Output that the disk does not take is no secret, and no flood either."""
        lost = self._dropped_bytes()
        if lost != self._losses_told and now - self._losses_told_at >= LOSSES_APART_S:
            self._losses_told, self._losses_told_at = lost, now
            self._control.publish()

    def _dropped_bytes(self) -> int:
        return 0 if self._output is None else self._output.dropped_bytes

    def _status(self) -> StatusDocument:
        return StatusDocument(
            protocol=PROTOCOL,
            record=self._record,
            stopping=self._stopping,
            exit=self._exit,
            survivors=self._survivors,
            gone=self._gone,
            log_dropped_bytes=self._dropped_bytes(),
        )


def exit_document(code: int | None, *, requested: bool) -> ExitDocument:
    """An end that is seen now. `code`: an exit status, negative for a signal; None: nobody saw it."""
    return ExitDocument(
        code=code if code is not None and code >= 0 else None,
        signal=-code if code is not None and code < 0 else None,
        requested=requested,
        keeper_lost=code is None,
        boot_id=host.boot_id(),
        boottime_s=host.boottime(),
        time_s=time.time(),
        gone=False,
        log_dropped_bytes=0,
    )
