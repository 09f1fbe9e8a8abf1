"""What would have to change for a replica to get a place: placed once more with one thing lifted."""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from msgspec.structs import replace

from supervisord_cp.core.scaling.placement import NodeCapacity, Place, gib, place
from supervisord_cp.model.base import DeploymentName
from supervisord_cp.model.launch import LaunchSpec, allows, program_of
from supervisord_cp.model.reason import Reason, ReasonCode
from supervisord_cp.policy.placing import Placer

Params = dict[str, str | int | float]


def ways(
    deployment: DeploymentName,
    spec: LaunchSpec,
    patterns: Sequence[str],
    nodes: Sequence[NodeCapacity],
    placer: Placer,
) -> tuple[Reason, ...]:
    """Each single change with which a replica that has no place now would have one."""
    found = []
    for code, lift in _LIFTS.items():
        lifted = [lift(node, spec) for node in nodes]
        allowed = () if code is ReasonCode.IF_ANY_NODE else patterns
        where = place(deployment, spec, allowed, lifted, placer)
        if isinstance(where, Place):
            before = next(node for node in nodes if node.node == where.node)
            found.append(Reason(code=code, params=_params(code, where, before, spec)))
    return tuple(found) or tuple(_more_devices(spec, patterns, nodes))


def _as_it_is(node: NodeCapacity, spec: LaunchSpec) -> NodeCapacity:
    return node


def _uncordoned(node: NodeCapacity, spec: LaunchSpec) -> NodeCapacity:
    return replace(node, cordoned=False, cordoned_devices=frozenset())


def _without_strangers(node: NodeCapacity, spec: LaunchSpec) -> NodeCapacity:
    gone = set(node.foreign)
    memory = {device: one for device, one in node.memory.items() if device not in gone}
    return replace(node, devices=(*node.devices, *node.foreign), memory=memory)


def _well(node: NodeCapacity, spec: LaunchSpec) -> NodeCapacity:
    return replace(node, devices=(*node.devices, *node.ill))


def _with_memory(node: NodeCapacity, spec: LaunchSpec) -> NodeCapacity:
    return replace(node, memory={})


def _allowing(node: NodeCapacity, spec: LaunchSpec) -> NodeCapacity:
    return replace(node, executables=(program_of(spec),))


_LIFTS: Final[dict[ReasonCode, Callable[[NodeCapacity, LaunchSpec], NodeCapacity]]] = {
    ReasonCode.IF_UNCORDONED: _uncordoned,
    ReasonCode.IF_ANY_NODE: _as_it_is,
    ReasonCode.IF_STRANGERS_LEFT: _without_strangers,
    ReasonCode.IF_GPU_WELL: _well,
    ReasonCode.IF_MEMORY_FREE: _with_memory,
    ReasonCode.IF_ALLOWED: _allowing,
}


def _params(code: ReasonCode, where: Place, before: NodeCapacity, spec: LaunchSpec) -> Params:
    params: Params = {"node": where.node}
    if code is ReasonCode.IF_ALLOWED:
        params["executable"] = program_of(spec)
    elif code is ReasonCode.IF_STRANGERS_LEFT:
        params["gpus"] = ", ".join(d for d in where.devices if d in before.foreign)
    elif code is ReasonCode.IF_GPU_WELL:
        params["gpus"] = ", ".join(d for d in where.devices if d in before.ill)
    elif code is ReasonCode.IF_MEMORY_FREE:
        short = [d for d in where.devices if not before.fits(d, spec)]
        params["gpus"] = ", ".join(short)
        params["needed"] = gib(max((spec.memory_share or 0.0) * before.memory[d].total for d in short))
    return params


def _more_devices(
    spec: LaunchSpec, patterns: Sequence[str], nodes: Sequence[NodeCapacity]
) -> Iterator[Reason]:
    """The node that lacks the fewest devices; or, where none is large enough, one that is."""
    fitting = [
        node
        for node in nodes
        if len(node.devices) >= spec.gpus
        and node.matches(patterns)
        and allows(node.executables, spec)
        and not node.cordoned
    ]
    if not fitting:
        yield Reason(code=ReasonCode.IF_NODE_CONNECTS, params={"devices": spec.gpus})
        return
    nearest = max(fitting, key=lambda node: len(node.free_for(spec)))
    params: Params = {
        "node": nearest.node,
        "devices": spec.gpus - len(nearest.free_for(spec)),
        "total": len(nearest.devices),
    }
    yield Reason(code=ReasonCode.IF_DEVICES_FREE, params=params)
