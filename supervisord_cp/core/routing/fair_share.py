"""Whose turn it is: deficit round robin between API keys, in tokens."""

from collections import deque
from collections.abc import Callable, Mapping
from math import ceil
from typing import Final

QUANTUM: Final = 2048.0
"""Tokens that a key may send each time its turn comes; what it does not use it keeps while it waits."""


class FairShare:
    """The keys that have requests in line. Over any time in which two keys wait without a break, the tokens
    they are served differ by no more than a quantum and the largest request of each."""

    def __init__(self) -> None:
        self._ring: deque[str] = deque()
        self._credit: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._ring)

    def join(self, key: str) -> None:
        """A key has its first request in line. Its turn is after the others'."""
        if not self._ring:
            self._credit[key] = QUANTUM
        elif key not in self._credit:
            self._credit[key] = 0.0
        self._ring.append(key)

    def leave(self, key: str) -> None:
        """A key's last request has left the line; what it saved is lost, what it owes too."""
        self._ring.remove(key)
        del self._credit[key]

    def charge(self, key: str, tokens: float) -> None:
        """A request of a key was sent to an instance."""
        if key in self._credit:
            self._credit[key] -= tokens

    def turn(self, cost: Callable[[str], float]) -> str:
        """The key whose first request goes next; `cost` tells the tokens of each key's first one.

        Asked again without anything served in between, the answer is the same. There must be a key.
        """
        ring, credit = self._ring, self._credit
        if len(ring) == 1:
            return ring[0]
        costs = {key: cost(key) for key in ring}
        if not self._affordable(costs):
            self._skip_rounds(costs)
        while costs[ring[0]] > credit[ring[0]]:
            ring.rotate(-1)
            credit[ring[0]] += QUANTUM
        return ring[0]

    def order(self) -> tuple[str, ...]:
        """The keys from the one whose turn it is."""
        return tuple(self._ring)

    def _affordable(self, costs: Mapping[str, float]) -> bool:
        return any(costs[key] <= self._credit[key] + QUANTUM for key in self._ring)

    def _skip_rounds(self, costs: Mapping[str, float]) -> None:
        """Rounds in which nobody could send are not walked through one by one."""
        rounds = min(ceil((costs[key] - self._credit[key]) / QUANTUM) for key in self._ring) - 1
        for key in self._ring:
            self._credit[key] += rounds * QUANTUM
