"""What the envelope remembers between two steps: bounded, and safe to lose."""

import math
from typing import Final

from msgspec.structs import replace

from supervisord_cp.core.scaling.behavior import longest_period_s, longest_window_s
from supervisord_cp.model.scaling import (
    Behavior,
    Carried,
    Recommendation,
    ScaleEvent,
    ScaleHistory,
    ScaleView,
)
from supervisord_cp.model.signal import SignalName
from supervisord_cp.policy.scaling import is_idle, pending_replicas

MOST_EVENTS: Final = 256
CARRIED_OVER_S: Final = 60.0
"""Time over which what a replica carries is averaged."""
_DEMAND: Final = (SignalName.PROMPT_TOKENS_PER_S, SignalName.REQUESTS_PER_S)


def continued(history: ScaleHistory, view: ScaleView, behavior: Behavior) -> ScaleHistory:
    """The history at the time of a view, without what no longer matters.

    Where nothing is left of the window (a first step, a restart, a gap longer than the window, another
    clock) the window is filled with the present number: what was not watched did not ask for less.
    """
    now = view.now_s
    if history.last_s is not None and now < history.last_s:
        history = ScaleHistory()
    window, period = longest_window_s(behavior), longest_period_s(behavior)
    kept = tuple(r for r in history.recommendations if now - r.at_s < window)
    return replace(
        history,
        recommendations=kept or (Recommendation(replicas=view.current, at_s=now),),
        events=tuple(e for e in history.events if now - e.at_s < period),
        carried=_carried(history, view),
        taken_in=_taken_in(history, view),
        idle_since_s=idle_since(history, view),
        woken=history.woken and view.ready == 0 and view.current > 0,
        last_s=now,
    )


def untouched(history: ScaleHistory, view: ScaleView) -> ScaleHistory:
    """The history after a step that no measurement decided: the windows start anew after it."""
    return ScaleHistory(
        carried=history.carried,
        taken_in=_taken_in(history, view),
        idle_since_s=idle_since(history, view),
        last_s=view.now_s,
    )


def woken(history: ScaleHistory, view: ScaleView, replicas: int) -> ScaleHistory:
    """The history with whether replicas were ordered at zero for requests that wait."""
    if view.current > 0 or replicas == 0:
        return history
    queued = view.signal(SignalName.QUEUED)
    return replace(history, woken=queued.known and queued.value > 0)


def recommended(history: ScaleHistory, replicas: int, now: float) -> ScaleHistory:
    """The history with a recommendation. Only the latest time of each number matters to a window, so
    that one entry for each is enough."""
    others = tuple(r for r in history.recommendations if r.replicas != replicas)
    return replace(history, recommendations=(*others, Recommendation(replicas=replicas, at_s=now)))


def changed(history: ScaleHistory, change: int, now: float) -> ScaleHistory:
    """The history with a change of the number; 0 is none.

    When there are too many, the oldest two become one that counts as long as the later of them.
    """
    if change == 0:
        return history
    events = (*history.events, ScaleEvent(change=change, at_s=now))
    if len(events) > MOST_EVENTS:
        first, second, *rest = events
        events = (ScaleEvent(change=first.change + second.change, at_s=second.at_s), *rest)
    return replace(history, events=events)


def demand_of(view: ScaleView) -> tuple[str, float] | None:
    """What arrives, as (signal, value): tokens where they are counted, else requests."""
    for name in _DEMAND:
        if (demand := view.signal(name)).known:
            return name, demand.value
    return None


def _carried(history: ScaleHistory, view: ScaleView) -> Carried | None:
    """What a replica carries, averaged over the time in which nothing waited and none was starting."""
    demand = demand_of(view)
    if demand is None or view.ready == 0 or pending_replicas(view) > 0:
        return history.carried
    waiting = [view.signal(name) for name in (SignalName.QUEUED, SignalName.WAITING)]
    if not waiting[0].known or any(signal.known and signal.value > 0 for signal in waiting):
        return history.carried
    name, value = demand
    now = value / view.ready
    if history.carried is None or history.carried.signal != name or history.last_s is None:
        return Carried(signal=name, per_replica=now)
    before = history.carried.per_replica
    return Carried(signal=name, per_replica=before + _weight(history, view) * (now - before))


def _taken_in(history: ScaleHistory, view: ScaleView) -> float | None:
    """What a replica takes in, averaged over the time in which requests waited: more it could not."""
    taken = view.signal(SignalName.PREFILL_TOKENS_PER_S)
    waiting = [view.signal(name) for name in (SignalName.QUEUED, SignalName.WAITING)]
    busy = any(signal.known and signal.value > 0 for signal in waiting)
    if not busy or not taken.known or taken.value <= 0 or view.ready == 0:
        return history.taken_in
    now, before = taken.value / view.ready, history.taken_in
    if before is None or history.last_s is None:
        return now
    return before + _weight(history, view) * (now - before)


def _weight(history: ScaleHistory, view: ScaleView) -> float:
    """How much the newest value counts in an average over `CARRIED_OVER_S`."""
    if history.last_s is None:
        return 1.0
    return -math.expm1(min(0.0, history.last_s - view.now_s) / CARRIED_OVER_S)


def idle_since(history: ScaleHistory, view: ScaleView) -> float | None:
    """Since when nothing has been asked for, at the time of a view; None: something is."""
    if not is_idle(view):
        return None
    return view.now_s if history.idle_since_s is None else min(history.idle_since_s, view.now_s)
