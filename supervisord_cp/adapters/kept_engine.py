"""A handle on one engine and its keeper, whichever back end started the keeper."""

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from supervisord_cp.adapters import proctree
from supervisord_cp.adapters.keeper_directory import ExitDocument, IncarnationDirectory, StatusDocument
from supervisord_cp.adapters.keeper_link import KeeperLink, connect
from supervisord_cp.ports.process import ExitStatus, ProcessRecord, SpawnFailed

log = logging.getLogger(__name__)

FIRST_WORD_S: Final = 5.0
"""How long a keeper may take to say how things are, before they are taken as recorded."""
REPORT_WAIT_S: Final = 4.0
"""How long a keeper may take to report an end that is seen, before nobody is taken to have seen how. It may
wait for a slow disk to take the last words first."""
FIRST_PAUSE_S: Final = 0.05
LONGEST_PAUSE_S: Final = 5.0

StartKeeper = Callable[[IncarnationDirectory], Awaitable[None]]
"""Starts a keeper that ends the leftovers, or one that goes on in the place of a killed one; returns when
it is at work, or somebody else is.

Raises SpawnFailed."""


class KeptEngine:
    """One incarnation; see `ports.process.EngineProcess`.

    One task follows the keeper: while it is connected the keeper's word counts, without a keeper the
    documents that it left. Made on a running loop.
    """

    def __init__(
        self,
        directory: IncarnationDirectory,
        record: ProcessRecord,
        *,
        start_sweeper: StartKeeper,
        resume: StartKeeper | None = None,
        report_wait_s: float = REPORT_WAIT_S,
    ) -> None:
        """`resume` None: an engine ends with its keeper."""
        loop = asyncio.get_running_loop()
        self._directory = directory
        self._record = record
        self._start_sweeper = start_sweeper
        self._resume = resume
        self._report_wait_s = report_wait_s
        self._exited: asyncio.Future[ExitStatus] = loop.create_future()
        self._gone: asyncio.Future[None] = loop.create_future()
        self._known = asyncio.Event()
        self._end_wanted = asyncio.Event()
        self._grace_s: float | None = None
        self._survivors: tuple[int, ...] = ()
        self._log_lost_bytes = 0
        self._link: KeeperLink | None = None
        self._main: int | None = None
        self._pause_s = 0.0
        self._report_due: asyncio.TimerHandle | None = None
        self._task = loop.create_task(self._follow(), name=f"keeper of {record.instance}")

    @property
    def record(self) -> ProcessRecord:
        return self._record

    @property
    def exited(self) -> asyncio.Future[ExitStatus]:
        return self._exited

    @property
    def log_lost_bytes(self) -> int:
        return self._log_lost_bytes

    async def attach(self) -> None:
        """Wait until it is known how things stand: `exited` is done if the engine has ended."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_WORD_S):
                await self._known.wait()

    async def stop(self, *, grace_s: float) -> None:
        self._grace_s = grace_s if self._grace_s is None else min(grace_s, self._grace_s)
        self._end_wanted.set()
        if self._link is not None:
            self._link.stop(grace_s)

    async def gone(self) -> None:
        self._end_wanted.set()
        await asyncio.shield(self._gone)

    def survivors(self) -> Sequence[int]:
        if self._gone.done():
            return ()
        alive = {pid for pid in self._survivors if proctree.start_ticks(pid) is not None}
        if proctree.is_kept(self._record):
            alive.update(proctree.descendants(self._record.keeper_pid))
        if proctree.is_running(self._record):
            alive.update((self._record.pid, *proctree.descendants(self._record.pid)))
        return sorted(alive)

    def close(self) -> None:
        self._task.cancel()
        self._unwatch_main()
        if self._report_due is not None:
            self._report_due.cancel()
        if self._link is not None:
            self._link.close()
        self._exited.cancel()
        self._gone.cancel()

    async def _follow(self) -> None:
        """Until nothing is left: listen to a keeper while there is one, then to what it left on disk."""
        while not self._gone.done():
            try:
                await self._look()
            except (OSError, RuntimeError) as error:  # no more descriptors, no more threads: it may pass
                log.warning("cannot see how %s is: %s", self._record.instance, error)
                await self._pause()

    async def _look(self) -> None:
        link = await connect(self._directory.path, self._on_status)
        if link is not None:
            await self._listen(link)
        ended = await asyncio.to_thread(self._directory.exit)
        if (ended is not None and ended.gone) or self._rebooted():
            self._on_exit(ended)
            self._on_gone()
        elif link is None and not (ended is None and await self._resumed()):
            self._on_exit(ended)
            await self._end_wanted.wait()
            await self._pause()
            await self._sweep()

    async def _resumed(self) -> bool:
        """Whether there may be a keeper again: one that was killed gets a successor while the engine runs."""
        if self._resume is None or self._exited.done() or not proctree.is_running(self._record):
            return False
        await self._pause()
        try:
            await self._resume(self._directory)
        except SpawnFailed as error:
            log.warning("%s cannot get another keeper: %s", self._record.instance, error)
            return False
        log.warning("the keeper of %s was killed: another one goes on", self._record.instance)
        return True

    async def _pause(self) -> None:
        """Longer each time; the first time none."""
        await asyncio.sleep(self._pause_s)
        self._pause_s = min(LONGEST_PAUSE_S, 2 * self._pause_s + FIRST_PAUSE_S)

    async def _listen(self, link: KeeperLink) -> None:
        self._link = link
        if self._grace_s is not None:
            link.stop(self._grace_s)
        try:
            await link.lost
        finally:
            self._link = None
            link.close()

    async def _sweep(self) -> None:
        try:
            await self._start_sweeper(self._directory)
        except SpawnFailed as error:
            log.warning("leftovers of %s cannot be ended yet: %s", self._record.instance, error)

    def _on_status(self, status: StatusDocument) -> None:
        if status.record is not None:
            self._record = status.record
        self._survivors = status.survivors
        self._log_lost_bytes = status.log_dropped_bytes
        if status.exit is not None:
            self._on_exit(status.exit)
        elif self._exited.done():
            # It was taken for ended when no keeper was to be found; that is not taken back.
            self._grace_s = 0.0
            if self._link is not None:
                self._link.stop(self._grace_s)
        elif self._main is None:
            self._watch_main()
        if status.gone:
            self._on_gone()
        self._known.set()

    def _on_exit(self, ended: ExitDocument | None) -> None:
        """`None`: nobody saw it."""
        self._unwatch_main()
        self._known.set()
        if self._exited.done():
            return
        if ended is None:
            self._exited.set_result(ExitStatus(keeper_lost=True, requested=self._grace_s is not None))
        else:
            self._exited.set_result(ended.status())

    def _on_gone(self) -> None:
        if not self._gone.done():
            self._gone.set_result(None)

    def _rebooted(self) -> bool:
        return self._record.pid != 0 and self._record.boot_id != proctree.running_boot_id()

    def _watch_main(self) -> None:
        """See the main process end even when its keeper is stuck, on a dead disk for instance."""
        try:
            pidfd = os.pidfd_open(self._record.pid)
        except OSError:
            return  # it has ended just now: the keeper is about to say how
        if not proctree.is_running(self._record):
            os.close(pidfd)
            return
        self._main = pidfd
        asyncio.get_running_loop().add_reader(pidfd, self._on_main_ended)

    def _unwatch_main(self) -> None:
        if self._main is not None:
            self._task.get_loop().remove_reader(self._main)
            os.close(self._main)
            self._main = None

    def _on_main_ended(self) -> None:
        self._unwatch_main()
        loop = asyncio.get_running_loop()
        self._report_due = loop.call_later(self._report_wait_s, self._on_exit, None)
