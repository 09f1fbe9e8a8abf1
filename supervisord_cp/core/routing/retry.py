"""Whether a request that an instance did not answer is sent again: before the first byte only."""

from enum import StrEnum
from typing import Final

RATIO: Final = 0.2
FLOOR_PER_S: Final = 4_000.0
MOST_SAVED: Final = 40_000.0
MAX_LOSSES: Final = 2
MAX_REFUSALS: Final = 8


class Miss(StrEnum):
    """How a request came back without an answer."""

    UNREACHABLE = "unreachable"
    """No connection could be made: the engine has not seen the request."""
    STALE = "stale"
    """A kept connection was closed under it: the engine has all but surely not seen the request."""
    LOST = "lost"
    """The connection broke after the request was sent and before an answer."""
    FULL = "full"
    """The engine answered 503: back-pressure, not illness."""


class RetryBudget:
    """Work that engines may do twice, in tokens: a share of what has come, and some each second. One for
    all deployments, and for whatever is like a retry."""

    def __init__(self, now: float) -> None:
        self._tokens = FLOOR_PER_S
        self._filled_at = now

    def earn(self, work: int) -> None:
        """A request of so many tokens has arrived."""
        if self._tokens < MOST_SAVED:
            self._tokens += RATIO * work

    def spend(self, work: int, now: float) -> bool:
        """Send a request of so many tokens again, if anything is left. The last one may overdraw."""
        refill = (now - self._filled_at) * FLOOR_PER_S
        self._filled_at = now
        self._tokens = min(MOST_SAVED, self._tokens + max(0.0, refill))
        if self._tokens <= 0.0:
            return False
        self._tokens -= min(float(work), MOST_SAVED)
        return True


def may_retry(
    miss: Miss, *, losses: int, refusals: int, died: bool, work: int, budget: RetryBudget, now: float
) -> bool:
    """Whether to send a request of `work` tokens again. `losses` and `refusals` count this miss too.

    What the engine has not seen is free. A refusal costs it nothing either, and how often an engine is
    asked again is bounded by its ceiling. When an incarnation has just died, all that wait on it must be
    able to move; a loss on one that goes on living takes from the budget. A request under which two
    connections broke is given up: it may be what breaks them.
    """
    match miss:
        case Miss.UNREACHABLE | Miss.STALE:
            return True
        case Miss.FULL:
            return refusals < MAX_REFUSALS
        case Miss.LOST:
            return losses < MAX_LOSSES and (died or budget.spend(work, now))
