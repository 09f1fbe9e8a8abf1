"""`supervisord-cp router`: holds the api listener, and keeps the processes that serve it.

It serves nothing itself, so that it can replace them, and itself, while the address stays open.
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from supervisord_cp.adapters.sd_notify import Notifier
from supervisord_cp.errors import SupervisordError
from supervisord_cp.model.base import Value
from supervisord_cp.router.basis import Basis, first_basis, next_basis, resumed_basis
from supervisord_cp.router.board import Board
from supervisord_cp.router.build import described
from supervisord_cp.router.processes import Process, ProcessState, free_number
from supervisord_cp.router.seat import LEAVE, READY, RESTART, TOLD

log = logging.getLogger(__name__)

STATE: Final = "SUPERVISORD_CP_ROUTER_STATE"
"""The environment variable that carries us over the replacement of our own program."""
START_S: Final = 30.0
"""How long new processes may take until they serve."""
HANGS_S: Final = 60.0
"""A process that has shown no sign of work for so long is killed."""
TICK_S: Final = 0.5
FIRST_DELAY_S: Final = 0.2
LONGEST_DELAY_S: Final = 5.0
LATE_S: Final = 10.0
"""How much longer than allowed a process may take to end."""
HURRIES: Final = 2
"""Asked to hurry more often than this, we kill."""
_SIGNALS: Final = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})


class HolderState(Value, frozen=True, kw_only=True):
    """What outlives our program."""

    listeners: tuple[int, ...]
    config: int
    board: int
    processes: tuple[ProcessState, ...]
    again: bool
    """Whether another restart was asked for meanwhile."""


async def run_processes(path: Path, *, log_level: str = "info", wait: bool = True) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code.

    The first signal lets open requests finish, a second one ends them. With `wait=False` we end at once
    and leave that to the processes that have them. SIGHUP replaces all processes, and our own program, by
    new ones with the configuration as it is then; open requests finish in the old ones.

    Raises:
        ConfigErrors: the configuration is wrong.
        UsageError: it asks for what cannot be (address taken, certificate unreadable, …).
    """
    return await _Holder(path, log_level, wait=wait).run()


class _Holder:
    def __init__(self, path: Path, log_level: str, *, wait: bool) -> None:
        self._path = path
        self._basis: Basis
        self._log_level = log_level
        self._wait = wait
        self._loop = asyncio.get_running_loop()
        self._notifier = Notifier(os.environ)
        self._board: Board
        self._processes: list[Process] = []
        self._woken = asyncio.Event()
        self._asked: list[Process] = []
        """Those through whom an operator has asked for new processes."""
        self._hand_over_wanted = False
        self._ends = 0
        """How often we were asked to end."""
        self._failures = 0
        self._next_start = 0.0

    async def run(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._end_asked)
        self._loop.add_signal_handler(signal.SIGHUP, self._hand_over_asked)
        resumed = self._resume()
        if not resumed:
            self._basis = await first_basis(self._path, self._notifier)
            self._board = Board.make()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        try:
            if not resumed and not await self._begin():
                return 0 if self._ends else 1
            self._notifier.ready(f"serving at {self._basis.url}")
            while not self._ends:
                self._look_after(time.monotonic())
                if self._hand_over_wanted:
                    await self._hand_over()
                await self._sleep(TICK_S)
            return await self._end()
        finally:
            self._close_listeners()  # should we fail, the processes finish what they have

    # --- the beginning

    async def _begin(self) -> bool:
        """Start the first processes; False when none can serve."""
        first = [one for _ in range(self._basis.router.processes) if (one := self._spawn()) is not None]
        if await self._serve(first):
            log.info(
                "the router serves at %s with %d processes, %s", self._basis.url, len(first), described()
            )
            return True
        await self._stop(first)
        return False

    # --- the processes

    def _spawn(self) -> Process | None:
        claim = free_number(self._basis.name)
        if claim is None:
            log.error("no more processes: too many old ones still finish requests")
            return None
        try:
            made = Process.spawn(
                [str(self._path), self._log_level],
                claim,
                self._basis.descriptors,
                self._basis.text,
                self._board.descriptor,
            )
        except OSError as error:
            log.error("no process can be started: %s", error)
            return None
        self._attend(made)
        return made

    def _attend(self, one: Process) -> None:
        self._processes.append(one)
        self._loop.add_reader(one.pidfd, self._ended, one)
        self._loop.add_reader(one.channel, self._listen_to, one)

    def _listen_to(self, one: Process) -> None:
        words = one.heard()
        if not words:
            self._loop.remove_reader(one.channel)
        for word in words:
            if word == READY:
                one.ready = True
            elif word == RESTART:
                self._asked.append(one)
                self._hand_over_asked()
        self._woken.set()

    def _ended(self, one: Process) -> None:
        self._loop.remove_reader(one.pidfd)
        self._loop.remove_reader(one.channel)
        self._processes.remove(one)
        self._board.clear(one.number - 1)
        status = one.reap()
        how = f"signal {-status}" if status < 0 else f"status {status}"
        if one.leaving or self._ends:
            log.info("process %d (pid %d) ended with %s", one.number, one.pid, how)
        else:
            then = "its streams are lost, another one is started" if one.ready else "it did not serve yet"
            log.error("process %d (pid %d) ended with %s: %s", one.number, one.pid, how, then)
        self._woken.set()

    def _look_after(self, now: float) -> None:
        """Start what is missing, end what hangs, and tell systemd that we are well."""
        self._notifier.watchdog()
        for one in self._processes:
            beat = self._board.heartbeat(one.number - 1)
            if one.ready and beat and now - beat / 1e9 > HANGS_S:
                log.error("process %d (pid %d) hangs: killed", one.number, one.pid)
                one.signal(signal.SIGKILL)
        serving = [one for one in self._processes if not one.leaving]
        if all(one.ready for one in serving) and len(serving) >= self._basis.router.processes:
            self._failures = 0
        while len(serving) < self._basis.router.processes and now >= self._next_start:
            self._failures += 1
            self._next_start = now + min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** min(self._failures - 1, 8))
            if (made := self._spawn()) is not None:
                serving.append(made)

    async def _serve(self, those: Sequence[Process]) -> bool:
        """Wait until they serve. False: one of them does not."""
        deadline = time.monotonic() + START_S
        while those and all(one in self._processes for one in those) and time.monotonic() < deadline:
            if all(one.ready for one in those):
                return True
            if self._ends:
                return False
            await self._sleep(TICK_S)
        return False

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        self._woken.clear()

    # --- new ones in the place of the old ones

    def _hand_over_asked(self) -> None:
        self._hand_over_wanted = True
        self._woken.set()

    async def _hand_over(self) -> None:
        """Replace all processes; the old ones go on when that cannot be."""
        self._hand_over_wanted = False
        self._notifier.reloading()
        why = await self._replace()
        for one in self._asked:
            one.tell(TOLD + why.replace("\n", "; "))
        self._asked.clear()
        if why:
            log.error("the router is not restarted, it goes on as it was: %s", why)
        else:
            await self._become_new()
        self._notifier.ready(f"serving at {self._basis.url}")

    async def _replace(self) -> str:
        """Why the old ones go on; "" when new ones serve."""
        old = [one for one in self._processes if not one.leaving]
        before = self._basis
        try:
            self._basis = next_basis(before, self._path, self._notifier)
        except SupervisordError as error:
            return str(error)
        wanted = self._basis.router.processes
        new = [one for _ in range(wanted) if (one := self._spawn()) is not None]
        if len(new) < wanted or not await self._serve(new):
            await self._stop(new)
            if self._basis.listeners is not before.listeners:
                before.keep(self._notifier, instead=True)
            self._basis.close(but=before)
            self._basis = before
            return "the new processes do not serve; the log says why"
        for one in old:
            one.leaving = True
            one.tell(LEAVE)
        before.close(but=self._basis)
        log.info("the router is restarted: %d processes serve, %d finish requests", len(new), len(old))
        return ""

    async def _become_new(self) -> None:
        """Run our program anew, as it is installed now, in this very process."""
        # Signals from now on wait for the handlers of the new program; those that came before are heard.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        for _ in range(2):
            await asyncio.sleep(0)
        if not self._ends:
            self._execute()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)

    def _execute(self) -> None:
        state = HolderState(
            listeners=self._basis.descriptors,
            config=self._basis.text,
            board=self._board.descriptor,
            processes=tuple(one.state for one in self._processes),
            again=self._hand_over_wanted,
        )
        descriptors = (*state.listeners, state.config, state.board, *(one.channel for one in state.processes))
        for descriptor in descriptors:
            os.set_inheritable(descriptor, True)
        os.environ[STATE] = msgspec.json.encode(state).decode()
        try:
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606  # there is no shell
        except OSError as error:
            log.error("the program that holds the address stays the old one: %s", error)
        del os.environ[STATE]
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)

    def _resume(self) -> bool:
        """Take over what our program had before it was replaced; False when there was none."""
        text = os.environ.pop(STATE, "")
        if not text:
            return False
        state = msgspec.json.decode(text, type=HolderState)
        self._basis = resumed_basis(self._path, state.config, state.listeners)
        self._board = Board(state.board)
        self._hand_over_wanted = state.again
        for descriptor in (
            *state.listeners,
            state.config,
            state.board,
            *(one.channel for one in state.processes),
        ):
            os.set_inheritable(descriptor, False)
        for one in state.processes:
            self._attend(Process.resume(one))
        return True

    # --- the end

    def _end_asked(self) -> None:
        self._ends += 1
        if self._ends > 1:
            for one in self._processes:
                one.signal(signal.SIGTERM)
        self._woken.set()

    async def _end(self) -> int:
        self._notifier.stopping()
        self._close_listeners()
        if not self._wait:
            return 0  # the processes see it, and finish what they have
        for one in self._processes:
            one.signal(signal.SIGTERM)
        deadline = time.monotonic() + self._basis.router.drain_timeout_s + LATE_S
        while self._processes:
            await self._sleep(TICK_S)
            if time.monotonic() > deadline or self._ends > 1 + HURRIES:
                for one in self._processes:
                    one.signal(signal.SIGKILL)
        return 0

    def _close_listeners(self) -> None:
        for listening in self._basis.listeners:
            listening.close()

    async def _stop(self, those: Sequence[Process]) -> None:
        """End processes that have nothing to finish."""
        while left := [one for one in those if one in self._processes]:
            for one in left:
                one.leaving = True
                one.signal(signal.SIGKILL)
            await self._sleep(TICK_S)
