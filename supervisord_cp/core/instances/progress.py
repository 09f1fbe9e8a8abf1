"""Liveness by progress: requests run, and nothing moves. Pure.

`/health` of a hung engine answers 200. What cannot be faked is work: of an engine that has requests in its
batch the counters of iterations or tokens move, however slowly. Only time that was looked at counts, so a
host that slept, an agent that was stopped or a page that could not be had are never taken for a hang.
"""

from typing import Final

from supervisord_cp.model.base import Value
from supervisord_cp.model.instance import EngineLoad

LOOK_S: Final = 5.0
"""The longest time between two looks of which anything is known."""
PATIENCE: Final = 2.0
"""An engine that stood still and went on by itself may stand still so many times as long."""
MOST_PATIENCE: Final = 5.0
"""Times the threshold: no history makes a hang last for ever."""
FAILURES: Final = 10
"""Health checks that must have failed in a row, besides the time."""

Counters = tuple[float | None, float | None, float | None]


class Progress(Value, frozen=True, kw_only=True):
    """What is known of an engine's work. Seconds."""

    busy: bool = False
    """Whether requests were in the batch at the last look."""
    counters: Counters = (None, None, None)
    still_s: float = 0.0
    """Time seen in which requests ran and no counter moved."""
    longest_s: float = 0.0
    """The longest such time that ended by itself."""


NOTHING_SEEN: Final = Progress()


def progressed(before: Progress, load: EngineLoad, elapsed_s: float) -> Progress:
    """After another look at an engine's figures, `elapsed_s` after the one before."""
    counters = (load.iterations_total, load.prompt_tokens_total, load.generation_tokens_total)
    # What is not known is no evidence: without any counter nothing can be seen to stand still.
    known = any(counter is not None for counter in counters)
    busy = known and bool(load.running) and not load.asleep
    if busy and before.busy and counters == before.counters:
        still_s = before.still_s + min(max(elapsed_s, 0.0), LOOK_S)
        return Progress(busy=True, counters=counters, still_s=still_s, longest_s=before.longest_s)
    longest_s = max(before.longest_s, before.still_s if busy else 0.0)
    return Progress(busy=busy, counters=counters, longest_s=longest_s)


def all_progressed(before: tuple[Progress, ...], load: EngineLoad, elapsed_s: float) -> tuple[Progress, ...]:
    """The same of an engine, or with data parallelism of each of its ranks: one that hangs does not show in
    the sums while the others work."""
    parts = load.ranks or (load,)
    if len(before) != len(parts):
        before = (NOTHING_SEEN,) * len(parts)
    return tuple(progressed(one, part, elapsed_s) for one, part in zip(before, parts, strict=True))


def limit_s(progress: Progress, stall_s: float) -> float:
    """How long this engine may stand still: `stall_s`, and longer where it has shown to be slow."""
    return min(max(stall_s, PATIENCE * progress.longest_s), MOST_PATIENCE * stall_s)


def is_stalled(progress: Progress, stall_s: float) -> bool:
    """Whether it hangs. A `stall_s` of 0 is never."""
    return stall_s > 0 and progress.still_s >= limit_s(progress, stall_s)


class Silence(Value, frozen=True, kw_only=True):
    """Health checks that failed in a row."""

    failures: int = 0
    seconds: float = 0.0
    """Time seen in which they did."""


ANSWERS: Final = Silence()


def heard(before: Silence, *, healthy: bool, elapsed_s: float) -> Silence:
    """After another health check of an engine that has served, `elapsed_s` after the one before."""
    if healthy:
        return ANSWERS
    seconds = before.seconds + min(max(elapsed_s, 0.0), 2 * LOOK_S) if before.failures else 0.0
    return Silence(failures=before.failures + 1, seconds=seconds)


def is_dead(silence: Silence, stall_s: float) -> bool:
    """Whether it can be given up: nothing but failed health checks for so long."""
    return stall_s > 0 and silence.failures >= FAILURES and silence.seconds >= stall_s
