"""How an instance has answered lately: failures in a row, and how long its tokens took."""

from collections import deque
from enum import IntEnum
from typing import Final

from supervisord_cp.model.base import Incarnation
from supervisord_cp.model.router import Outcomes

MOST: Final = 64
"""Answers that are looked at."""
WINDOW_S: Final = 120.0
"""Older ones are not."""


class Measure(IntEnum):
    """What is measured, in seconds."""

    FIRST_TOKEN = 0
    """Of streams: from the dispatch to the first byte."""
    TOKEN = 1
    """Of streams: between two events, the mean of an answer."""
    WHOLE = 2
    """Of other answers: the time of the whole answer by its tokens."""


_FIRST_TOKEN: Final = Measure.FIRST_TOKEN


class Vitals:
    """Of one incarnation. What is noted costs the same however much has been noted before."""

    __slots__ = ("_samples", "answered", "failed", "failures", "first_token")

    def __init__(self) -> None:
        self.answered = 0
        self.failed = 0
        """In all, and never forgotten, like the times to first tokens by bucket (`Outcomes`)."""
        self.first_token: dict[int, int] = {}
        self.failures = 0
        """In a row."""
        self._samples: tuple[deque[tuple[float, float]], ...] = tuple(deque(maxlen=MOST) for _ in Measure)

    def note(self, measure: Measure, at: float, seconds: float) -> None:
        """Something took so long."""
        self._samples[measure].append((at, seconds))
        if measure is _FIRST_TOKEN:
            bucket = Outcomes.bucket_of(seconds)
            self.first_token[bucket] = self.first_token.get(bucket, 0) + 1

    def outcomes(self, incarnation: Incarnation) -> Outcomes:
        """All that was ever noted."""
        return Outcomes(
            incarnation=incarnation,
            answered=self.answered,
            failed=self.failed,
            first_token=dict(self.first_token),
        )

    def samples(self, measure: Measure, now: float) -> list[float]:
        """What was noted within the window."""
        oldest = now - WINDOW_S
        return [seconds for at, seconds in self._samples[measure] if at >= oldest]

    def latest(self, measure: Measure) -> float | None:
        """What was noted last."""
        samples = self._samples[measure]
        return samples[-1][1] if samples else None

    def forget(self) -> None:
        """Begin anew."""
        self.failures = 0
        for samples in self._samples:
            samples.clear()
