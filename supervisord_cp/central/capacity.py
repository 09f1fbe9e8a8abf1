"""What nodes have room for, as placement sees them. Pure."""

from collections.abc import Mapping

from supervisord_cp.central import fleet
from supervisord_cp.central.memory import Memory
from supervisord_cp.core.scaling.placement import NodeCapacity
from supervisord_cp.model.assignment import Assignment
from supervisord_cp.model.base import DeploymentName, DeviceId, NodeName
from supervisord_cp.model.gpu import GpuHealth


def capacities(nodes: Mapping[NodeName, fleet.NodeView], memory: Memory, now: float) -> list[NodeCapacity]:
    """Nodes that can take replicas: connected, reporting, with what is free on them."""
    here: dict[NodeName, list[Assignment]] = {}
    for assignment in memory.assignments.values():
        here.setdefault(assignment.node, []).append(assignment)
    return [
        _capacity(view, memory, here.get(name, []))
        for name, view in nodes.items()
        if view.connected and view.acknowledged and not view.silent(now)
    ]


def _capacity(view: fleet.NodeView, memory: Memory, here: list[Assignment]) -> NodeCapacity:
    gpus = view.gpus if view.inventory.device == "cuda" and view.gpus_known else ()
    unclaimed = [gpu for gpu in gpus if not fleet.foreign(gpu)]
    taken: set[DeviceId] = set()
    replicas: dict[DeploymentName, int] = {}
    for assignment in here:
        taken.update(assignment.devices)
        if assignment.counts:
            replicas[assignment.deployment] = replicas.get(assignment.deployment, 0) + 1
    for status in view.instances.values():
        taken.update(status.devices)
    return NodeCapacity(
        node=view.name,
        zone=view.inventory.zone,
        devices=(*view.inventory.slots, *(gpu.uuid for gpu in unclaimed if fleet.usable(gpu))),
        doubtful=tuple(gpu.uuid for gpu in unclaimed if gpu.health is GpuHealth.SUSPECT),
        ill={gpu.uuid: gpu.health for gpu in gpus if gpu.health in fleet.ILL},
        taken=frozenset(taken),
        cordoned=memory.cordoned(view.name),
        cordoned_devices=memory.cordoned_devices(view.name),
        executables=view.inventory.executables,
        replicas=replicas,
    )
