"""Where the answers lie that engines have stored: only who made one can go on from it."""

from collections import OrderedDict
from typing import Final

from supervisord_cp.model.base import DeploymentName, Incarnation, Value

MOST_STORED: Final = 10_000


class Home(Value, frozen=True, kw_only=True):
    """Where a stored response lies."""

    deployment: DeploymentName
    incarnation: Incarnation


class StoredResponses:
    """Which incarnation made a response, by its id; the ones asked for longest ago are forgotten."""

    def __init__(self) -> None:
        self._homes: OrderedDict[str, Home] = OrderedDict()

    def remember(self, response: str, home: Home) -> None:
        """A response was made."""
        self._homes[response] = home
        self._homes.move_to_end(response)
        if len(self._homes) > MOST_STORED:
            self._homes.popitem(last=False)

    def find(self, response: str) -> Home | None:
        """Where it lies."""
        home = self._homes.get(response)
        if home is not None:
            self._homes.move_to_end(response)
        return home
