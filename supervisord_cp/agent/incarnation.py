"""Watching one incarnation: its end, its health, its load, its start-up phases."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, Final

from msgspec.structs import replace

from supervisord_cp.adapters.listeners import listener_of, listens
from supervisord_cp.adapters.oom import NO_KILLS, Cgroup, OomKills, OomWatch, cgroup_of
from supervisord_cp.adapters.stacks import stacks_of
from supervisord_cp.agent.engine_http import EngineHttp
from supervisord_cp.agent.gpu_timeline import GpuTimeline
from supervisord_cp.agent.launch import RunNotes
from supervisord_cp.agent.post_mortem import Coroner, End
from supervisord_cp.agent.pulse import Pulse
from supervisord_cp.agent.sleeping import Sleeper
from supervisord_cp.agent.start_watch import StartWatch
from supervisord_cp.agent.starts import Starts
from supervisord_cp.clock import Clock
from supervisord_cp.core.instances import events as ev
from supervisord_cp.core.instances.progress import (
    ANSWERS,
    Progress,
    all_progressed,
    heard,
    is_dead,
    is_stalled,
)
from supervisord_cp.engines.base import Engine
from supervisord_cp.model.event import Event, Severity
from supervisord_cp.model.instance import EngineLoad, ExitCause, Phase
from supervisord_cp.model.launch import EngineKind
from supervisord_cp.model.reason import NO_REASON, Reason, ReasonCode, render
from supervisord_cp.ports.process import EngineProcess, ExitStatus

log = logging.getLogger(__name__)

STARTING_S: Final = (0.02, 0.5)
"""Between two questions whether a starting engine serves: the shortest and the longest time."""
SHARE: Final = 0.05
"""Of the time that a start has taken so far, for how long it may serve before that is noticed."""
SERVING_S: Final = 1.0
"""Between two health checks, and between two readings of the metrics, of an engine that serves."""
STACKS_S: Final = 5.0
"""How long it may take to see what the processes of a hung engine are doing."""
POST_MORTEM_S: Final = 10.0
"""How long it may take to find out why an engine ended, before it is started again without knowing."""

Deliver = Callable[[ev.LifeEvent], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Watcher:
    """What watching needs, the same for all incarnations of an agent."""

    http: EngineHttp
    clock: Clock
    boot_id: str
    oom: OomWatch
    listens: Callable[[Iterable[int], int], bool | None] = listens
    """Whether one of these processes listens on a port; None: unknown."""
    timeline: GpuTimeline
    coroner: Coroner
    starts: Starts


class RunningIncarnation:
    """One incarnation and the tasks that watch it. What they see is delivered as events.

    `Exited` and `Gone` come once each and in this order, `Gone` as the last event of all.
    """

    def __init__(
        self,
        process: EngineProcess,
        notes: RunNotes,
        engine: Engine,
        *,
        watcher: Watcher,
        deliver: Deliver,
        tell: Callable[[Event], None],
        served: bool = False,
        adopted: bool = False,
    ) -> None:
        """`served`: it is known to have been ready before. `adopted`: an earlier agent started it."""
        self.process = process
        self.notes = notes
        self._engine = engine
        self._watcher = watcher
        self._deliver = deliver
        self._tell = tell
        self._lost_bytes = process.log_lost_bytes
        self._served = served
        self._adopted = adopted
        self._began = watcher.clock.now()
        self._start: StartWatch | None = None
        self._seen = False
        """Whether it was alive when it began to be watched."""
        self._pulse = Pulse(engine, notes, watcher.http)
        self._progress: tuple[Progress, ...] = ()
        self._silence = ANSWERS
        self._pids: frozenset[int] = frozenset()
        """Its processes, as they were last looked for."""
        self._cgroup: Cgroup | None = None
        self._stranger = NO_REASON
        """Who answers in its place, as last said in the log."""
        self._stacks = ""
        self._fault: ExitCause | None = None
        self._fault_why = ""
        self._load: EngineLoad | None = None
        self._loaded_at = 0.0
        self.sleeper = Sleeper(notes, watcher.http, self._slept)
        self._probes: list[asyncio.Task[None]] = []
        self._end: asyncio.Task[None] | None = None
        self.asked = asyncio.Event()
        """Set when its health has been asked for at least once, or cannot be."""

    def start(self) -> None:
        """Begin to watch."""
        self._end = asyncio.create_task(self._watch_end())
        if self.process.exited.done():
            self.asked.set()
            return
        self._seen = True
        self._cgroup = cgroup_of(self.process.record.pid)
        self._probe(self._watch_health)
        if self._engine.metrics_path:
            self._probe(self._watch_load)
        if not self._served:
            self._start = StartWatch(
                self.process,
                self.notes,
                self._engine,
                starts=self._watcher.starts,
                clock=self._watcher.clock,
                deliver=self._deliver,
                whole=not self._adopted,
            )
            self._probe(self._start.run)

    def close(self) -> None:
        """Watch no more. The engine runs on."""
        self._end_probes()
        if self._end is not None:
            self._end.cancel()
        self.process.close()

    async def stop(self, grace_s: float, *, fault: ExitCause | None = None, why: str = "") -> None:
        """Ask for the end; see `EngineProcess.stop`. `fault`: it is ended for this cause."""
        self._fault, self._fault_why = fault, why
        await self.process.stop(grace_s=grace_s)

    def _slept(self, event: ev.LifeEvent) -> None:
        if isinstance(event, ev.Woken):
            self._load = None  # what its metrics said while it slept
        self._deliver(event)

    def load(self) -> EngineLoad | None:
        """What its metrics said last, with the age of that."""
        if self._load is None:
            return None
        age_s = self._watcher.clock.now() - self._loaded_at
        return replace(self._load, age_ms=self._load.age_ms + max(0, round(age_s * 1000)))

    def eta_s(self) -> float | None:
        """Seconds until it serves; None: it does, or nothing is known."""
        return None if self._served or self._start is None else self._start.eta_s()

    def start_reason(self) -> Reason:
        """What is wrong with its start, if anything is."""
        return NO_REASON if self._served or self._start is None else self._start.reason()

    def _probe(self, watch: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._probes.append(asyncio.create_task(self._keep_on(watch)))

    async def _keep_on(self, watch: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """A page or a line that our code chokes on costs that page, not the watching."""
        while True:
            try:
                return await watch()
            except Exception:
                log.exception("watching %s", self.process.record.incarnation)
                await asyncio.sleep(SERVING_S)

    def _end_probes(self) -> None:
        for probe in self._probes:
            probe.cancel()
        self._probes.clear()
        self._pulse.close()
        self.asked.set()

    async def _watch_end(self) -> None:
        status = await asyncio.shield(self.process.exited)
        oom = self._watcher.oom.of(self._known_pids(), self._cgroup) if self._seen else NO_KILLS
        self._end_probes()
        self._load = None
        requested = status.requested or self._not_its_fault()
        self._deliver(
            ev.Exited(code=status.code, signal=status.signal, requested=requested, age_s=status.age_s)
        )
        await self.process.gone()
        gone = await self._why(status, oom, asked=requested)
        self.process.close()
        self._deliver(gone)

    def _not_its_fault(self) -> bool:
        """It ended with the host, or its start was cut short together with the agent."""
        record = self.process.record
        return record.boot_id != self._watcher.boot_id or record.pid == 0

    async def _why(self, status: ExitStatus, oom: OomKills, *, asked: bool) -> ev.Gone:
        """Only an end that nobody asked for needs an explanation."""
        if asked and self._fault is None:
            return ev.Gone()
        watcher, devices = self._watcher, self.notes.desired.devices
        if self._seen:
            await watcher.timeline.seen_since_now(devices)
        end = End(
            incarnation=self.process.record.incarnation,
            notes=self.notes,
            status=status,
            served=self._served,
            phase=Phase.NONE if self._start is None else self._start.phase,
            fault=self._fault,
            why=self._fault_why,
            oom=oom,
            stacks=self._stacks,
            xids=watcher.timeline.xids(devices) if self._seen else (),
            gpus=watcher.timeline.of(devices) if self._seen else (),
        )
        try:
            async with asyncio.timeout(POST_MORTEM_S):
                found = await asyncio.to_thread(watcher.coroner.examine, self._engine, end)
        except TimeoutError:
            log.warning("why %s ended cannot be found out: the disk does not answer", end.incarnation)
            return ev.Gone()
        except Exception:  # it starts again, whatever is wrong with looking at how it ended
            log.exception("why %s ended", end.incarnation)
            return ev.Gone()
        return ev.Gone(cause=found.cause, detail=found.evidence)

    async def _watch_health(self) -> None:
        spec = self.notes.desired.spec
        path, looked_at = self._engine.ready_path(spec), self._watcher.clock.now()
        if self._served:
            self._pids = frozenset(await asyncio.to_thread(self.process.survivors))
        while True:
            wrong = await self._watcher.http.health(self.notes.url, path, self.notes.api_key)
            if wrong == NO_REASON and not self._served:
                wrong = await asyncio.to_thread(self._who_answers)
            if wrong == NO_REASON:
                if not self._served and self._start is not None:
                    self._start.ready()
                self._served = True
                self._deliver(ev.ProbeOk())
            else:
                self._deliver(ev.ProbeFailed(reason=wrong))
            self.asked.set()
            self._watcher.oom.look()
            self._look_at_log()
            now = self._watcher.clock.now()
            if self._served:
                healthy, elapsed_s = wrong == NO_REASON, now - looked_at
                self._silence = heard(self._silence, healthy=healthy, elapsed_s=elapsed_s)
                if is_dead(self._silence, spec.stall_s):
                    seconds = round(self._silence.seconds)
                    await self._give_up(Reason(code=ReasonCode.UNRESPONSIVE, params={"seconds": seconds}))
            looked_at = now
            await asyncio.sleep(self._pause_s(now))

    def _known_pids(self) -> frozenset[int]:
        starting = self._start.pids if self._start is not None else frozenset()
        record = self.process.record
        return self._pids | starting | {record.pid, record.keeper_pid}

    def _look_at_log(self) -> None:
        """An engine never waits for its log, so somebody has to say when that is not whole."""
        lost = self.process.log_lost_bytes
        if lost > self._lost_bytes:
            message = (
                f"{lost - self._lost_bytes} bytes of output could not be written to {self.notes.log_path}"
            )
            subject = self.process.record.instance
            self._tell(
                Event(kind="log.incomplete", subject=subject, message=message, severity=Severity.WARNING)
            )
        self._lost_bytes = lost

    def _pause_s(self, now: float) -> float:
        if self._served:
            return SERVING_S
        shortest, longest = STARTING_S
        return min(longest, max(shortest, SHARE * (now - self._began)))

    def _who_answers(self) -> Reason:
        """NO_REASON, unless somebody else listens on our port and answers in the engine's place.

        A container runtime listens on behalf of a `command` engine, so of those nothing is known.
        """
        port, record = self.notes.port, self.process.record
        if self.notes.desired.spec.engine is EngineKind.COMMAND:
            return NO_REASON
        # the main process first: it is nearly always the one
        tree = (record.pid, *self.process.survivors())
        self._pids = frozenset(tree)
        if self._watcher.listens(tree, port) is not False:
            return NO_REASON
        reason = Reason(
            code=ReasonCode.PORT_OF_STRANGER, params={"port": port, "holder": listener_of(port) or "?"}
        )
        if reason != self._stranger:
            self._stranger = reason
            log.warning("%s is not ready: %s", record.incarnation, render(reason))
        return reason

    async def _watch_load(self) -> None:
        while True:
            if self._served:
                page = await self._watcher.http.page(
                    self.notes.url, self._engine.metrics_path, self.notes.api_key
                )
                if page is not None:
                    load, now = self._engine.load(page), self._watcher.clock.now()
                    watched = self._pulse.look(load, now)
                    self._progress = all_progressed(self._progress, watched, now - self._loaded_at)
                    self._load, self._loaded_at = self._pulse.without(load), now
                    await self._check_progress(watched)
            await asyncio.sleep(self._pause_s(self._watcher.clock.now()))

    async def _check_progress(self, load: EngineLoad) -> None:
        stall_s = self.notes.desired.spec.stall_s
        stalled = [
            (part, progress)
            for part, progress in zip(load.ranks or (load,), self._progress, strict=True)
            if is_stalled(progress, stall_s)
        ]
        if not stalled:
            return
        if await self._watcher.http.rests(self.notes.url, self._engine.rest_paths, self.notes.api_key):
            self._progress = ()
            return
        params: dict[str, str | int | float] = {
            "running": sum(part.running or 0 for part, _ in stalled),
            "seconds": round(max(progress.still_s for _, progress in stalled)),
        }
        await self._give_up(Reason(code=ReasonCode.STALLED, params=params))

    async def _give_up(self, reason: Reason) -> None:
        """It hangs: out of rotation at once, and ended when it is known what it was doing."""
        self._progress, self._silence = (), ANSWERS
        self._deliver(ev.Stalled(reason=reason))
        try:
            async with asyncio.timeout(STACKS_S):
                self._stacks = await asyncio.to_thread(self._look_at_processes)
        except (OSError, TimeoutError, ValueError) as error:
            self._stacks = f"cannot be seen: {error!r}"
        self._deliver(ev.GivenUp())

    def _look_at_processes(self) -> str:
        return stacks_of(sorted({self.process.record.pid, *self.process.survivors()}))
