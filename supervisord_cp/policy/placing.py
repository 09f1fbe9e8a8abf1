"""What a placer sees: the nodes that could take a replica, already filtered by what is possible.

A placer is a function of a view that answers the name of one of its nodes; `params`, when it declares some,
are given by keyword. It remembers nothing: where replicas stand already is in the view.
"""

from collections.abc import Callable
from typing import TypeAlias

from supervisord_cp.model.base import DeploymentName, DeviceId, NodeName, Value


class NodeRoom(Value, frozen=True, kw_only=True):
    """A node that has room for a replica."""

    node: NodeName
    zone: str = ""
    free: tuple[DeviceId, ...]
    total: int
    """Devices of the node, used ones included."""
    same_deployment: int = 0
    """Replicas of the same deployment that are there already."""


class PlaceView(Value, frozen=True, kw_only=True):
    """One replica to be placed."""

    deployment: DeploymentName
    devices: int
    nodes: tuple[NodeRoom, ...]
    """At least one; each has at least `devices` free."""


Placer: TypeAlias = Callable[[PlaceView], NodeName]
"""Chooses one of `view.nodes`."""
