"""The control loop of central: look at everything, decide, apply, tell agents and routers.

Level-triggered: a step can be lost, repeated or interrupted without harm.
"""

import logging
import uuid
from collections import Counter
from collections.abc import Callable, Mapping

from msgspec.structs import replace

from supervisord_cp.central import fleet
from supervisord_cp.central.capacity import Capacities
from supervisord_cp.central.departures import DEFAULT_DRAIN_S, Departures
from supervisord_cp.central.events import EventLog
from supervisord_cp.central.learning import learn
from supervisord_cp.central.memory import Memory
from supervisord_cp.central.placing import Placing
from supervisord_cp.central.planning import make_plan
from supervisord_cp.central.publish import desired_node
from supervisord_cp.central.queries import Result, fresh
from supervisord_cp.central.rollouts import Rollouts
from supervisord_cp.central.routers import Routers
from supervisord_cp.central.scale_view import Known
from supervisord_cp.central.scaling import Scaling
from supervisord_cp.central.sleepers import Sleepers
from supervisord_cp.clock import Clock
from supervisord_cp.config.schema import Config
from supervisord_cp.core.scaling.loss import Silence, lost
from supervisord_cp.model.assignment import Assignment, Leave
from supervisord_cp.model.base import DeploymentName, InstanceId, NodeName
from supervisord_cp.model.event import Event, Severity
from supervisord_cp.model.instance import ExitCause, InstanceState, InstanceStatus
from supervisord_cp.model.launch import DesiredNode, Generation
from supervisord_cp.model.node import NodeInventory, NodeReport
from supervisord_cp.model.reason import Reason, ReasonCode, render
from supervisord_cp.model.router import RouterReport
from supervisord_cp.model.scaling import Retire, ScalePlan, Start
from supervisord_cp.policy.declare import PolicySpec

log = logging.getLogger(__name__)


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
        self.scaling = Scaling(memory)
        self.placing = Placing()
        self.rollouts = Rollouts(memory, self.note)
        self.departures = Departures(memory, routers, self.epoch, self.started_at, self.status, self.note)
        self.dead_for: Callable[[NodeName], float | None] = lambda node: None
        self.send_desired: Callable[[NodeName, DesiredNode], None] = lambda node, desired: None
        self.query_results: Callable[[], Mapping[str, Result]] = dict
        self.probe_error: Callable[[str], str] = lambda instance: ""
        self.wake: Callable[[], None] = lambda: None
        self._published: dict[NodeName, DesiredNode] = {}
        self._desired_as_of = -1
        """How many changes of assignments those have in them."""
        self._counter = 0
        self._routed: dict[NodeName, tuple[fleet.NodeView, bool, int]] = {}
        """What each node's part of the snapshot was made from."""
        self._sleepers = Sleepers()
        self._settled = False
        self.failures: Counter[tuple[str, ExitCause]] = Counter()
        """Ends of engines that nobody asked for, by deployment and cause, in this life of central."""

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

    def forget(self, node: NodeName) -> list[InstanceId]:
        """Give up a node that is not connected, with the places on it: those are returned. If it comes back
        it is a new one."""
        places = self.memory.forget_node(node, self.nodes.pop(node).instances)
        self._published.pop(node, None)
        self._routed.pop(node, None)
        self.routers.forget_node(node)
        self.wake()
        return places

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
            learn(after, self.memory, self.config, self.scaling.specs(self.config), self.note)
        if changed:
            self.memory.know(after)
            self.wake()
        self.scaling.signals.node_reported(after, self.clock.now())
        self.routers.update_node(after, self.memory.assignments, self.clock.now())
        return True

    def router_reported(self, report: RouterReport) -> None:
        """Take in a router's report."""
        self.scaling.signals.router_reported(report, self.clock.now())
        waits = self._waits_at_zero(report)
        if self.routers.reported(report) or waits:
            self.wake()

    def _waits_at_zero(self, report: RouterReport) -> bool:
        """Whether it is news that requests wait for a deployment which is to have no replica."""
        view = self.routers.views.get(report.router)
        before = () if view is None or view.report is None else view.report.demand
        known = {demand.deployment for demand in before if demand.queued}
        return any(
            demand.queued and demand.deployment not in known and self.scaling.at_zero(demand.deployment)
            for demand in report.demand
        )

    def _note_changes(self, before: fleet.NodeView, after: fleet.NodeView) -> bool:
        changed = before.generation != after.generation or before.gpus_known != after.gpus_known
        for status in after.instances.values():
            old = before.instances.get(status.id)
            if old is not None and status.restarts > old.restarts and status.last_exit is not None:
                key = status.deployment, status.last_exit.cause
                self.failures[key] += status.restarts - old.restarts
            moved = old is None or (old.state, old.incarnation) != (status.state, status.incarnation)
            if old is None or moved or old.phase is not status.phase:
                self.scaling.observe(old, status, self.clock.now())
            if moved:
                changed = True
                if status.state is InstanceState.READY:
                    self.rollouts.served(status.deployment, status.revision)
        return changed or before.instances.keys() != after.instances.keys()

    # the loop

    def use_policies(self, known: Mapping[str, PolicySpec]) -> None:
        """Scalers and placers by name, to be asked from now on."""
        self.scaling.use_policies(known)
        self.placing.use_policies(known)
        self.wake()

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
            words = f"{override.deployment} is automatic again: its {override.replicas} by hand have expired"
            self.note("deployment.override_expired", override.deployment, message=words)
        states = self.states()
        known = self._known(states)
        wanted = self.scaling.decide(self.config, self.memory, known, self.events)
        if self.settled:
            self._note_losses(now)
            nodes = Capacities(self.nodes, self.memory, now)
            wanted = self.rollouts.apply(wanted, known)
            placer = self.placing.placer(self.config)
            slept_s = self._sleepers.look(states, now)
            made = make_plan(self.config, self.memory, wanted, nodes, known, placer, slept_s)
            self.scaling.note_unplaced(made, self.events, now)
            self._apply(made)
            self.departures.step(states, now)
            self.departures.forget(self.nodes, self._published)
        self._publish_desired()
        self._publish_snapshot(now)

    def _note_losses(self, now: float) -> None:
        """Mark the places on nodes that count as lost, and unmark those that are back."""
        holding = {a.node for a in self.memory.assignments.values()}
        silences = [
            Silence(node=name, silent=view.silent(now), dead_s=self.dead_for(name))
            for name, view in self.nodes.items()
            if name in holding
        ]
        already = {a.node: a.lost for a in self.memory.assignments.values()}
        gone = lost(silences, already)
        for name in {name for name, is_lost in already.items() if is_lost != (name in gone)}:
            reason = Reason(code=ReasonCode.NODE_LOST, params={"node": name})
            back = name not in gone
            self.note(
                "node.back" if back else "node.lost",
                name,
                node=name,
                severity=Severity.INFO if back else Severity.ERROR,
                reason=None if back else reason,
            )
        for assignment in list(self.memory.assignments.values()):
            if assignment.lost != (assignment.node in gone):
                self.memory.assign(replace(assignment, lost=assignment.node in gone))

    def _known(self, states: dict[InstanceId, InstanceState]) -> Known:
        now = self.clock.now()
        return Known(
            now=now,
            wall=self._wall(),
            statuses=self.statuses(),
            states=states,
            routers=self.routers.views,
            results={name: fresh(result, now) for name, result in self.query_results().items()},
        )

    def states(self) -> dict[InstanceId, InstanceState]:
        """The states of all instances as they are to be believed now."""
        now = self.clock.now()
        states: dict[InstanceId, InstanceState] = {}
        for view in self.nodes.values():
            states |= fleet.shown_states(view, now)
        return states

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
            elif isinstance(action, Retire):
                to = Leave.SLEEP if action.sleep else Leave.REMOVE
                self.departures.begin(action.instance, to, action.reason, DEFAULT_DRAIN_S, wait=action.wait)
            else:
                self.departures.revoke(action.instance)

    def _concurrency(self, deployment: DeploymentName) -> int:
        return next((d.max_concurrency for d in self.config.deployments if d.name == deployment), 0)

    def _publish_desired(self) -> None:
        outdated = [name for name, view in self.nodes.items() if self._outdated(name, view)]
        self._desired_as_of = self.memory.changes
        if not outdated:
            return
        here: dict[NodeName, list[Assignment]] = {}
        for assignment in self.memory.assignments.values():
            here.setdefault(assignment.node, []).append(assignment)
        for name in outdated:
            view, before = self.nodes[name], self._published.get(name)
            generation = before.generation if before else Generation(epoch=self.epoch, counter=0)
            desired = desired_node(name, here.get(name, ()), generation, view.acknowledged)
            if desired == before:
                continue
            self._counter += 1
            desired = replace(desired, generation=Generation(epoch=self.epoch, counter=self._counter))
            self._published[name] = desired
            self.send_desired(name, desired)

    def _outdated(self, name: NodeName, view: fleet.NodeView) -> bool:
        """Whether what a node was told last may not be all that is to be told."""
        if not view.connected or not view.acknowledged:
            return False
        before = self._published.get(name)
        return (
            before is None
            or before.acknowledged != view.acknowledged
            or self._desired_as_of != self.memory.changes
        )

    def _publish_snapshot(self, now: float) -> None:
        if not self.settled:
            return
        for name, view in self.nodes.items():
            seen = (view, view.silent(now), self.memory.changes)
            before = self._routed.get(name)
            if before is None or before[0] is not view or before[1:] != seen[1:]:
                self._routed[name] = seen
                self.routers.update_node(view, self.memory.assignments, now)
        self.routers.update_deployments(self.scaling.routed(self.config, self.memory, self.rollouts.compared))
        self.departures.told(self.routers.publish(self.epoch), now)

    # looking things up

    def silent_engines(self) -> dict[NodeName, list[str]]:
        """The addresses of the engines of nodes that are silent now."""
        now = self.clock.now()
        return {
            name: [status.url for status in view.instances.values() if status.url]
            for name, view in self.nodes.items()
            if view.silent(now)
        }

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
        message: str = "",
    ) -> None:
        """Log an event of central's own; its message is the reason in words unless there is a better one."""
        why = reason or Reason()
        words = message or render(why)
        self.events.add(
            Event(kind=kind, subject=subject, severity=severity, node=node, reason=why, message=words)
        )
