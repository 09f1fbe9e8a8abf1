"""How far a start has come, how long it will take, and whether it still moves. Pure."""

from collections.abc import Mapping
from statistics import median
from typing import Final

from supervisord_cp.model.base import Value
from supervisord_cp.model.instance import Phase

PHASES: Final = (Phase.SPAWNED, Phase.LOADING, Phase.COMPILING, Phase.WARMING)
"""What a start goes through until it is ready; any of them may be left out."""
KEPT: Final = 9
"""Starts that are remembered: the first of a cold cache weighs little among them."""
LOOK_S: Final = 5.0
"""The longest time between two looks of which anything is known."""
QUIET_S: Final = 30.0
"""Time without any movement that is worth a word."""
FROZEN_S: Final = 120.0
"""The shortest time without any movement after which a start is given up before its deadline."""
TIMES_USUAL: Final = 3.0
MOVING_BYTES: Final = 64 * 1024
MOVING_CPU: Final = 0.05
"""Share of one core that is more than waiting costs."""

Seconds = Mapping[Phase, float]


class StartHistory(Value, frozen=True, kw_only=True):
    """What starts of one deployment took, the newest last."""

    model: str = ""
    starts: tuple[dict[Phase, float], ...] = ()
    """Seconds in each phase, of one start each."""


class Work(Value, frozen=True, kw_only=True):
    """What the processes of an engine have done so far, all together."""

    io_bytes: int = 0
    """Read and written: files, pipes, page faults."""
    cpu_s: float = 0.0


class Start(Value, frozen=True, kw_only=True):
    """A start under way. Seconds."""

    phase: Phase = Phase.SPAWNED
    seconds: dict[Phase, float] = {}
    """Time in each phase until now."""
    still_s: float = 0.0
    """Time seen without any movement, in this phase."""


class Movement(Value, frozen=True, kw_only=True):
    """What happened between two looks."""

    io: bool
    """It reads or writes: of a finite model there is an end to that."""
    other: bool
    """It computes or says something, which a hung start can do for ever."""


def movement(before: Work, after: Work, *, logged: bool, elapsed_s: float) -> Movement:
    """What an engine has done in `elapsed_s`. A process that ended takes its figures with it: they fall."""
    cpu_s = after.cpu_s - before.cpu_s
    return Movement(
        io=after.io_bytes - before.io_bytes >= MOVING_BYTES,
        other=logged or cpu_s < 0 or cpu_s > MOVING_CPU * max(elapsed_s, 0.0),
    )


def looked(start: Start, phase: Phase, elapsed_s: float, *, moved: bool) -> Start:
    """The start after another look, `elapsed_s` after the one before."""
    elapsed_s = max(elapsed_s, 0.0)
    seconds = {**start.seconds, start.phase: start.seconds.get(start.phase, 0.0) + elapsed_s}
    still_s = 0.0 if moved or phase is not start.phase else start.still_s + min(elapsed_s, LOOK_S)
    return Start(phase=phase, seconds=seconds, still_s=still_s)


def remembered(history: StartHistory, model: str, seconds: Seconds) -> StartHistory:
    """The history after a start that became ready. Another model begins anew."""
    known = history.starts if history.model == model else ()
    latest = {phase: round(seconds.get(phase, 0.0), 1) for phase in PHASES}
    return StartHistory(model=model, starts=(*known, latest)[-KEPT:])


def usual_s(history: StartHistory, phase: Phase) -> float | None:
    """The median of what a phase took; None: not known."""
    return median(start.get(phase, 0.0) for start in history.starts) if history.starts else None


def eta_s(history: StartHistory, start: Start) -> float | None:
    """Seconds until it is ready, if this start is as those before; None: not known."""
    if not history.starts or start.phase not in PHASES:
        return None
    at = PHASES.index(start.phase)
    here, *later = (usual_s(history, phase) or 0.0 for phase in PHASES[at:])
    return max(0.0, here - start.seconds.get(start.phase, 0.0)) + sum(later)


def is_frozen(history: StartHistory, start: Start, start_timeout_s: float) -> bool:
    """Whether it has not moved for longer than the phase is known to take; without a history that is left
    to the deadline."""
    usual = usual_s(history, start.phase)
    if usual is None:
        return False
    return start.still_s >= min(start_timeout_s, max(FROZEN_S, TIMES_USUAL * usual))
