"""From wanted numbers to actions: what to start, what to retire, one careful step at a time.

Called again and again; each call looks at everything and proposes only what may be done now, so
that a lost step, a restart or a changed mind needs no special case.
"""

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

from supervisord_cp.core.scaling.placement import NodeCapacity, Place
from supervisord_cp.core.scaling.reserve import NOBODY_SLEEPS, Reserve, in_the_way, over, wakeable
from supervisord_cp.core.scaling.room import Room, Wanted
from supervisord_cp.model.assignment import Assignment
from supervisord_cp.model.base import DeploymentName, InstanceId, Value
from supervisord_cp.model.instance import InstanceState
from supervisord_cp.model.launch import RunState, revision_of
from supervisord_cp.model.reason import Reason, ReasonCode
from supervisord_cp.model.scaling import Action, Retire, ScalePlan, Start, Unplaced, Wake
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


def plan(
    wanted: Sequence[Wanted],
    assignments: Sequence[Assignment],
    states: Mapping[InstanceId, InstanceState],
    nodes: Sequence[NodeCapacity],
    placer: Placer,
    *,
    reserve: Reserve = NOBODY_SLEEPS,
    reserved: Collection[InstanceId] = (),
    may_start: bool = True,
) -> ScalePlan:
    """The next actions for deployments in the order given (the first gets devices first).

    `states` are observed; an instance without one has not been reported yet. No name in `reserved` is
    given out. While `may_start` is false (agents are still connecting) nothing is started or retired.
    """
    if not may_start:
        return ScalePlan()
    made = _Plan(assignments, states, nodes, placer, reserve, reserved)
    for item in wanted:
        made.add(item)
    return ScalePlan(actions=tuple(made.actions), unplaced=tuple(made.unplaced))


class _Plan:
    """A plan in the making: what was given out for one deployment is gone for the next."""

    def __init__(
        self,
        assignments: Sequence[Assignment],
        states: Mapping[InstanceId, InstanceState],
        nodes: Sequence[NodeCapacity],
        placer: Placer,
        reserve: Reserve,
        reserved: Collection[InstanceId],
    ) -> None:
        self.actions: list[Action] = []
        self.unplaced: list[Unplaced] = []
        self._assignments = {a.id: a for a in assignments}
        self._mine: dict[DeploymentName, list[Assignment]] = {}
        for assignment in assignments:
            self._mine.setdefault(assignment.deployment, []).append(assignment)
        self._states = states
        self._reserve = reserve
        self._room = Room(nodes, assignments, placer)
        self._names = {a.id for a in assignments} | set(states) | set(reserved)
        self._left = MOST_STARTS
        self._settled: set[InstanceId] = set()
        """Sleepers that were woken or stopped."""

    def add(self, item: Wanted) -> None:
        """What one deployment needs next."""
        mine = self._mine.get(item.deployment, [])
        step = _step(item, mine, self._states)
        started = self._wake(item, mine, step.start)
        self._retire(item, mine, step)
        for _ in range(min(step.start - started, self._left)):
            found = self._start(item)
            if isinstance(found, Reason):
                self.unplaced.append(Unplaced(deployment=item.deployment, reason=found))
            else:
                started += 1
                self._left -= 1
        self._end_sleepers(item, mine, started)
        for stranded, reason in _stranded(step, mine, self._states, self._room):
            if isinstance(self._start(item), Place):
                self._end(stranded, reason)
        if step.replace is not None and not started and not isinstance(self._start(item), Place):
            self._end(step.replace, Reason(code=ReasonCode.REPLACED))

    def _wake(self, item: Wanted, mine: Sequence[Assignment], most: int) -> int:
        """Wake up to so many; how many there were."""
        woken = 0
        for _ in range(most):
            # Looked at anew each time: two that sleep on one device cannot both wake.
            others = [a for a in mine if a.id not in self._settled]
            options = wakeable(others, revision_of(item.spec), self._states, self._room.nodes)
            if not options:
                break
            one = options[0]
            self._settled.add(one.id)
            self.actions.append(Wake(instance=one.id, deployment=item.deployment))
            self._occupy(item, Place(node=one.node, devices=one.devices), one.id)
            woken += 1
        return woken

    def _end_sleepers(self, item: Wanted, mine: Sequence[Assignment], started: int) -> None:
        asleep = [a for a in mine if a.id not in self._settled]
        # One that is wanted and cannot wake now is kept: what is missing leaves a bed to it.
        missing = max(0, item.replicas - sum(a.counts for a in mine) - started)
        most = item.asleep + missing
        for one, reason in over(
            asleep, revision_of(item.spec), self._states, self._reserve, most=most, sleep_s=item.sleep_s
        ):
            self._end(one, reason)

    def _retire(self, item: Wanted, mine: Sequence[Assignment], step: "_Step") -> None:
        beds = item.asleep - sum(a.reserve and a.id not in self._settled for a in mine)
        for retiring, reason in step.retire:
            sleep = beds > 0 and reason.code is ReasonCode.REMOVED
            if sleep and retiring.id in self._reserve.able:
                beds -= 1
                self._end(retiring, Reason(code=ReasonCode.NOT_NEEDED), sleep=True)
            else:
                self._end(retiring, reason)

    def _end(self, one: Assignment, reason: Reason, *, sleep: bool = False) -> None:
        if not sleep:
            self._settled.add(one.id)
        self.actions.append(Retire(instance=one.id, deployment=one.deployment, reason=reason, sleep=sleep))

    def _start(self, item: Wanted) -> Place | Reason:
        found = self._room.find(item)
        if isinstance(found, Place):
            self.actions.append(_start(item, found, self._names))
            self._occupy(item, found, None)
        return found

    def _occupy(self, item: Wanted, where: Place, me: InstanceId | None) -> None:
        """Give out devices; who sleeps there ends if there is no room for both."""
        node = self._room.nodes[where.node]
        others = [a for a in self._assignments.values() if a.id not in self._settled]
        reason = Reason(code=ReasonCode.MEMORY_NEEDED, params={"deployment": item.deployment})
        for name in in_the_way(item.spec, node, where.devices, others, me):
            self._end(self._assignments[name], reason)
        self._room.occupy(item, where)


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
    room: Room,
) -> Iterator[tuple[Assignment, Reason]]:
    """Replicas that do not serve and are bound to a GPU on which they cannot start: they go elsewhere.

    Where there is no elsewhere they stay, and start when the GPU is well again. One that serves is left
    alone: the engine knows best whether its GPU still works.
    """
    if step.retire:
        return  # those that do not serve go first
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
            if (health := room.ill.get(assignment.node, {}).get(device)) is not None:
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
    leaving = any(not (a.counts or a.reserve) for a in mine)
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
