"""From wanted numbers to actions: what to start, what to retire, one careful step at a time.

Called again and again; each call looks at everything and proposes only what may be done now, so
that a lost step, a restart or a changed mind needs no special case.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from supervisord_cp.core.scaling.placement import NodeCapacity, Place, occupied, place
from supervisord_cp.model.assignment import Assignment
from supervisord_cp.model.base import DeploymentName, DeviceId, InstanceId, NodeName, Value
from supervisord_cp.model.gpu import GpuHealth
from supervisord_cp.model.instance import InstanceState
from supervisord_cp.model.launch import LaunchSpec, RunState, revision_of
from supervisord_cp.model.reason import Reason, ReasonCode
from supervisord_cp.model.scaling import Action, Retire, ScalePlan, Start, Unplaced
from supervisord_cp.policy.placing import Placer

_SERVING: Final = frozenset(
    {
        InstanceState.READY,
        InstanceState.DRAINING,
        InstanceState.SLEEPING,
        InstanceState.UNLISTED,
        InstanceState.UNKNOWN,
    }
)
"""May serve, for all that is known."""


MOST_STARTS: Final = 64
"""Replicas placed in one step; the next step goes on."""


class Wanted(Value, frozen=True, kw_only=True):
    """A deployment with the number of replicas decided for it."""

    deployment: DeploymentName
    replicas: int
    spec: LaunchSpec
    nodes: tuple[str, ...] = ()
    """Patterns of node names; empty: any."""


def plan(
    wanted: Sequence[Wanted],
    assignments: Sequence[Assignment],
    states: Mapping[InstanceId, InstanceState],
    nodes: Sequence[NodeCapacity],
    placer: Placer,
    *,
    may_start: bool = True,
) -> ScalePlan:
    """The next actions for deployments in the order given (the first gets devices first).

    `states` are observed; an instance without one has not been reported yet. While `may_start` is
    false (agents are still connecting) nothing is started or retired.
    """
    if not may_start:
        return ScalePlan()
    actions: list[Action] = []
    unplaced: list[Unplaced] = []
    room = {node.node: node for node in nodes}
    left = MOST_STARTS
    ill = {node.node: node.ill for node in nodes if node.ill}
    taken = {a.id for a in assignments} | set(states)
    mine: dict[DeploymentName, list[Assignment]] = {item.deployment: [] for item in wanted}
    for assignment in assignments:
        mine.setdefault(assignment.deployment, []).append(assignment)
    for item in wanted:
        step = _step(item, mine[item.deployment], states)
        for retiring, reason in step.retire:
            actions.append(Retire(instance=retiring.id, deployment=item.deployment, reason=reason))
        placed = 0
        for _ in range(min(step.start, left)):
            found = place(item.deployment, item.spec, item.nodes, room.values(), placer)
            if isinstance(found, Reason):
                unplaced.append(Unplaced(deployment=item.deployment, reason=found))
                continue
            actions.append(_start(item, found, taken))
            room[found.node] = occupied(room[found.node], item.deployment, found.devices)
            placed += 1
            left -= 1
        for stranded, reason in _stranded(step, mine[item.deployment], states, ill):
            found = place(item.deployment, item.spec, item.nodes, room.values(), placer)
            if isinstance(found, Place):
                actions.append(_start(item, found, taken))
                actions.append(Retire(instance=stranded.id, deployment=item.deployment, reason=reason))
                room[found.node] = occupied(room[found.node], item.deployment, found.devices)
        if step.replace is not None and not placed:
            found = place(item.deployment, item.spec, item.nodes, room.values(), placer)
            if isinstance(found, Place):
                actions.append(_start(item, found, taken))
                room[found.node] = occupied(room[found.node], item.deployment, found.devices)
            else:
                reason = Reason(code=ReasonCode.REPLACED)
                actions.append(Retire(instance=step.replace.id, deployment=item.deployment, reason=reason))
    return ScalePlan(actions=tuple(actions), unplaced=tuple(unplaced))


class _Step(Value, frozen=True, kw_only=True):
    """What one deployment needs next."""

    start: int = 0
    retire: tuple[tuple[Assignment, Reason], ...] = ()
    replace: Assignment | None = None
    """An old revision to be replaced: by a new replica beside it, or in its place when there is no room."""


def _stranded(
    step: _Step,
    mine: Sequence[Assignment],
    states: Mapping[InstanceId, InstanceState],
    ill: Mapping[NodeName, Mapping[DeviceId, GpuHealth]],
) -> Iterator[tuple[Assignment, Reason]]:
    """Replicas that do not serve and are bound to a GPU on which they cannot start: they go elsewhere.

    Where there is no elsewhere they stay, and start when the GPU is well again. One that serves is left
    alone: the engine knows best whether its GPU still works.
    """
    if step.retire:
        return  # those that do not serve go first
    if not ill:
        return
    for assignment in mine:
        if (
            not assignment.counts
            or assignment.leaving is not None
            or assignment.run is not RunState.RUNNING
            or assignment is step.replace
            or states.get(assignment.id) in _SERVING
        ):
            continue
        for device in assignment.devices:
            if (health := ill.get(assignment.node, {}).get(device)) is not None:
                params: dict[str, str | int | float] = {"gpu": device, "health": health.value}
                yield assignment, Reason(code=ReasonCode.GPU_UNWELL, params=params)
                break


def _step(item: Wanted, mine: Sequence[Assignment], states: Mapping[InstanceId, InstanceState]) -> _Step:
    staying = [a for a in mine if a.counts]
    revision = revision_of(item.spec)
    old = [a for a in staying if a.revision != revision]
    new = [a for a in staying if a.revision == revision]
    coming = [a for a in new if a.run is RunState.RUNNING and states.get(a.id) is not InstanceState.READY]
    surplus = len(staying) - item.replicas
    if old:
        surplus -= min(len(coming), max(0, surplus))  # old ones go when the new ones are ready
    if surplus > 0:
        victims = sorted(staying, key=lambda a: _keep_rank(a, a.revision == revision, states))[:surplus]
        reason = Reason(code=ReasonCode.REPLACED if old and new else ReasonCode.REMOVED)
        return _Step(retire=tuple((victim, reason) for victim in victims))
    leaving = any(not a.counts for a in mine)
    outdated = None
    if old and not coming and not leaving and len(staying) <= item.replicas:
        outdated = min(old, key=lambda a: _keep_rank(a, False, states))
    return _Step(start=max(0, -surplus), replace=outdated)


def _keep_rank(
    assignment: Assignment, current: bool, states: Mapping[InstanceId, InstanceState]
) -> tuple[bool, bool, int]:
    """Low ranks go first: not serving, then old revisions, then the youngest ordinals."""
    serving = states.get(assignment.id) in (
        InstanceState.READY,
        InstanceState.UNKNOWN,
        InstanceState.UNLISTED,
    )
    return serving, current, -ordinal_of(assignment.id)


def _start(item: Wanted, where: Place, taken: set[InstanceId]) -> Start:
    """A start under the lowest free name, which is taken from now on."""
    names = (InstanceId(f"{item.deployment}-{n}") for n in itertools.count())
    name = next(name for name in names if name not in taken)
    taken.add(name)
    return Start(
        instance=name,
        deployment=item.deployment,
        node=where.node,
        devices=where.devices,
        spec=item.spec,
        revision=revision_of(item.spec),
    )


def ordinal_of(instance: InstanceId) -> int:
    """The ordinal in an instance's id; -1 when it has none."""
    tail = instance.rpartition("-")[2]
    return int(tail) if tail.isdigit() else -1
