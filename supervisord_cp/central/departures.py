"""Instances that leave: told to routers first, released when their requests are done, then forgotten."""

from collections.abc import Callable, Mapping
from typing import Final

from msgspec.structs import replace

from supervisord_cp.central.fleet import NodeView
from supervisord_cp.central.memory import Memory
from supervisord_cp.central.routers import LIVE_S, Routers
from supervisord_cp.core.scaling.drain import drained, next_turns
from supervisord_cp.model.assignment import Assignment, Leave, Leaving
from supervisord_cp.model.base import InstanceId, NodeName
from supervisord_cp.model.instance import InstanceState, InstanceStatus
from supervisord_cp.model.launch import DesiredNode, RunState
from supervisord_cp.model.reason import Reason

DEFAULT_DRAIN_S: Final = 300.0

Note = Callable[..., None]
Find = Callable[[Assignment], InstanceStatus | None]


class Departures:
    """Every removal, stop and restart, for whatever cause, takes this way."""

    def __init__(
        self, memory: Memory, routers: Routers, epoch: str, since: float, find: Find, note: Note
    ) -> None:
        """`since`: when this life of central began, monotonic."""
        self._memory = memory
        self._routers = routers
        self._epoch = epoch
        self._since = since
        self._find = find
        self._note = note
        self._told: dict[InstanceId, tuple[int, float]] = {}
        """In which snapshot routers were told, and when."""
        self._begun: set[InstanceId] = set()
        """Those that wait for successors which the next step will order."""

    def begin(
        self, instance: InstanceId, to: Leave, reason: Reason, deadline_s: float, *, wait: bool = False
    ) -> None:
        """Begin to drain an instance towards its removal, stop or restart."""
        assignment = self._memory.assignments[instance]
        self._told.pop(instance, None)
        leaving = Leaving(to=to, reason=reason, deadline_s=deadline_s, waiting=wait)
        if wait and to is Leave.REMOVE:
            self._begun.add(instance)
        self._memory.assign(replace(assignment, leaving=leaving, released=False))
        self._note(f"instance.{to.value}", instance, node=assignment.node, reason=reason)

    def revoke(self, instance: InstanceId) -> None:
        """Let an instance serve again that sleeps, or drains to that end."""
        assignment = self._memory.assignments[instance]
        self._told.pop(instance, None)
        self._memory.assign(replace(assignment, leaving=None, run=RunState.RUNNING))
        self._note("instance.wake", instance, node=assignment.node)

    def step(self, states: dict[InstanceId, InstanceState], now: float) -> None:
        """Let those begin whose turn it is, release those whose requests are done."""
        self._give_turns(states)
        for assignment in list(self._memory.assignments.values()):
            if assignment.draining and not assignment.released and self._requests_done(assignment, now):
                self._release(assignment)

    def told(self, version: int, now: float) -> None:
        """Routers have been sent this snapshot."""
        for assignment in self._memory.assignments.values():
            if assignment.draining and not assignment.released:
                self._told.setdefault(assignment.id, (version, now))

    def forget(self, nodes: Mapping[NodeName, NodeView], published: Mapping[NodeName, DesiredNode]) -> None:
        """Drop the places of instances that their agents have removed."""
        for assignment in list(self._memory.assignments.values()):
            if not assignment.released:
                continue
            view, desired = nodes.get(assignment.node), published.get(assignment.node)
            if view is None:
                self._memory.unassign(assignment.id)
            elif (
                desired is not None
                and assignment.id in desired.removals
                and view.generation == desired.generation
                and assignment.id not in view.instances
            ):
                self._memory.unassign(assignment.id)
                self._note("instance.removed", assignment.id, node=assignment.node)

    def _give_turns(self, states: dict[InstanceId, InstanceState]) -> None:
        waiting = {a.deployment for a in self._memory.assignments.values() if a.leaving and a.leaving.waiting}
        for deployment in waiting:
            mine = [a for a in self._memory.assignments.values() if a.deployment == deployment]
            for instance in set(next_turns(mine, states)) - self._begun:
                assignment = self._memory.assignments[instance]
                if assignment.leaving is not None:
                    self._memory.assign(
                        replace(assignment, leaving=replace(assignment.leaving, waiting=False))
                    )

        self._begun.clear()

    def _requests_done(self, assignment: Assignment, now: float) -> bool:
        status = self._find(assignment)
        if status is None or not status.incarnation or not status.url:
            return True
        told = self._told.get(assignment.id)
        if told is None:
            return False
        version, since = told
        if assignment.leaving is not None and now - since >= assignment.leaving.deadline_s:
            return True
        if now - self._since < LIVE_S:
            return False  # routers of before may not have dialled again yet, and have streams open
        return drained(status.incarnation, version, self._epoch, self._routers.live_reports(now))

    def _release(self, assignment: Assignment) -> None:
        leaving = assignment.leaving
        if leaving is None:
            return
        self._told.pop(assignment.id, None)
        match leaving.to:
            case Leave.REMOVE:
                self._memory.assign(replace(assignment, released=True))
            case Leave.SLEEP:
                self._memory.assign(replace(assignment, leaving=None, run=RunState.SLEEPING))
            case Leave.STOP:
                self._memory.assign(replace(assignment, leaving=None, run=RunState.STOPPED))
            case Leave.RESTART:
                self._memory.assign(replace(assignment, leaving=None, restart=assignment.restart + 1))
        self._note("instance.drained", assignment.id, node=assignment.node)
