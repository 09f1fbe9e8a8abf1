"""When the requests of an instance that leaves are done: draining is acknowledged, not guessed."""

from collections.abc import Iterable, Sequence
from typing import Final

from supervisord_cp.model.assignment import Assignment, Leave
from supervisord_cp.model.base import Incarnation, InstanceId
from supervisord_cp.model.instance import InstanceState
from supervisord_cp.model.launch import RunState
from supervisord_cp.model.router import RouterReport

_ON_THEIR_WAY: Final = frozenset({None, InstanceState.GATED, InstanceState.STARTING})
"""Placed, and neither serving nor failed yet."""


def drained(
    incarnation: Incarnation,
    told_in: int,
    epoch: str,
    routers: Iterable[RouterReport],
) -> bool:
    """Whether every live router has applied the snapshot version `told_in` (or a later one of this
    epoch) and has no lease left on the incarnation."""
    return all(
        router.epoch == epoch
        and router.version >= told_in
        and not any(lease.incarnation == incarnation and lease.requests for lease in router.leases)
        for router in routers
    )


def next_turns(
    assignments: Sequence[Assignment], states: dict[InstanceId, InstanceState]
) -> list[InstanceId]:
    """Which waiting restarts of one deployment may begin now.

    One that does not serve anyway begins at once. One that goes for good waits for those that are on their
    way in its place, and for none that has failed. Of those that are restarted, one at a time begins, when
    all others serve.
    """
    going = [a for a in assignments if a.leaving is not None and a.leaving.waiting and not a.counts]
    if going:
        coming = any(
            a.counts and a.run is RunState.RUNNING and states.get(a.id) in _ON_THEIR_WAY for a in assignments
        )
        return [a.id for a in going if not coming or states.get(a.id) is not InstanceState.READY]
    waiting = [a for a in assignments if a.leaving is not None and a.leaving.waiting]
    idle = [a.id for a in waiting if states.get(a.id) is not InstanceState.READY]
    serving = [a for a in waiting if a.id not in idle]
    if not serving:
        return idle
    others = [a for a in assignments if a.counts and a.id != serving[0].id and a.run == "running"]
    busy = any(
        a.leaving is not None and a.leaving.to is Leave.RESTART and not a.leaving.waiting for a in others
    )
    if not busy and all(states.get(a.id) is InstanceState.READY for a in others):
        return [*idle, serving[0].id]
    return idle
