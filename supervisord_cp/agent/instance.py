"""One instance: feeds its lifecycle with events and does what that says. None waits for another."""

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import dataclass
from random import Random
from typing import Any, Final, Protocol

from supervisord_cp.agent.gate import Gate
from supervisord_cp.agent.incarnation import RunningIncarnation, Watcher
from supervisord_cp.agent.launch import Launcher, Refused, RunNotes
from supervisord_cp.agent.release import MemoryReturn
from supervisord_cp.agent.state import StateDir
from supervisord_cp.clock import Clock
from supervisord_cp.core.instances import effects as do
from supervisord_cp.core.instances import events as ev
from supervisord_cp.core.instances.life import HOLDING, RUNNING, Launch, Life, Stage
from supervisord_cp.core.instances.lifecycle import step, wake_at
from supervisord_cp.core.instances.release import Baseline
from supervisord_cp.core.instances.retry import awaits_change
from supervisord_cp.core.instances.show import status_of
from supervisord_cp.engines.base import Capabilities
from supervisord_cp.model.base import DeviceId, InstanceId
from supervisord_cp.model.event import Event
from supervisord_cp.model.instance import ExitCause, InstanceStatus
from supervisord_cp.model.launch import DesiredInstance
from supervisord_cp.model.reason import NO_REASON, Reason, ReasonCode, render
from supervisord_cp.ports.process import EngineProcess, ProcessBackend, SpawnFailed

log = logging.getLogger(__name__)

EXAMINE_AGAIN_S: Final = 5.0
"""How often a launch that the node refuses, or that failed for what it was launched with, is looked at
again: somebody may have mended it."""

WAKE_AGAIN_S: Final = 0.25
"""How often one that has to wake looks whether its devices are free."""

LEFTOVERS_GRACE_S: Final = 10.0
"""What an earlier agent left, and nobody routes to, need not finish anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What instances work with, the same for all of them."""

    clock: Clock
    random: Random
    backend: ProcessBackend
    launcher: Launcher
    gate: Gate
    watcher: Watcher
    state: StateDir
    memory: MemoryReturn | None = None
    """None: there is no GPU memory to wait for."""


class Observer(Protocol):
    """Who wants to know what becomes of instances."""

    def changed(self, instance: "Instance") -> None:
        """Its status may be another one."""
        ...

    def told(self, event: Event) -> None:
        """Something that people should know."""
        ...

    def gone(self, instance: "Instance") -> None:
        """It has ceased to exist."""
        ...


class Instance:
    """One instance of this node."""

    def __init__(self, life: Life, tools: Tools, observer: Observer) -> None:
        self.life = life
        self.running: RunningIncarnation | None = None
        """The incarnation whose processes may be alive."""
        self.port: int | None = None
        """What it may listen on, from its admission until its tree is gone."""
        self.last_port: int | None = None
        self._tools = tools
        self._observer = observer
        self._found: Capabilities | None = None
        self._inputs = ""
        self._leftovers: list[EngineProcess] = []
        self._baseline: Baseline = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        """What is under way, by what it does."""
        self._timer: asyncio.TimerHandle | None = None
        self._wakes = False
        """Whether it has got its devices back, after it slept."""

    @property
    def id(self) -> InstanceId:
        return self.life.desired.id

    @property
    def applied_for(self) -> DesiredInstance:
        return self.life.desired

    @property
    def shunned_port(self) -> int | None:
        """What it could not listen on at its last try."""
        last = self.life.history.last
        return self.last_port if last is not None and last.cause is ExitCause.PORT_TAKEN else None

    def devices_held(self) -> tuple[DeviceId, ...]:
        """Devices on which processes of it may be at work. One that sleeps leaves them to others."""
        if self.life.stage not in HOLDING:
            return ()
        if self.life.stage is Stage.ASLEEP or (self.life.stage is Stage.WAKING and not self._wakes):
            return ()
        if self.life.asked is not None:
            return self.life.asked.devices
        return self.life.run.launch.devices if self.life.run is not None else ()

    def status(self) -> InstanceStatus:
        """What is reported of it."""
        running = self.running
        return status_of(
            self.life,
            now=self._tools.clock.now(),
            url=running.notes.url if running is not None else "",
            load=running.load() if running is not None else None,
            eta_s=running.eta_s() if running is not None else None,
            starting=running.start_reason() if running is not None else NO_REASON,
            can_sleep=running is not None and running.notes.sleep_mode is not None,
        )

    def deliver(self, event: ev.LifeEvent) -> None:
        """Take in an event and do what follows from it."""
        tools, before = self._tools, self.life
        outcome = step(before, event, now=tools.clock.now(), chance=tools.random.random())
        self.life = outcome.life
        if self.life is before:
            return
        if self.life.history != before.history:
            tools.state.save_history(self.id, self.life.history)
        for effect in outcome.effects:
            self._perform(effect)
        self._set_timer()
        self._look_for_changes()
        self._observer.changed(self)

    def adopt(self, process: EngineProcess, notes: RunNotes) -> None:
        """Take over an incarnation of an earlier agent, running or ended."""
        self.port = self.last_port = notes.port
        record = process.record
        served = self.life.history.ready == record.incarnation
        self._watch(process, notes, served=served, adopted=True)
        self.deliver(
            ev.Adopted(
                incarnation=record.incarnation,
                pid=record.pid,
                launch=Launch.of(notes.desired),
                stop_grace_s=notes.desired.spec.stop_grace_s,
                inputs=notes.inputs,
            )
        )

    def clear_first(self, process: EngineProcess) -> None:
        """What an earlier agent left is in the way of the next start, and cannot be taken over."""
        self._leftovers.append(process)

    def held(self, reason: Reason) -> None:
        """The gate says: wait."""
        self.deliver(ev.Held(reason=reason))

    def admitted(self, port: int) -> None:
        """The gate says: go."""
        self.port = self.last_port = port
        self.deliver(ev.Admitted())

    def close(self) -> None:
        """Let go of it. Its engine runs on."""
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks.values():
            task.cancel()
        if self.running is not None:
            self.running.close()
        for process in self._leftovers:
            process.close()

    def _perform(self, effect: do.Effect) -> None:
        match effect:
            case do.Admit():
                self._do("examine", self._examine(effect.desired))
            case do.Withdraw():
                self._leave_off("examine")
                self._tools.gate.withdraw(self.id)
                self.port = None
            case do.Spawn():
                self._do("spawn", self._spawn(effect.desired))
            case do.Stop():
                self._leave_off("sleep")
                if self.running is not None:
                    stop = self.running.stop(effect.grace_s, fault=effect.fault, why=effect.why)
                    self._do("stop", stop)
            case do.Sleep():
                if self.running is not None:
                    self._do("sleep", self.running.sleeper.sleep())
            case do.Wake():
                self._do("sleep", self._wake(effect.answer))
            case do.SleepOn():
                self._leave_off("sleep")
            case do.Forget():
                self._forget()
            case do.Announce():
                self._observer.told(effect.event)

    def _leave_off(self, what: str) -> None:
        if (task := self._tasks.get(what)) is not None:
            task.cancel()

    async def _wake(self, answer: str) -> None:
        """Wait until its devices are free, then wake it."""
        self._wakes = False
        if (running := self.running) is None:
            return
        while (wait := self._tools.gate.wakes(self, running.process.survivors())) != NO_REASON:
            self.held(wait)
            await asyncio.sleep(WAKE_AGAIN_S)
        self._wakes = True
        self.held(NO_REASON)
        await running.sleeper.wake(answer)

    async def _examine(self, desired: DesiredInstance) -> None:
        """Wait until the node's own policy and programs allow the launch, then line up at the gate."""
        await self._clear()
        while True:
            try:
                self._found = await self._tools.launcher.examine(desired)
            except Refused as refusal:
                self.held(refusal.reason)
            else:
                self._tools.gate.apply(self)
                return
            await asyncio.sleep(EXAMINE_AGAIN_S)

    async def _clear(self) -> None:
        """End what an earlier agent left; nothing starts before that is gone."""
        while self._leftovers:
            process = self._leftovers[0]
            pids = ", ".join(map(str, process.survivors())) or "?"
            self.held(Reason(code=ReasonCode.AWAITING_LEFTOVERS, params={"pids": pids}))
            await process.stop(grace_s=LEFTOVERS_GRACE_S)
            await process.gone()
            process.close()
            self._leftovers.remove(process)

    async def _spawn(self, desired: DesiredInstance) -> None:
        assert self._found is not None
        assert self.port is not None
        try:
            self._inputs = await self._tools.launcher.inputs(desired)
            request, notes = self._tools.launcher.request(
                desired, port=self.port, found=self._found, inputs=self._inputs
            )
            process = await self._tools.backend.spawn(request)
        except Refused as refusal:
            self._not_spawned(render(refusal.reason), ExitCause.CONFIGURATION)
        except Exception as error:  # whatever it is, the next try may go better
            if not isinstance(error, SpawnFailed | OSError):
                log.exception("starting %s", self.id)
            self._not_spawned(str(error) or type(error).__name__, ExitCause.SPAWN_FAILED)
        else:
            self._watch(process, notes)
            record = process.record
            grace_s = desired.spec.stop_grace_s
            self.deliver(
                ev.Spawned(
                    incarnation=record.incarnation, pid=record.pid, stop_grace_s=grace_s, inputs=self._inputs
                )
            )

    def _not_spawned(self, detail: str, cause: ExitCause) -> None:
        self.port = None
        self.deliver(ev.SpawnFailed(detail=detail, cause=cause, inputs=self._inputs))

    def _look_for_changes(self) -> None:
        """While only a change of what it is launched with would help, look whether there is one."""
        waits = self.life.stage is Stage.BACKOFF and awaits_change(self.life.history)
        looking = self._tasks.get("look")
        if waits and looking is None:
            self._do("look", self._look(self.life.desired))
        elif not waits and looking is not None:
            looking.cancel()

    async def _look(self, desired: DesiredInstance) -> None:
        while True:
            self.deliver(ev.InputsSeen(inputs=await self._tools.launcher.inputs(desired)))
            await asyncio.sleep(EXAMINE_AGAIN_S)

    def _watch(
        self, process: EngineProcess, notes: RunNotes, *, served: bool = False, adopted: bool = False
    ) -> None:
        memory, ended = self._tools.memory, process.exited.done()
        self._baseline = {} if memory is None or ended else memory.baseline(notes.desired.devices)
        self.running = RunningIncarnation(
            process,
            notes,
            self._tools.launcher.engine(notes.desired),
            watcher=self._tools.watcher,
            deliver=self._watched,
            tell=self._observer.told,
            served=served,
            adopted=adopted,
        )
        self.running.start()

    def _watched(self, event: ev.LifeEvent) -> None:
        if not isinstance(event, ev.Gone):
            self.deliver(event)
            return
        self.running = self.port = None
        if self._tools.memory is not None and self._baseline:
            self._do("release", self._release(self._tools.memory, event))
        else:
            self.deliver(event)

    async def _release(self, memory: MemoryReturn, gone: ev.Gone) -> None:
        """Its processes are gone; it is over when their memory is back."""
        async for held in memory.awaited(self._baseline):
            self.deliver(ev.Releasing(reason=held))
        self.deliver(gone)

    def _forget(self) -> None:
        try:
            self._tools.backend.forget(self.id)
        except (ValueError, OSError) as error:
            log.warning("records of %s stay: %s", self.id, error)
        self._tools.state.forget(self.id)
        self._observer.gone(self)

    def _do(self, what: str, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine, name=f"{what} {self.id}")
        self._tasks[what] = task
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        what = task.get_name().partition(" ")[0]
        if self._tasks.get(what) is task:
            del self._tasks[what]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s: %r", task.get_name(), error, exc_info=error)

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = wake_at(self.life)
        if due is not None:
            delay_s = max(0.0, due - self._tools.clock.now())
            self._timer = asyncio.get_running_loop().call_later(delay_s, self.deliver, ev.Tick())

    @property
    def busy(self) -> bool:
        """Whether processes of it may be alive."""
        return self.life.stage in HOLDING and self.life.releasing == NO_REASON

    @property
    def asked(self) -> bool:
        """Whether it is known how it is: nothing runs, or what runs has been asked."""
        return self.life.stage not in RUNNING or self.running is None or self.running.asked.is_set()
