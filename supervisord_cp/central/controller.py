"""The control loop of central: look at everything, decide, apply, tell agents and routers.

Level-triggered: a step can be lost, repeated or interrupted without harm.
"""

import logging
import uuid
from collections.abc import Callable, Mapping
from typing import Final

from msgspec.structs import replace

from supervisord_cp.builtin.placers.spread import spread
from supervisord_cp.central import fleet
from supervisord_cp.central.capacity import capacities
from supervisord_cp.central.events import EventLog
from supervisord_cp.central.memory import Memory
from supervisord_cp.central.publish import desired_node
from supervisord_cp.central.queries import Result
from supervisord_cp.central.routers import Routers
from supervisord_cp.central.scale_view import Known, configured
from supervisord_cp.central.scaling import Scaling
from supervisord_cp.clock import Clock
from supervisord_cp.config.schema import Config
from supervisord_cp.core.scaling.drain import drained, next_turns
from supervisord_cp.core.scaling.reconcile import Wanted, plan
from supervisord_cp.model.assignment import Assignment, Leave, Leaving, Override
from supervisord_cp.model.base import DeploymentName, InstanceId, NodeName
from supervisord_cp.model.event import Event, Severity
from supervisord_cp.model.instance import InstanceState, InstanceStatus
from supervisord_cp.model.launch import DesiredNode, Generation, RunState
from supervisord_cp.model.node import NodeInventory, NodeReport
from supervisord_cp.model.reason import Reason, ReasonCode, render
from supervisord_cp.model.router import RouterReport
from supervisord_cp.model.scaling import Retire, ScalePlan, Start

log = logging.getLogger(__name__)

DEFAULT_DRAIN_S: Final = 300.0


class Controller:
    """Everything central knows and decides. One thread; methods do not block."""

    def __init__(
        self,
        config: Config,
        memory: Memory,
        events: EventLog,
        routers: Routers,
        clock: Clock,
        wall: Callable[[], float],
    ) -> None:
        self.config = config
        self.memory = memory
        self.events = events
        self.routers = routers
        self.clock = clock
        self._wall = wall
        self.epoch = uuid.uuid4().hex[:12]
        self.started_at = clock.now()
        self.nodes: dict[NodeName, fleet.NodeView] = {
            name: fleet.NodeView(
                inventory=known.inventory, instances={status.id: status for status in known.instances}
            )
            for name, known in memory.known.items()
        }
        self.scaling = Scaling()
        self.send_desired: Callable[[NodeName, DesiredNode], None] = lambda node, desired: None
        self.query_results: Callable[[], Mapping[str, Result]] = dict
        self.wake: Callable[[], None] = lambda: None
        self._published: dict[NodeName, DesiredNode] = {}
        self._counter = 0
        self._told: dict[InstanceId, tuple[int, float]] = {}
        self._settled = False

    # what agents say

    def agent_connected(self, inventory: NodeInventory) -> None:
        """An agent has said hello."""
        self.nodes[inventory.node] = fleet.connect(self.nodes.get(inventory.node), inventory)
        self._published.pop(inventory.node, None)
        self.note("node.connected", inventory.node, node=inventory.node)

    def agent_gone(self, node: NodeName) -> None:
        """An agent's connection has ended. Its engines are not touched and stay in rotation."""
        if (view := self.nodes.get(node)) is not None:
            self.nodes[node] = replace(view, connected=False, acknowledged=0)
        self.note("node.disconnected", node, severity=Severity.WARNING, node=node)

    def report(self, report: NodeReport) -> bool:
        """Take in a report. False: a full one is needed."""
        view = self.nodes[report.node]
        first = not view.acknowledged
        after = fleet.fold(view, report, self.clock.now())
        if after is None:
            return False
        self.nodes[report.node] = after
        changed = self._note_changes(view, after) or first
        if first:
            self._adopt(after)
        if changed:
            self.memory.know(after)
            self.wake()
        self.scaling.signals.node_reported(after, self.clock.now())
        self.routers.update_node(after, self.memory.assignments, self.clock.now())
        return True

    def router_reported(self, report: RouterReport) -> None:
        """Take in a router's report."""
        self.scaling.signals.router_reported(report, self.clock.now())
        if self.routers.reported(report):
            self.wake()

    def _note_changes(self, before: fleet.NodeView, after: fleet.NodeView) -> bool:
        changed = before.generation != after.generation or before.gpus_known != after.gpus_known
        for status in after.instances.values():
            old = before.instances.get(status.id)
            if old is None or (old.state, old.incarnation) != (status.state, status.incarnation):
                changed = True
                self.scaling.observe(old, status, self.clock.now())
        return changed or before.instances.keys() != after.instances.keys()

    def _adopt(self, view: fleet.NodeView) -> None:
        """Learn a node's instances when the memory is empty: nothing that runs is removed for that."""
        if not self.memory.fresh:
            return
        specs = self.scaling.specs(self.config)
        for status in view.instances.values():
            if status.id in self.memory.assignments or status.deployment not in specs:
                continue
            spec = specs[status.deployment]
            known = self.scaling.revision(spec) == status.revision
            self.memory.assign(
                Assignment(
                    id=status.id,
                    deployment=status.deployment,
                    node=view.name,
                    devices=status.devices,
                    revision=status.revision,
                    spec=spec if known else None,
                    run=RunState.STOPPED if status.state is InstanceState.STOPPED else RunState.RUNNING,
                    restart=status.restart,
                    max_concurrency=status.max_concurrency,
                )
            )
            self.note("instance.learned", status.id, node=view.name)
        self._learn_counts()

    def _learn_counts(self) -> None:
        for deployment in self.config.deployments:
            name = DeploymentName(deployment.name)
            count = sum(a.deployment == name and a.counts for a in self.memory.assignments.values())
            override = self.memory.overrides.get(name)
            if count > configured(deployment) and (override is None or override.learned):
                self.memory.override(Override(deployment=name, replicas=count, learned=True))

    # the loop

    @property
    def settled(self) -> bool:
        """Whether the agents that are expected have reported, or have had time to."""
        if not self._settled:
            waited = self.clock.now() - self.started_at
            known = [self.nodes[name] for name in self.memory.known if name in self.nodes]
            all_here = bool(known) and all(view.acknowledged for view in known) and not self.memory.fresh
            self._settled = all_here or waited >= self.config.central.settle_s
        return self._settled

    def step(self) -> None:
        """One control step."""
        now = self.clock.now()
        for override in self.memory.expire(self._wall()):
            self.note("deployment.override_expired", override.deployment)
        states = self.states()
        wanted = self.scaling.decide(self.config, self.memory, self._known(states), self.events)
        if self.settled:
            self._apply(self._plan(wanted, states))
            self._give_turns(states)
            self._progress_leaving(now)
            self._forget_removed()
        self._publish_desired()
        self._publish_snapshot(now)

    def _known(self, states: dict[InstanceId, InstanceState]) -> Known:
        return Known(
            now=self.clock.now(),
            wall=self._wall(),
            statuses=self.statuses(),
            states=states,
            routers=self.routers.views,
            results=self.query_results(),
        )

    def states(self) -> dict[InstanceId, InstanceState]:
        """The states of all instances as they are to be believed now."""
        now = self.clock.now()
        return {
            status.id: fleet.shown_state(status, view, now)[0]
            for view in self.nodes.values()
            for status in view.instances.values()
        }

    def _plan(self, wanted: list[Wanted], states: dict[InstanceId, InstanceState]) -> ScalePlan:
        nodes = capacities(self.nodes, self.memory, self.clock.now())
        made = plan(wanted, tuple(self.memory.assignments.values()), states, nodes, spread)
        self.scaling.note_unplaced(made, self.events, self.clock.now())
        gone = {a.deployment for a in self.memory.assignments.values()} - {
            DeploymentName(d.name) for d in self.config.deployments
        }
        retire = tuple(
            Retire(instance=a.id, deployment=a.deployment, reason=Reason(code=ReasonCode.REMOVED))
            for a in self.memory.assignments.values()
            if a.deployment in gone and a.counts
        )
        return replace(made, actions=(*made.actions, *retire))

    def _apply(self, made: ScalePlan) -> None:
        for action in made.actions:
            if isinstance(action, Start):
                self.memory.assign(
                    Assignment(
                        id=action.instance,
                        deployment=action.deployment,
                        node=action.node,
                        devices=action.devices,
                        revision=action.revision,
                        spec=action.spec,
                        max_concurrency=self._concurrency(action.deployment),
                    )
                )
                self.note("instance.placed", action.instance, node=action.node)
            else:
                self.leave(action.instance, Leave.REMOVE, action.reason, DEFAULT_DRAIN_S)

    def _concurrency(self, deployment: DeploymentName) -> int:
        return next((d.max_concurrency for d in self.config.deployments if d.name == deployment), 0)

    def leave(
        self, instance: InstanceId, to: Leave, reason: Reason, deadline_s: float, *, wait: bool = False
    ) -> None:
        """Begin to drain an instance towards its removal, stop or restart."""
        assignment = self.memory.assignments[instance]
        self._told.pop(instance, None)
        leaving = Leaving(to=to, reason=reason, deadline_s=deadline_s, waiting=wait)
        self.memory.assign(replace(assignment, leaving=leaving, released=False))
        self.note(f"instance.{to.value}", instance, node=assignment.node, reason=reason)

    def _give_turns(self, states: dict[InstanceId, InstanceState]) -> None:
        waiting = {a.deployment for a in self.memory.assignments.values() if a.leaving and a.leaving.waiting}
        for deployment in waiting:
            mine = [a for a in self.memory.assignments.values() if a.deployment == deployment]
            for instance in next_turns(mine, states):
                assignment = self.memory.assignments[instance]
                if assignment.leaving is not None:
                    self.memory.assign(
                        replace(assignment, leaving=replace(assignment.leaving, waiting=False))
                    )

    def _progress_leaving(self, now: float) -> None:
        for assignment in list(self.memory.assignments.values()):
            if not assignment.draining or assignment.released:
                continue
            if self._requests_done(assignment, now):
                self._release(assignment)

    def _requests_done(self, assignment: Assignment, now: float) -> bool:
        status = self.status(assignment)
        if status is None or not status.incarnation or not status.url:
            return True
        told = self._told.get(assignment.id)
        if told is None:
            return False
        version, since = told
        if assignment.leaving is not None and now - since >= assignment.leaving.deadline_s:
            return True
        return drained(status.incarnation, version, self.epoch, self.routers.live_reports(now))

    def _release(self, assignment: Assignment) -> None:
        leaving = assignment.leaving
        if leaving is None:
            return
        self._told.pop(assignment.id, None)
        match leaving.to:
            case Leave.REMOVE:
                self.memory.assign(replace(assignment, released=True))
            case Leave.STOP:
                self.memory.assign(replace(assignment, leaving=None, run=RunState.STOPPED))
            case Leave.RESTART:
                self.memory.assign(replace(assignment, leaving=None, restart=assignment.restart + 1))
        self.note("instance.drained", assignment.id, node=assignment.node)

    def _forget_removed(self) -> None:
        for assignment in list(self.memory.assignments.values()):
            if not assignment.released:
                continue
            view, published = self.nodes.get(assignment.node), self._published.get(assignment.node)
            if view is None:
                self.memory.unassign(assignment.id)
            elif (
                published is not None
                and assignment.id in published.removals
                and view.generation == published.generation
                and assignment.id not in view.instances
            ):
                self.memory.unassign(assignment.id)
                self.note("instance.removed", assignment.id, node=assignment.node)

    def _publish_desired(self) -> None:
        here: dict[NodeName, list[Assignment]] = {}
        for assignment in self.memory.assignments.values():
            here.setdefault(assignment.node, []).append(assignment)
        for name, view in self.nodes.items():
            if not view.connected or not view.acknowledged:
                continue
            before = self._published.get(name)
            generation = before.generation if before else Generation(epoch=self.epoch, counter=0)
            desired = desired_node(name, here.get(name, ()), generation, view.acknowledged)
            if desired == before:
                continue
            self._counter += 1
            desired = replace(desired, generation=Generation(epoch=self.epoch, counter=self._counter))
            self._published[name] = desired
            self.send_desired(name, desired)

    def _publish_snapshot(self, now: float) -> None:
        if not self.settled:
            return
        for view in self.nodes.values():
            self.routers.update_node(view, self.memory.assignments, now)
        self.routers.update_deployments(self.scaling.routed(self.config, self.memory))
        version = self.routers.publish(self.epoch)
        for assignment in self.memory.assignments.values():
            if assignment.draining and not assignment.released:
                self._told.setdefault(assignment.id, (version, now))

    # looking things up

    def status(self, assignment: Assignment) -> InstanceStatus | None:
        """What is observed of an assigned instance on its node."""
        view = self.nodes.get(assignment.node)
        return None if view is None else view.instances.get(assignment.id)

    def statuses(self) -> Mapping[InstanceId, tuple[fleet.NodeView, InstanceStatus]]:
        """All observed instances with their nodes."""
        return {s.id: (view, s) for view in self.nodes.values() for s in view.instances.values()}

    def note(
        self,
        kind: str,
        subject: str,
        *,
        severity: Severity = Severity.INFO,
        node: str = "",
        reason: Reason | None = None,
    ) -> None:
        """Log an event of central's own."""
        why = reason or Reason()
        self.events.add(
            Event(kind=kind, subject=subject, severity=severity, node=node, reason=why, message=render(why))
        )
