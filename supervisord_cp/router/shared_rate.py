"""A limit on requests per second that holds over all processes of a router."""

import math
from typing import Final

from supervisord_cp.router.board import BUCKETS, Board, tag_of

_TRIES: Final = 8
"""Places where a client's bucket may be."""


class SharedRate:
    """The generic cell rate algorithm (ITU-T I.371): of each client, when its bucket will be empty again.

    Two processes that count one client's requests in the same microsecond may count one for two.
    """

    def __init__(self, board: Board, per_second: float) -> None:
        self._tags, self._times = board.bucket_tags, board.bucket_times
        self._interval = 1.0 / per_second
        self._tolerance = (max(1.0, per_second) - 1.0) / per_second

    def take(self, client: str, now: float) -> int:
        """0 when the request may pass, else the seconds after which the next one may."""
        at = self._place(tag_of(client))
        due = max(self._times[at], now)
        early = due - now - self._tolerance
        if early > 1e-9:
            return max(1, math.ceil(early))
        self._times[at] = due + self._interval
        return 0

    def _place(self, tag: int) -> int:
        """The client's, or the one that was needed longest ago."""
        places = [(tag + n) % BUCKETS for n in range(_TRIES)]
        for at in places:
            if self._tags[at] == tag:
                return at
        oldest = min(places, key=lambda at: self._times[at])
        self._tags[oldest] = tag
        self._times[oldest] = 0.0
        return oldest
