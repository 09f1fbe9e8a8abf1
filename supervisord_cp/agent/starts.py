"""What starts have taken on this node, by deployment; kept on disk."""

from collections.abc import Mapping

from supervisord_cp.agent.state import StateDir
from supervisord_cp.core.instances.startup import Seconds, StartHistory, remembered
from supervisord_cp.model.base import DeploymentName
from supervisord_cp.model.launch import DesiredInstance


class Starts:
    """Histories of starts. Writing them down may fail; that costs the estimate only."""

    def __init__(self, state: StateDir) -> None:
        self._state = state
        self._known: dict[DeploymentName, StartHistory] = dict(state.load_starts())

    def of(self, desired: DesiredInstance) -> StartHistory:
        """The history for this launch; empty when its deployment had another model."""
        known = self._known.get(desired.deployment, StartHistory())
        return known if known.model == desired.spec.model else StartHistory()

    def note(self, desired: DesiredInstance, seconds: Seconds) -> Mapping[DeploymentName, StartHistory]:
        """A start became ready after these seconds in its phases; what is to be written down."""
        history = remembered(self.of(desired), desired.spec.model, seconds)
        self._known[desired.deployment] = history
        return dict(self._known)

    def save(self, histories: Mapping[DeploymentName, StartHistory]) -> None:
        """Blocks on the disk."""
        self._state.save_starts(histories)
