"""Replicas that sleep: which of them wake, which are stopped, and whose memory is in the way. Pure.

A sleeping replica is no capacity and costs next to nothing, so its devices are given to others when no empty
ones are left. It may wake as soon as nobody else is awake on them. The agent checks both once more with the
memory that is really free.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final

from supervisord_cp.core.scaling.placement import NodeCapacity
from supervisord_cp.model.assignment import Assignment
from supervisord_cp.model.base import DeviceId, InstanceId, NodeName, Value
from supervisord_cp.model.instance import InstanceState
from supervisord_cp.model.launch import LaunchSpec
from supervisord_cp.model.reason import Reason, ReasonCode

_DEAD: Final = (InstanceState.STOPPED, InstanceState.CRASHED, InstanceState.BACKOFF)


class Reserve(Value, frozen=True, kw_only=True):
    """What is known of the replicas that sleep or could."""

    able: Collection[InstanceId] = ()
    """Instances that could sleep: started with sleep mode, and ready or just waking."""
    slept_s: Mapping[InstanceId, float] = {}
    """For how long each has slept, as far as it was seen."""


NOBODY_SLEEPS: Final = Reserve()


def wakeable(
    mine: Iterable[Assignment],
    revision: str,
    states: Mapping[InstanceId, InstanceState],
    room: Mapping[NodeName, NodeCapacity],
) -> list[Assignment]:
    """Those that can serve again, the quickest first: still draining, then asleep."""
    found = []
    for one in mine:
        node = room.get(one.node)
        if not one.reserve or one.revision != revision or node is None:
            continue
        if one.leaving is not None or (states.get(one.id) is InstanceState.SLEEPING and _free_for(one, node)):
            found.append(one)
    return sorted(found, key=lambda a: (a.leaving is None, a.id))


def _free_for(one: Assignment, node: NodeCapacity) -> bool:
    """Whether nobody else is at work on its devices, and nothing speaks against them."""
    usable = {*node.devices, *node.doubtful}
    return not node.cordoned and all(
        device in usable and device not in node.taken and device not in node.cordoned_devices
        for device in one.devices
    )


def over(
    mine: Sequence[Assignment],
    revision: str,
    states: Mapping[InstanceId, InstanceState],
    reserve: Reserve,
    *,
    most: int,
    sleep_s: float,
) -> Iterator[tuple[Assignment, Reason]]:
    """Sleepers that are of no use any more, and why."""
    kept = 0
    for one in sorted(mine, key=lambda a: a.id):
        if not one.reserve or one.lost:
            continue
        slept_s = reserve.slept_s.get(one.id, 0.0)
        if one.revision != revision:
            yield one, Reason(code=ReasonCode.REPLACED)
        elif states.get(one.id) in _DEAD and one.leaving is None:
            yield one, Reason(code=ReasonCode.REMOVED)
        elif sleep_s > 0 and slept_s >= sleep_s:
            yield one, Reason(code=ReasonCode.SLEPT_ENOUGH, params={"seconds": round(slept_s)})
        elif kept >= most:
            yield one, Reason(code=ReasonCode.REMOVED)
        else:
            kept += 1


def in_the_way(
    spec: LaunchSpec,
    node: NodeCapacity,
    devices: Sequence[DeviceId],
    assignments: Iterable[Assignment],
    me: InstanceId | None = None,
) -> list[InstanceId]:
    """Sleepers on these devices that must end, because what they hold is more than is to spare. `me` is the
    one that wakes there; what it holds itself is not in its way."""
    short = [device for device in devices if _short(spec, node, device, me)]
    return [
        a.id
        for a in assignments
        if a.reserve and a.id != me and a.node == node.node and set(a.devices) & set(short)
    ]


def _short(spec: LaunchSpec, node: NodeCapacity, device: DeviceId, me: InstanceId | None) -> bool:
    memory, share = node.memory.get(device), spec.memory_share
    if memory is None or share is None:
        return False
    return memory.used - memory.held.get(me or InstanceId(""), 0) + share * memory.total > memory.total
