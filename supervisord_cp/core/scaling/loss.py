"""When a node counts as lost: silent, and its engines do not answer either."""

from collections.abc import Mapping, Sequence
from typing import Final

from supervisord_cp.model.base import NodeName, Value

LOST_AFTER_S: Final = 30.0
DOUBT_SHARE: Final = 0.5
"""More silent nodes than this share: it is central that cannot be reached, not the nodes."""


class Silence(Value, frozen=True, kw_only=True):
    """A node that has engines, as far as its silence goes."""

    node: NodeName
    silent: bool
    dead_s: float | None = None
    """For how long not one of its engines has answered a probe; None: one answers, or none was asked."""


def lost(nodes: Sequence[Silence], already: Mapping[NodeName, bool]) -> frozenset[NodeName]:
    """The nodes whose replicas are to be replaced.

    With many nodes silent at once nothing is newly lost: central doubts itself and holds. A node that
    reports again is back at once.
    """
    silent = [n for n in nodes if n.silent]
    doubtful = len(silent) > 1 and len(silent) > DOUBT_SHARE * len(nodes)
    dead = {n.node for n in silent if n.dead_s is not None and n.dead_s >= LOST_AFTER_S}
    before = {n.node for n in silent if already.get(n.node, False)}
    return frozenset(before if doubtful else dead | before)
