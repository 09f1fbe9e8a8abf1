"""Room on the nodes while one plan is made: what is given away is gone for those who come after."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

from supervisord_cp.core.scaling.placement import NodeCapacity, Place, node_room, occupied, place
from supervisord_cp.model.assignment import Assignment
from supervisord_cp.model.base import DeploymentName, DeviceId, NodeName, Value
from supervisord_cp.model.gpu import GpuHealth
from supervisord_cp.model.launch import LaunchSpec
from supervisord_cp.model.reason import Reason, ReasonCode
from supervisord_cp.policy.placing import NodeRoom, Placer, PlaceView


class Wanted(Value, frozen=True, kw_only=True):
    """A deployment with the number of replicas decided for it."""

    deployment: DeploymentName
    replicas: int
    spec: LaunchSpec
    nodes: tuple[str, ...] = ()
    """Patterns of node names; empty: any."""
    asleep: int = 0
    """Replicas that may sleep besides."""
    sleep_s: float = 0.0
    """For how long; 0: for ever."""


class Room:
    """Places replicas one after the other. What one deployment may use is worked out once, and for the
    node that has just been used again."""

    def __init__(
        self, nodes: Sequence[NodeCapacity], assignments: Iterable[Assignment], placer: Placer
    ) -> None:
        self._given = nodes
        self._placer = placer
        self._reserved = _reserved(assignments)
        self._for: Wanted | None = None
        self._rooms: dict[NodeName, NodeRoom] = {}

    @cached_property
    def nodes(self) -> dict[NodeName, NodeCapacity]:
        """The nodes as they are now. Looked at when they are needed: most plans place nothing."""
        return {node.node: node for node in self._given}

    @cached_property
    def ill(self) -> dict[NodeName, Mapping[DeviceId, GpuHealth]]:
        """GPUs on which nothing can start, by node."""
        return {name: node.ill for name, node in self.nodes.items() if node.ill}

    def find(self, item: Wanted) -> Place | Reason:
        """The place of one more replica, or why there is none."""
        if self._for is not item:
            self._for, self._rooms = item, {}
            for node in self._open_to(item):
                self._look(node, item)
        if not self._rooms:
            return place(item.deployment, item.spec, item.nodes, list(self._open_to(item)), self._placer)
        rooms = tuple(self._rooms.values())
        chosen = self._placer(PlaceView(deployment=item.deployment, devices=item.spec.gpus, nodes=rooms))
        return Place(node=chosen, devices=self._rooms[chosen].free[: item.spec.gpus])

    def occupy(self, item: Wanted, where: Place) -> None:
        """Give the devices of a place away."""
        node = occupied(self.nodes[where.node], item.deployment, where.devices)
        self.nodes[where.node] = node
        self._rooms.pop(where.node, None)
        if self._for is item:
            self._look(node, item)

    def _open_to(self, item: Wanted) -> Iterable[NodeCapacity]:
        """Nodes on which no room is being made for somebody else."""
        if not self._reserved:
            return self.nodes.values()
        mine = item.deployment
        return [n for n in self.nodes.values() if self._reserved.get(n.node, mine) == mine]

    def _look(self, node: NodeCapacity, item: Wanted) -> None:
        room = node_room(node, item.deployment, item.spec, item.nodes)
        if room is not None:
            self._rooms[node.node] = room


def _reserved(assignments: Iterable[Assignment]) -> dict[NodeName, DeploymentName]:
    """Nodes on which replicas leave for a deployment of higher priority: what is free there is for it."""
    return {
        a.node: DeploymentName(str(a.leaving.reason.params.get("deployment", "")))
        for a in assignments
        if a.leaving is not None and a.leaving.reason.code is ReasonCode.PREEMPTED
    }
