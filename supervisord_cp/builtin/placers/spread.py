"""Spread: replicas of a deployment go to different nodes, then to the emptiest node."""

from supervisord_cp.policy import NodeName, NodeRoom, PlaceView, placer


@placer("spread")
def spread(view: PlaceView) -> NodeName:
    """Fewest replicas of the same deployment first, then the largest free share, then the name."""

    def rank(room: NodeRoom) -> tuple[int, float, str]:
        return room.same_deployment, -len(room.free) / max(1, room.total), room.node

    return min(view.nodes, key=rank).node
