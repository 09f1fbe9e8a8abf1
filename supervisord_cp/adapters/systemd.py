"""The systemd back end: each keeper is the main process of a unit, in a user and a control group of its own.

Keepers are spoken to as in the direct back end, through their directories and sockets. The agent needs no
privilege and signals nobody: a polkit rule lets it start, stop and kill the units of its engines.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from supervisord_cp.adapters import proctree
from supervisord_cp.adapters.direct import DirectBackend
from supervisord_cp.adapters.keeper_directory import AnswerDocument, IncarnationDirectory
from supervisord_cp.adapters.kept_engine import REPORT_WAIT_S, KeptEngine, StartKeeper
from supervisord_cp.adapters.systemd_directory import SharedDirectory
from supervisord_cp.adapters.systemd_unit import CONTROL_GROUPS, LINKS, EngineUnit
from supervisord_cp.model.base import InstanceId
from supervisord_cp.ports.process import EngineProcess, ExitStatus, ProcessRecord

log = logging.getLogger(__name__)

STATE_DIR: Final = Path("/var/lib/supervisord-cp")
"""Records of engines are in its folder `instances`, which agent and keepers share."""
OVERDUE_S: Final = 15.0
"""How long after its deadline a keeper is trusted to be at work on the end, before systemd is asked."""
END_WAIT_S: Final = 5.0
"""For systemd to kill what a dead keeper has left."""
FIRST_PAUSE_S: Final = 0.02
LONGEST_PAUSE_S: Final = 1.0


class SystemdBackend(DirectBackend):
    """See `ports.process.ProcessBackend`. Only the start of keepers, and the last resort, are different."""

    def __init__(
        self,
        state_dir: Path = STATE_DIR,
        *,
        links: Path = LINKS,
        control_groups: Path = CONTROL_GROUPS,
        report_wait_s: float = REPORT_WAIT_S,
        overdue_s: float = OVERDUE_S,
    ) -> None:
        super().__init__(state_dir, report_wait_s=report_wait_s)
        self._links = links
        self._control_groups = control_groups
        self._overdue_s = overdue_s

    def forget(self, instance: InstanceId) -> None:
        super().forget(instance)
        EngineUnit(instance, self._links).forget()

    async def _find_one(self, directory: IncarnationDirectory) -> EngineProcess | None:
        return await super()._find_one(SharedDirectory(directory.path))

    def _engine(self, directory: IncarnationDirectory, record: ProcessRecord) -> KeptEngine:
        return UnitEngine(
            SharedDirectory(directory.path),
            record,
            unit=self._unit(directory),
            start_sweeper=self._start_sweeper,
            report_wait_s=self._report_wait_s,
            overdue_s=self._overdue_s,
        )

    async def _start_keeper(self, directory: IncarnationDirectory, *options: str) -> AnswerDocument | None:
        end = _end if "--sweep" in options else _start
        return await asyncio.to_thread(end, self._unit(directory), SharedDirectory(directory.path))

    def _unit(self, directory: IncarnationDirectory) -> EngineUnit:
        instance = directory.path.parent.name
        return EngineUnit(instance, self._links, control_groups=self._control_groups)


class UnitEngine(KeptEngine):
    """One incarnation. What its keeper does not bring about in time, systemd does: it kills the unit."""

    def __init__(
        self,
        directory: SharedDirectory,
        record: ProcessRecord,
        *,
        unit: EngineUnit,
        start_sweeper: StartKeeper,
        report_wait_s: float,
        overdue_s: float,
    ) -> None:
        super().__init__(directory, record, start_sweeper=start_sweeper, report_wait_s=report_wait_s)
        self._directory: SharedDirectory = directory
        self._unit = unit
        self._overdue_s = overdue_s
        self._kill_due: asyncio.TimerHandle | None = None
        self._kill: asyncio.Task[None] | None = None
        self.exited.add_done_callback(self._on_ended)

    async def stop(self, *, grace_s: float) -> None:
        await super().stop(grace_s=grace_s)
        self._kill_in(grace_s + self._overdue_s)

    async def gone(self) -> None:
        """No process is left, and the unit may be started again."""
        await super().gone()
        pause_s = FIRST_PAUSE_S
        while await self._is_in_unit():
            await asyncio.sleep(pause_s)
            pause_s = min(LONGEST_PAUSE_S, 2 * pause_s)
        self._let_be()
        await asyncio.to_thread(self._settle)

    def survivors(self) -> Sequence[int]:
        known = super().survivors()
        if self._gone.done() or proctree.is_kept(self.record):
            return known
        return sorted({*known, *self._unit.members()})

    def close(self) -> None:
        super().close()
        self._let_be()

    def _on_ended(self, ended: asyncio.Future[ExitStatus]) -> None:
        if not ended.cancelled():
            self._kill_in(self._overdue_s)

    def _kill_in(self, delay_s: float) -> None:
        """Unless it is to happen earlier already."""
        loop = asyncio.get_running_loop()
        due = loop.time() + delay_s
        if self._kill_due is None or self._kill_due.cancelled() or due < self._kill_due.when():
            self._let_be()
            self._kill_due = loop.call_at(due, self._begin_kill)

    def _begin_kill(self) -> None:
        self._kill = asyncio.create_task(self._kill_unit(), name=f"kill {self._unit.name}")

    async def _kill_unit(self) -> None:
        """Again and again: who is in state D now need not be for ever."""
        while not self._gone.done() and await self._is_in_unit():
            log.warning("%s is overdue; killing all of it", self._unit.name)
            try:
                await asyncio.to_thread(self._unit.kill)
            except OSError as error:
                log.warning("%s cannot be killed: %s", self._unit.name, error)
            await asyncio.sleep(self._overdue_s)

    def _let_be(self) -> None:
        if self._kill_due is not None:
            self._kill_due.cancel()
        if self._kill is not None:
            self._kill.cancel()

    def _settle(self) -> None:
        """Whoever looks for it next must be able to read that it is over; blocking."""
        try:
            if self._directory.hides_its_end():
                self._directory.settle(self.exited.result())
        except OSError as error:
            log.warning("the end of %s cannot be recorded: %s", self.record.instance, error)

    async def _is_in_unit(self) -> bool:
        """Unknown is not over."""
        try:
            return await asyncio.to_thread(self._unit.runs, self._directory.path)
        except OSError as error:
            log.warning("cannot see how %s is: %s", self._unit.name, error)
            return True


def _start(unit: EngineUnit, directory: SharedDirectory) -> AnswerDocument | None:
    """Start the unit; what its keeper recorded, or why it did not. None: it cannot be told. Blocking."""
    try:
        if not unit.is_over():
            log.warning("%s runs what nothing is recorded of; stopping it", unit.name)
            unit.stop()
            if not unit.is_over():
                left = ", ".join(map(str, unit.members())) or "some that cannot be seen from here"
                raise OSError(f"processes are left that cannot be killed: {left}")
        directory.share()
        unit.point_to(directory.path)
    except OSError as error:
        return AnswerDocument(answer="failed", message=f"{unit.name}: {error}")
    said = unit.start()
    try:
        if (record := directory.started()) is not None:
            return AnswerDocument(answer="spawned", record=record)
        if (why := directory.failure()) is not None:
            return AnswerDocument(answer="failed", message=why)
        if unit.is_over():
            why = said or f"{unit.name} has ended"
            return AnswerDocument(answer="failed", message=f"{why} See `journalctl -u {unit.name}`")
    except OSError as error:
        log.warning("starting %s: %s", unit.name, error)
    return None


def _end(unit: EngineUnit, directory: SharedDirectory) -> AnswerDocument:
    """See the unit end, which it does by itself when its keeper is dead, and record it. Blocking.

    An engine cannot leave its control group: when the unit is over, so is everything of it.
    """
    try:
        if not _ends(unit, directory):
            unit.kill()
            if not _ends(unit, directory):
                return AnswerDocument(answer="failed", message=f"{unit.name} has not ended yet")
        directory.settle(ExitStatus(keeper_lost=True))
    except OSError as error:
        return AnswerDocument(answer="failed", message=str(error))
    return AnswerDocument(answer="sweeping")


def _ends(unit: EngineUnit, directory: SharedDirectory) -> bool:
    """Whether the unit lets go of the incarnation within a while."""
    deadline = time.monotonic() + END_WAIT_S
    while unit.runs(directory.path):
        if time.monotonic() > deadline:
            return False
        time.sleep(FIRST_PAUSE_S)
    return True
