"""Watching one start: its log announces phases, its processes work or do not."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final

from supervisord_cp.adapters.tree_work import work_of
from supervisord_cp.agent.launch import RunNotes
from supervisord_cp.agent.log_reading import LogReading
from supervisord_cp.agent.starts import Starts
from supervisord_cp.clock import Clock
from supervisord_cp.core.instances import events as ev
from supervisord_cp.core.instances.startup import (
    PHASES,
    QUIET_S,
    Start,
    Work,
    eta_s,
    is_frozen,
    looked,
    movement,
    usual_s,
)
from supervisord_cp.engines.base import Engine
from supervisord_cp.model.instance import Phase
from supervisord_cp.model.reason import NO_REASON, Reason, ReasonCode
from supervisord_cp.ports.process import EngineProcess

READ_S: Final = 0.2
"""Between two looks at the log."""
DISK_S: Final = 1.0
"""How long the log's disk may take to answer before its processes are looked at without."""
WORK_S: Final = 2.0
"""Between two looks at what its processes do, which costs a look through the host's."""


class StartWatch:
    """One start, until the engine serves."""

    def __init__(
        self,
        process: EngineProcess,
        notes: RunNotes,
        engine: Engine,
        *,
        starts: Starts,
        clock: Clock,
        deliver: Callable[[ev.LifeEvent], None],
        whole: bool,
    ) -> None:
        """`whole`: it is watched from its beginning, so that there is something to learn from it."""
        self._process = process
        self._notes = notes
        self._engine = engine
        self._starts = starts
        self._clock = clock
        self._deliver = deliver
        self._whole = whole
        self._history = starts.of(notes.desired)
        self._start = Start()
        self._logged = False
        self._over = False
        self.pids: frozenset[int] = frozenset()
        """Its processes at the last look."""
        self._saving: asyncio.Future[None] | None = None

    @property
    def phase(self) -> Phase:
        return self._start.phase

    def eta_s(self) -> float | None:
        """Seconds until it serves, as starts of its deployment usually do; None: not known."""
        found = eta_s(self._history, self._start)
        return None if found is None else round(found, 1)

    def reason(self) -> Reason:
        """What is wrong with it, if anything is."""
        if self._start.still_s < QUIET_S:
            return NO_REASON
        usual = usual_s(self._history, self._start.phase)
        params: dict[str, str | int | float] = {
            "seconds": round(self._start.still_s),
            "phase": self._start.phase,
            "usual": "?" if usual is None else round(usual),
        }
        return Reason(code=ReasonCode.STUCK_IN_PHASE, params=params)

    async def run(self) -> None:
        """Watch until `ready` or cancelled."""
        log = LogReading(Path(self._notes.log_path))
        work, rest = Work(), b""
        last = due = self._clock.now()
        try:
            while not self._over:
                while piece := await log.read(DISK_S):
                    self._logged = True
                    *lines, rest = (rest + piece).split(b"\n")
                    for line in lines:
                        self._read(line.decode(errors="replace"))
                now = self._clock.now()
                if now >= due:
                    before, work = work, await asyncio.to_thread(self._work)
                    self._look(before, work, now - last)
                    last, due = now, now + WORK_S
                await asyncio.sleep(READ_S)
        finally:
            log.close()

    def ready(self) -> None:
        """It serves: learn from it."""
        self._over = True
        if self._whole:
            histories = self._starts.note(self._notes.desired, self._start.seconds)
            # nobody waits for the disk here, and what it says is logged
            self._saving = asyncio.get_running_loop().run_in_executor(None, self._starts.save, histories)

    def _read(self, line: str) -> None:
        phase = self._engine.phase(line)
        if phase is None:
            return
        self._deliver(ev.PhaseSeen(phase=phase))
        if phase in PHASES and PHASES.index(phase) > PHASES.index(self._start.phase):
            # what was between the last look and this line is the new phase's: seconds at most
            self._start = looked(self._start, phase, 0.0, moved=True)

    def _work(self) -> Work:
        self.pids = frozenset({self._process.record.pid, *self._process.survivors()})
        return work_of(self.pids)

    def _look(self, before: Work, after: Work, elapsed_s: float) -> None:
        seen = movement(before, after, logged=self._logged, elapsed_s=elapsed_s)
        self._logged = False
        moved = seen.io or seen.other
        self._start = looked(self._start, self._start.phase, elapsed_s, moved=moved)
        if moved:
            self._deliver(ev.Moved(io=seen.io))
        elif is_frozen(self._history, self._start, self._notes.desired.spec.start_timeout_s):
            self._deliver(ev.Frozen(reason=self.reason()))
