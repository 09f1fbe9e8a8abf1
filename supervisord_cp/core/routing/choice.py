"""What routing policies have chosen, and from what.

What is kept of it by the thousand (`Decision`, `Choice`, `Candidate`) is out of the garbage collector's sight
(`gc=False`; no cycle leads through it): its lists tie what lies far apart in memory together, and to take an
old decision out of them costs more than to make a new one.
"""

from supervisord_cp.model.base import Value
from supervisord_cp.model.request import Candidate


class Choice(Value, frozen=True, kw_only=True, gc=False):
    """Where a request goes, and what it was chosen from."""

    candidate: Candidate
    candidates: tuple[Candidate, ...]
    """Those that the filters left."""
    scores: tuple[float, ...] = ()
    """Theirs; empty when nobody had to be asked."""


class Decision(Value, frozen=True, kw_only=True, gc=False):
    """One of them, as it was made; it is written out when somebody asks."""

    request: str
    at: float
    """Monotonic seconds."""
    choice: Choice
    considered: tuple[Candidate, ...]
    """Those with room, before any filter."""
    policies: tuple[str, ...]
    snapshot_version: int
