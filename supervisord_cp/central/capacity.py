"""What nodes have room for, as placement sees them. Pure."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Final, overload

from supervisord_cp.central import fleet
from supervisord_cp.central.memory import Memory
from supervisord_cp.core.scaling.placement import DeviceMemory, NodeCapacity
from supervisord_cp.model.assignment import Assignment
from supervisord_cp.model.base import DeploymentName, DeviceId, InstanceId, NodeName
from supervisord_cp.model.gpu import Gpu, GpuHealth
from supervisord_cp.model.instance import InstanceState, InstanceStatus

NEXT_TO_NOTHING: Final = 0.01
"""Of a GPU's memory: what the driver itself holds on an empty one."""


class Capacities(Sequence[NodeCapacity]):
    """What nodes have room for, worked out when somebody asks."""

    def __init__(self, nodes: Mapping[NodeName, fleet.NodeView], memory: Memory, now: float) -> None:
        self._now = nodes, memory, now

    @cached_property
    def _all(self) -> list[NodeCapacity]:
        return capacities(*self._now)

    def __len__(self) -> int:
        return len(self._all)

    @overload
    def __getitem__(self, at: int) -> NodeCapacity: ...
    @overload
    def __getitem__(self, at: slice) -> list[NodeCapacity]: ...
    def __getitem__(self, at: int | slice) -> NodeCapacity | list[NodeCapacity]:
        return self._all[at]


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
    strangers = {gpu.uuid for gpu in gpus if fleet.foreign(gpu)}
    unclaimed = [gpu for gpu in gpus if gpu.uuid not in strangers] if strangers else gpus
    taken: set[DeviceId] = set()
    replicas: dict[DeploymentName, int] = {}
    resting = {a.id for a in here if a.asleep and _sleeps(view.instances.get(a.id))}
    asleep: set[DeviceId] = set()
    for assignment in here:
        (asleep if assignment.id in resting else taken).update(assignment.devices)
        if assignment.counts:
            replicas[assignment.deployment] = replicas.get(assignment.deployment, 0) + 1
    for status in view.instances.values():
        if status.id not in resting:
            taken.update(status.devices)
    asleep -= taken
    return NodeCapacity(
        node=view.name,
        zone=view.inventory.zone,
        devices=(*view.inventory.slots, *(gpu.uuid for gpu in unclaimed if fleet.usable(gpu))),
        doubtful=tuple(gpu.uuid for gpu in unclaimed if gpu.health is GpuHealth.SUSPECT),
        ill={gpu.uuid: gpu.health for gpu in gpus if gpu.health in fleet.ILL},
        foreign=tuple(gpu.uuid for gpu in gpus if gpu.uuid in strangers) if strangers else (),
        taken=frozenset(taken),
        asleep=frozenset(asleep),
        memory={gpu.uuid: held for gpu in gpus if gpu.uuid not in taken and (held := _memory(gpu))},
        cordoned=memory.cordoned(view.name),
        cordoned_devices=memory.cordoned_devices(view.name),
        executables=view.inventory.executables,
        replicas=replicas,
    )


def _sleeps(status: InstanceStatus | None) -> bool:
    return status is not None and status.state is InstanceState.SLEEPING


def _memory(gpu: Gpu) -> DeviceMemory | None:
    """What is in use, where it is enough to matter; None: next to nothing, not measured, or long ago."""
    if gpu.memory_total is None or gpu.memory_used is None or gpu.health is GpuHealth.UNKNOWN:
        return None
    if gpu.memory_used < NEXT_TO_NOTHING * gpu.memory_total:
        return None
    held: dict[InstanceId, int] = {}
    for holder in gpu.holders:
        name = InstanceId(holder.instance)
        held[name] = held.get(name, 0) + holder.bytes
    held.pop(InstanceId(""), None)
    return DeviceMemory(total=gpu.memory_total, used=gpu.memory_used, held=held)
