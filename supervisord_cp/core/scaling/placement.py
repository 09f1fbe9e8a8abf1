"""Which node and which devices a replica gets, or why it cannot be placed."""

from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Final

from msgspec.structs import replace

from supervisord_cp.model.base import DeploymentName, DeviceId, InstanceId, NodeName, Value
from supervisord_cp.model.gpu import GpuHealth
from supervisord_cp.model.launch import LaunchSpec, allows, program_of
from supervisord_cp.model.reason import Reason, ReasonCode
from supervisord_cp.policy.placing import NodeRoom, Placer, PlaceView

MIG_PREFIX: Final = "MIG-"


class DeviceMemory(Value, frozen=True, kw_only=True):
    """Memory of a GPU in bytes."""

    total: int
    used: int
    held: Mapping[InstanceId, int] = {}
    """By our own instances."""

    def spare(self) -> int:
        """What there is without our own instances: one that has ended gives its memory back."""
        return self.total - self.used + sum(self.held.values())


class NodeCapacity(Value, frozen=True, kw_only=True):
    """A connected node as placement sees it."""

    node: NodeName
    zone: str = ""
    devices: tuple[DeviceId, ...] = ()
    """All devices that may be used: healthy GPUs without strangers, or slots."""
    doubtful: tuple[DeviceId, ...] = ()
    """Suspect GPUs: used when there is nothing better."""
    ill: Mapping[DeviceId, GpuHealth] = {}
    """GPUs that no engine can start on: quarantined or lost."""
    foreign: tuple[DeviceId, ...] = ()
    """GPUs that strangers use: no engine is put there."""
    taken: frozenset[DeviceId] = frozenset()
    asleep: frozenset[DeviceId] = frozenset()
    """Devices on which engines sleep and none is awake: used when no empty one is left."""
    memory: Mapping[DeviceId, DeviceMemory] = {}
    """Of devices on which somebody else holds some; one that is not here is taken to have enough."""
    cordoned: bool = False
    cordoned_devices: frozenset[DeviceId] = frozenset()
    executables: tuple[str, ...] = ()
    replicas: Mapping[DeploymentName, int] = {}

    def matches(self, patterns: Sequence[str]) -> bool:
        """Whether a placement constraint lets a replica come here; no pattern: any node."""
        return not patterns or any(fnmatchcase(self.node, pattern) for pattern in patterns)

    @property
    def free(self) -> tuple[DeviceId, ...]:
        blocked = self.taken | self.cordoned_devices | self.asleep
        return tuple(device for device in self.devices if device not in blocked)

    def free_for(self, spec: LaunchSpec) -> tuple[DeviceId, ...]:
        """Free devices that a replica can be put on: with memory for it, and of MIG devices one at most,
        since one process sees no more."""
        found = self.free
        if self.memory:
            found = tuple(device for device in found if self.fits(device, spec))
        if spec.gpus == 1:
            return found
        return tuple(device for device in found if not device.startswith(MIG_PREFIX))

    def fits(self, device: DeviceId, spec: LaunchSpec) -> bool:
        """Whether the memory there is enough, as far as that is known."""
        memory, share = self.memory.get(device), spec.memory_share
        return memory is None or share is None or memory.spare() >= share * memory.total


class Place(Value, frozen=True, kw_only=True):
    """Where a replica goes."""

    node: NodeName
    devices: tuple[DeviceId, ...]


def place(
    deployment: DeploymentName,
    spec: LaunchSpec,
    patterns: Sequence[str],
    nodes: Collection[NodeCapacity],
    placer: Placer,
) -> Place | Reason:
    """The place of one replica, or the reason why there is none.

    Each filter that leaves nothing names itself, the most basic one first.
    """
    found = _place(deployment, spec, patterns, nodes, placer)
    if isinstance(found, Reason) and any(n.asleep for n in nodes):
        nodes = [shared(n) for n in nodes]
        found = _place(deployment, spec, patterns, nodes, placer)
    if isinstance(found, Reason) and any(n.doubtful for n in nodes):
        all_devices = [replace(n, devices=(*n.devices, *n.doubtful), doubtful=()) for n in nodes]
        otherwise = _place(deployment, spec, patterns, all_devices, placer)
        return otherwise if isinstance(otherwise, Place) else found
    return found


def shared(node: NodeCapacity) -> NodeCapacity:
    """A node with the devices of those that sleep among its free ones, as the last of them. Their memory is
    to be had: who sleeps there ends if it is needed."""
    empty = [device for device in node.devices if device not in node.asleep]
    return replace(
        node,
        devices=(*empty, *(device for device in node.devices if device in node.asleep)),
        memory={device: held for device, held in node.memory.items() if device not in node.asleep},
        asleep=frozenset(),
    )


def _place(
    deployment: DeploymentName,
    spec: LaunchSpec,
    patterns: Sequence[str],
    nodes: Collection[NodeCapacity],
    placer: Placer,
) -> Place | Reason:
    if not nodes:
        return Reason(code=ReasonCode.NO_NODES)
    matching = [n for n in nodes if n.matches(patterns)]
    if not matching:
        return Reason(code=ReasonCode.NODE_CONSTRAINT, params={"nodes": ", ".join(patterns)})
    allowing = [n for n in matching if allows(n.executables, spec)]
    if not allowing:
        return Reason(code=ReasonCode.ENGINE_NOT_ALLOWED, params={"executable": program_of(spec)})
    roomy = [n for n in allowing if len(n.free_for(spec)) >= spec.gpus]
    if not roomy:
        if any(len(replace(n, memory={}).free_for(spec)) >= spec.gpus for n in allowing):
            return _no_memory(spec, allowing)
        most = max((len(n.free_for(spec)) for n in allowing), default=0)
        return Reason(code=ReasonCode.NO_FREE_DEVICE, params={"wanted": spec.gpus, "free": most})
    open_ = [n for n in roomy if not n.cordoned]
    if not open_:
        return Reason(code=ReasonCode.CORDONED)
    rooms = tuple(_room(n, deployment, spec) for n in open_)
    chosen = placer(PlaceView(deployment=deployment, devices=spec.gpus, nodes=rooms))
    free = next(room.free for room in rooms if room.node == chosen)
    return Place(node=chosen, devices=free[: spec.gpus])


def node_room(
    node: NodeCapacity, deployment: DeploymentName, spec: LaunchSpec, patterns: Sequence[str]
) -> NodeRoom | None:
    """What a placer is told of a node that can take a replica; None of one that cannot."""
    if node.cordoned or not node.matches(patterns) or not allows(node.executables, spec):
        return None
    room = _room(node, deployment, spec)
    return room if len(room.free) >= spec.gpus else None


def _room(node: NodeCapacity, deployment: DeploymentName, spec: LaunchSpec) -> NodeRoom:
    return NodeRoom(
        node=node.node,
        zone=node.zone,
        free=node.free_for(spec),
        total=len(node.devices),
        same_deployment=node.replicas.get(deployment, 0),
    )


def _no_memory(spec: LaunchSpec, nodes: Sequence[NodeCapacity]) -> Reason:
    """Devices would be free, their memory is not: the one that comes nearest."""
    share = spec.memory_share or 0.0
    shorts = [
        (share * memory.total - memory.spare(), memory, device, node.node)
        for node in nodes
        for device in node.free
        if (memory := node.memory.get(device)) is not None and not node.fits(device, spec)
    ]
    _, memory, device, name = min(shorts, key=lambda short: (short[0], short[3], short[2]))
    params: dict[str, str | int | float] = {
        "needed": gib(share * memory.total),
        "free": gib(memory.spare()),
        "gpu": device,
        "node": name,
    }
    return Reason(code=ReasonCode.NO_FREE_MEMORY, params=params)


def gib(amount: float) -> str:
    """`12.5 GiB`."""
    return f"{amount / 2**30:.1f} GiB"


def occupied(node: NodeCapacity, deployment: DeploymentName, devices: tuple[DeviceId, ...]) -> NodeCapacity:
    """A node after a replica was placed on it."""
    return replace(
        node,
        taken=node.taken | set(devices),
        replicas={**node.replicas, deployment: node.replicas.get(deployment, 0) + 1},
    )
