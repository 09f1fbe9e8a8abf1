"""What operators ask for: scale, start, stop, restart, drain, cordon, forget. Each says what it did."""

import difflib
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

from msgspec.structs import replace

from supervisord_cp.central.controller import Controller
from supervisord_cp.central.departures import DEFAULT_DRAIN_S
from supervisord_cp.central.learning import place_of
from supervisord_cp.errors import SupervisordError
from supervisord_cp.model.assignment import Assignment, Cordon, Leave, Override
from supervisord_cp.model.base import DeploymentName, DeviceId, InstanceId, NodeName
from supervisord_cp.model.launch import EngineKind, RunState
from supervisord_cp.model.reason import Reason, ReasonCode

STOP_DEADLINE_S: Final = 30.0
MOST_REPLICAS: Final = 10_000


class NotFound(SupervisordError):
    """What the operator named does not exist."""


class NotPossible(SupervisordError):
    """What the operator asked for cannot be done."""


class Operations:
    """The operator's verbs over the controller."""

    def __init__(self, controller: Controller) -> None:
        self._c = controller

    def scale(self, name: str, replicas: int | None, expires_at: float | None) -> str:
        """Set a number by hand (kept over restarts, until `expires_at`), or return to automatic (None)."""
        deployment = self._deployment(name)
        config = next(d for d in self._c.config.deployments if d.name == name)
        if config.engine == EngineKind.NONE:
            raise NotPossible(f"{name} has static instances only; there is nothing to scale")
        if replicas is None:
            self._c.memory.drop_override(deployment)
            message = f"{name} is automatic again"
        else:
            if not 0 <= replicas <= MOST_REPLICAS:
                raise NotPossible(f"replicas must be between 0 and {MOST_REPLICAS}, not {replicas}")
            self._c.memory.override(Override(deployment=deployment, replicas=replicas, expires_at=expires_at))
            message = f"{name} is set to {replicas} {_until(expires_at)}"
        self._c.note("deployment.override", name, message=message)
        self._c.wake()
        return message

    def deployment(self, name: str, verb: str, deadline_s: float | None) -> list[str]:
        """start, stop, restart or drain all instances of a deployment."""
        deployment = self._deployment(name)
        if verb in ("stop", "drain"):
            self._c.memory.hold(deployment)
        elif verb == "start":
            self._c.memory.unhold(deployment)
        mine = [a for a in self._c.memory.assignments.values() if a.deployment == deployment]
        return self._each(mine, verb, deadline_s)

    def instance(self, name: str, verb: str, deadline_s: float | None) -> list[str]:
        """start, stop, restart or drain one instance."""
        assignment = self._c.memory.assignments.get(InstanceId(name))
        if assignment is None:
            if InstanceId(name) in self._c.statuses():
                raise NotPossible(
                    f"{name} runs, and this central has no place for it: it is only routed to;"
                    f" `supervisord-cp stop {name} --unlisted` ends it for good"
                )
            if name in [i.id for i in self._c.routers.instances()]:
                raise NotPossible(f"{name} was not started by this central; it is only routed to")
            raise NotFound(_unknown("instance", name, self._c.memory.assignments))
        return self._each([assignment], verb, deadline_s)

    def end_unlisted(self, name: str, deadline_s: float | None) -> list[str]:
        """End an instance that an agent runs and nobody here asked for: taken over, it goes as all do."""
        instance = InstanceId(name)
        if instance in self._c.memory.assignments:
            raise NotPossible(f"{name} has its place here: `stop {name}` holds it stopped")
        found = self._c.statuses().get(instance)
        if found is None:
            raise NotFound(_unknown("unlisted instance", name, self._unlisted()))
        view, status = found
        self._c.memory.assign(place_of(status, view, None))
        reason = Reason(code=ReasonCode.ENDED_BY_OPERATOR)
        deadline = STOP_DEADLINE_S if deadline_s is None else deadline_s
        self._c.departures.begin(instance, Leave.REMOVE, reason, deadline)
        self._c.wake()
        return [name]

    def _unlisted(self) -> list[InstanceId]:
        return [name for name in self._c.statuses() if name not in self._c.memory.assignments]

    def node(self, name: str, verb: str, deadline_s: float | None, gpu: str | None) -> list[str]:
        """start, stop, restart or drain everything on a node, or on one of its GPUs or slots."""
        node = self._node(name)
        device = None if gpu is None else self._device(node, gpu)
        mine = [
            a
            for a in self._c.memory.assignments.values()
            if a.node == node and (device is None or device in a.devices)
        ]
        return self._each(mine, verb, deadline_s)

    def cordon(self, name: str, gpu: str | None, on: bool) -> str:
        """Place nothing new on a node or device, or lift that."""
        node = self._node(name)
        device = None if gpu is None else self._device(node, gpu)
        what = name if device is None else f"{name}:{device}"
        if on:
            self._c.memory.cordon(Cordon(node=node, device=device))
        else:
            self._c.memory.uncordon(node, device)
        self._c.note("node.cordoned" if on else "node.uncordoned", what, node=node)
        self._c.wake()
        return f"{what} is {'cordoned: nothing new is placed there' if on else 'open again'}"

    def forget(self, name: str) -> str:
        """Give up a node that is gone for good: its replicas are placed elsewhere."""
        node = self._node(name)
        if self._c.nodes[node].connected:
            raise NotPossible(
                f"{name} is connected; to take it out of the fleet `drain {name}`, stop its agent on that "
                "host, then forget it"
            )
        places = self._c.forget(node)
        message = f"{name} is forgotten" + (f"; given up with it: {', '.join(places)}" if places else "")
        self._c.note("node.forgotten", name, node=node, message=message)
        return message

    def _each(self, assignments: Iterable[Assignment], verb: str, deadline_s: float | None) -> list[str]:
        done = [a.id for a in assignments if self._one(a, verb, deadline_s)]
        self._c.wake()
        return list(done)

    def _one(self, assignment: Assignment, verb: str, deadline_s: float | None) -> bool:
        if assignment.leaving is not None and assignment.leaving.to is Leave.REMOVE:
            return False
        if verb == "start":
            if assignment.run is RunState.RUNNING and assignment.leaving is None:
                return False
            self._c.memory.assign(replace(assignment, run=RunState.RUNNING, leaving=None))
            self._c.note("instance.start", assignment.id, node=assignment.node)
            return True
        if assignment.run is RunState.STOPPED:
            return False
        if verb == "restart":
            reason = Reason(code=ReasonCode.RESTART_ASKED)
            deadline = DEFAULT_DRAIN_S if deadline_s is None else deadline_s
            self._c.departures.begin(assignment.id, Leave.RESTART, reason, deadline, wait=True)
            return True
        reason = Reason(code=ReasonCode.HELD)
        usual = STOP_DEADLINE_S if verb == "stop" else DEFAULT_DRAIN_S
        self._c.departures.begin(
            assignment.id, Leave.STOP, reason, usual if deadline_s is None else deadline_s
        )
        return True

    def _deployment(self, name: str) -> DeploymentName:
        names = [d.name for d in self._c.config.deployments]
        if name not in names:
            raise NotFound(_unknown("deployment", name, names))
        return DeploymentName(name)

    def _node(self, name: str) -> NodeName:
        if name not in self._c.nodes:
            raise NotFound(_unknown("node", name, self._c.nodes))
        return NodeName(name)

    def _device(self, node: NodeName, name: str) -> DeviceId:
        view = self._c.nodes[node]
        by_name = {gpu.uuid: gpu.uuid for gpu in view.gpus}
        by_name |= {DeviceId(str(gpu.index)): gpu.uuid for gpu in view.gpus}
        by_name |= {slot: slot for slot in view.inventory.slots}
        if name not in by_name:
            raise NotFound(_unknown(f"device on {node}", name, by_name))
        return by_name[DeviceId(name)]


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3)
    if near:
        return f"no {what} named {name}; did you mean {', '.join(near)}?"
    listed = ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
    return f"no {what} named {name}; there is {listed}" if names else f"no {what} named {name}; there is none"


def _until(expires_at: float | None) -> str:
    if expires_at is None:
        return "until `scale` says otherwise"
    return f"until {datetime.fromtimestamp(expires_at, UTC):%Y-%m-%d %H:%M:%S} UTC"
