"""What a new central does not know yet is not gone: parts of the old view are carried over for a while."""

from typing import Final

from msgspec.structs import replace

from supervisord_cp.model.base import NodeName
from supervisord_cp.model.fleet import FleetPart, FleetSnapshot

CARRY_S: Final = 15.0
"""How long agents have to report to a new central."""


def missing_parts(old: FleetSnapshot, new: FleetSnapshot) -> tuple[FleetPart, ...]:
    """The nodes' parts that a snapshot of another epoch says nothing of; none within one epoch.

    A central that has just started knows a node's engines only once that node's agent has reported.
    """
    if old.epoch == new.epoch:
        return ()
    told = {part.node for part in new.parts if part.instances}
    return tuple(part for part in old.parts if part.instances and part.node not in told)


def with_carried(snapshot: FleetSnapshot, carried: tuple[FleetPart, ...]) -> FleetSnapshot:
    """The snapshot with what is carried over in the place of what it does not tell."""
    told: set[NodeName] = {part.node for part in snapshot.parts if part.instances}
    kept = tuple(part for part in carried if part.node not in told)
    if not kept:
        return snapshot
    names = {part.node for part in kept}
    others = tuple(part for part in snapshot.parts if part.node not in names)
    return replace(snapshot, parts=others + kept)
