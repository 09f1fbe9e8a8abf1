"""Pack: nodes are filled up one after the other, so that whole ones stay free."""

from supervisord_cp.policy import NodeName, NodeRoom, PlaceView, placer


@placer("pack")
def pack(view: PlaceView) -> NodeName:
    """Fewest free devices that are enough first (best fit), then the name.

    What stays free lies together: replicas of many GPUs find a node, and empty hosts can be given back.
    """

    def rank(room: NodeRoom) -> tuple[int, str]:
        return len(room.free), room.node

    return min(view.nodes, key=rank).node
