"""What the envelope remembers between two steps: bounded, and safe to lose."""

from typing import Final

from msgspec.structs import replace

from supervisord_cp.core.scaling.behavior import longest_period_s, longest_window_s
from supervisord_cp.model.scaling import (
    Behavior,
    Order,
    Recommendation,
    ScaleEvent,
    ScaleHistory,
    ScaleView,
)
from supervisord_cp.model.signal import SignalName
from supervisord_cp.policy.scaling import is_idle, pending_replicas

MOST_EVENTS: Final = 256
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
        idle_since_s=_idle_since(history, view),
        last_s=now,
    )


def untouched(history: ScaleHistory, view: ScaleView) -> ScaleHistory:
    """The history after a step that no measurement decided: the windows start anew after it."""
    return ScaleHistory(idle_since_s=_idle_since(history, view), last_s=view.now_s)


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


def ordered(history: ScaleHistory, view: ScaleView, wanted: int) -> ScaleHistory:
    """The history with what the replicas that are starting were ordered for.

    An increase is a new order. Replicas of which nobody remembers the order (a restart) count as ordered
    for the demand of now. Without any the order is done.
    """
    if wanted > view.current:
        return replace(history, order=_order(view, wanted))
    if pending_replicas(view) == 0:
        return replace(history, order=None)
    return history if history.order is not None else replace(history, order=_order(view, view.current))


def growth(order: Order, view: ScaleView) -> float | None:
    """Demand now to demand at the time of the order; None: unknown."""
    demand = view.signal(order.signal)
    if not order.signal or not demand.known:
        return None
    if order.demand <= 0:
        return None if demand.value > 0 else 1.0
    return demand.value / order.demand


def _order(view: ScaleView, replicas: int) -> Order:
    for name in _DEMAND:
        if (demand := view.signal(name)).known:
            return Order(replicas=replicas, at_s=view.now_s, demand=demand.value, signal=name)
    return Order(replicas=replicas, at_s=view.now_s)


def _idle_since(history: ScaleHistory, view: ScaleView) -> float | None:
    if not is_idle(view):
        return None
    return view.now_s if history.idle_since_s is None else history.idle_since_s
