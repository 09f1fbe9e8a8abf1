"""Reports to central: everything at first, changes at once, figures each second."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from supervisord_cp.agent.roster import Roster
from supervisord_cp.clock import Clock
from supervisord_cp.core.instances.places import Misplaced, misplaced, word_of
from supervisord_cp.model.base import Incarnation, InstanceId, NodeName
from supervisord_cp.model.event import Event
from supervisord_cp.model.gpu import Gpu
from supervisord_cp.model.instance import InstanceStatus, LastExit
from supervisord_cp.model.launch import Generation
from supervisord_cp.model.node import NodeReport
from supervisord_cp.model.reason import NO_REASON, Reason
from supervisord_cp.ports.gpu import GpuPort, HostPort
from supervisord_cp.wire import messages as m

HEARTBEAT_S: Final = 1.0
COALESCE_S: Final = 0.005
"""Changes within this time travel together."""
EVENTS_KEPT: Final = 500
"""Events that are kept while central cannot be reached."""
OWNERS_S: Final = 10.0
"""How long a process counts as a stranger before it is looked at again: pids come back."""

Statuses = dict[InstanceId, InstanceStatus]


class Reporter:
    """Says what is new. Knows what was said last on this connection, and on no earlier one."""

    def __init__(
        self, roster: Roster, *, gpu: GpuPort, host: HostPort, clock: Clock, send: Callable[[m.Message], bool]
    ) -> None:
        """`send` queues a message; False: it was not taken."""
        self._roster = roster
        self._gpu = gpu
        self._host = host
        self._clock = clock
        self._send = send
        self.sent = 0
        """Reports sent since the agent started."""
        self.inventory: int | None = None
        """Sequence of the first full report of this connection; None before it."""
        self._connected = False
        self._sequence = 0
        self._full_due = False
        self._generation: Generation | None = None
        """The one said last."""
        self._said: Statuses = {}
        self._gone: set[InstanceId] = set()
        self._keys: dict[Incarnation, str] | None = None
        self._events: deque[tuple[float, Event]] = deque(maxlen=EVENTS_KEPT)
        self._owners: tuple[float, dict[int, InstanceId]] = (0.0, {})
        """When processes were looked through, and whose the holders of GPU memory are; "": strangers'."""
        self._misplaced: frozenset[Misplaced] = frozenset()
        """Told already."""
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """A connection is up: say everything."""
        self._connected, self._full_due = True, True
        self._sequence, self.inventory, self._keys = 0, None, None
        self._report(heartbeat=True)

    def end(self) -> None:
        """The connection is gone."""
        self._connected, self.inventory = False, None

    def resync(self) -> None:
        """Central has missed something: say everything, now."""
        self._full_due = True
        self._report(heartbeat=True)

    def changed(self) -> None:
        """Something may be new: look, and say it within milliseconds."""
        if self._timer is None and self._connected:
            self._timer = asyncio.get_running_loop().call_later(COALESCE_S, self._due)

    def gone(self, instance: InstanceId) -> None:
        """An instance does not exist (any more)."""
        self._gone.add(instance)
        self.changed()

    def told(self, event: Event) -> None:
        """An event, for people; kept until central can be reached."""
        self._events.append((self._clock.now(), event))
        self.changed()

    async def run(self, beat: Callable[[], None]) -> None:
        """Report each second until cancelled; `beat` is called after each."""
        while True:
            if self._connected:
                self._report(heartbeat=True)
            beat()
            await asyncio.sleep(HEARTBEAT_S)

    def flush(self) -> None:
        """Say what is new without waiting for more."""
        if self._timer is not None:
            self._timer.cancel()
        self._due()

    def close(self) -> None:
        """Say nothing more."""
        self._connected = False
        if self._timer is not None:
            self._timer.cancel()

    def _due(self) -> None:
        self._timer = None
        if self._connected:
            self._report(heartbeat=False)

    def _report(self, *, heartbeat: bool) -> None:
        statuses = {one.id: one.status() for one in self._roster.instances.values()}
        report = self._compose(statuses, heartbeat=heartbeat)
        if report is not None:
            self._send_keys()
            if not self._send(m.Report(report=report)):
                self._full_due = True
                return
            self._note(report, statuses)
            self._check_places(report.gpus or (), statuses)
        self._send_events()

    def _compose(self, statuses: Statuses, *, heartbeat: bool) -> NodeReport | None:
        """What there is to say; None: nothing."""
        full = self._full_due
        news = tuple(
            status
            for name, status in statuses.items()
            if full or name not in self._said or _differs(self._said[name], status, heartbeat=heartbeat)
        )
        gone = tuple(name for name in self._gone if name not in statuses)
        generation = self._roster.generation
        if not (heartbeat or full or news or gone or generation != self._generation):
            return None
        reading = self._gpu.read()
        return NodeReport(
            node=NodeName(self._roster.identity.name),
            sequence=self._sequence + 1,
            full=full,
            generation=generation,
            instances=news,
            gone=gone,
            gpus=self._attributed(reading.gpus) if heartbeat else None,
            gpu_reason=reading.reason if heartbeat or reading.gpus is None else NO_REASON,
            host=self._host.read() if heartbeat else None,
        )

    def _check_places(self, gpus: tuple[Gpu, ...], statuses: Statuses) -> None:
        """Tell once of each engine that works on a GPU which is not its own."""
        found = frozenset(misplaced(gpus, statuses)) if gpus else self._misplaced
        for one in found - self._misplaced:
            self.told(word_of(one))
        self._misplaced = found

    def _note(self, report: NodeReport, statuses: Statuses) -> None:
        """Remember what was said."""
        self.sent += 1
        self._sequence = report.sequence
        if report.full and self.inventory is None:
            self.inventory = report.sequence
        self._full_due = False
        self._gone.clear()
        self._generation = report.generation
        said = {name: status for name, status in self._said.items() if name in statuses}
        self._said = said | {status.id: status for status in report.instances}

    def _send_keys(self) -> None:
        """Before the report that mentions their incarnations."""
        keys = {
            one.running.process.record.incarnation: one.running.notes.api_key
            for one in self._roster.instances.values()
            if one.running is not None and one.running.notes.api_key
        }
        if keys != self._keys and self._send(m.EngineKeys(keys=keys)):
            self._keys = keys

    def _send_events(self) -> None:
        if not self._events:
            return
        now, node = self._clock.now(), self._roster.identity.name
        events = tuple(
            replace(event, node=node, age_ms=event.age_ms + round((now - at) * 1000))
            for at, event in self._events
        )
        if self._send(m.Events(events=events)):
            self._events.clear()

    def _attributed(self, gpus: tuple[Gpu, ...] | None) -> tuple[Gpu, ...] | None:
        """The GPUs with holders that are ours told from strangers."""
        holders = {holder.pid for gpu in gpus or () for holder in gpu.holders}
        if gpus is None or not holders:
            return gpus
        (looked_at, owners), now = self._owners, self._clock.now()
        if not holders <= owners.keys() or ("" in owners.values() and now - looked_at >= OWNERS_S):
            found = self._roster.owners()
            owners = {pid: found.get(pid, InstanceId("")) for pid in holders}
            looked_at = now
        self._owners = (looked_at, {pid: owners[pid] for pid in holders})
        return tuple(
            replace(
                gpu,
                holders=tuple(replace(one, instance=owners[one.pid]) for one in gpu.holders),
            )
            for gpu in gpus
        )


def _differs(said: InstanceStatus, status: InstanceStatus, *, heartbeat: bool) -> bool:
    """Whether a status is worth saying. Figures that always move are said each second only."""
    return said != status if heartbeat else _lasting(said) != _lasting(status)


def _lasting(status: InstanceStatus) -> InstanceStatus:
    last = status.last_exit
    return replace(
        status,
        uptime_s=0.0,
        eta_s=None,
        load=None,
        reason=Reason(code=status.reason.code),
        last_exit=LastExit(code=last.code, signal=last.signal, cause=last.cause)
        if last is not None
        else None,
    )
