"""For how long instances sleep, as central sees it."""

from collections.abc import Mapping

from supervisord_cp.model.base import InstanceId
from supervisord_cp.model.instance import InstanceState


class Sleepers:
    """A restart of central begins to count anew: a replica then sleeps longer, never shorter."""

    def __init__(self) -> None:
        self._since: dict[InstanceId, float] = {}

    def look(self, states: Mapping[InstanceId, InstanceState], now: float) -> dict[InstanceId, float]:
        """Seconds for which each has slept without a break. One whose node is silent is not seen to wake."""
        still = {
            name
            for name, state in states.items()
            if state is InstanceState.SLEEPING or (state is InstanceState.UNKNOWN and name in self._since)
        }
        self._since = {name: self._since.get(name, now) for name in still}
        return {name: now - since for name, since in self._since.items()}
