"""What a scaling policy is given and what it answers, and what most of them ask of a view.

A scaler is a function of a view that answers a `ScaleProposal`. What it declares it is given by keyword:
`params`, made from the configuration, and `memory`, what it answered last time (a new one at first).
A scaler with a memory answers a pair, the proposal and the memory to be kept; it keeps nothing itself,
so that its memory can be stored, looked at and played again.

A proposal is a wish: bounds, budget, windows and rates are the envelope's business, not the scaler's.
What a scaler cannot know it does not guess: `cannot_tell` holds the number where it is.
"""

import math
from typing import Final

from supervisord_cp.model.reason import Reason, ReasonCode
from supervisord_cp.model.scaling import ScaleProposal, ScaleView
from supervisord_cp.model.signal import ReplicaPhase, Signal, SignalName, SignalState

MOST_REPLICAS: Final = 2**31 - 1
LATE_AFTER_STARTS: Final = 2.0
"""A start that takes this many times as long as learned is late."""
LATE_S: Final = 600.0
"""The same while nothing was learned yet."""

_DEMAND: Final = (SignalName.QUEUED, SignalName.INFLIGHT, SignalName.REQUESTS_PER_S)
_NOISE: Final = 1e-9


def whole_replicas(replicas: float) -> int:
    """A number of replicas that is enough; what arithmetic leaves behind a point does not make one more."""
    return max(0, min(MOST_REPLICAS, math.ceil(min(replicas, float(MOST_REPLICAS)) - _NOISE)))


def cannot_tell(policy: str, reason: Reason) -> ScaleProposal:
    """The proposal of a scaler that does not know: nothing shrinks because of it."""
    return ScaleProposal(policy=policy, replicas=None, reason=reason)


def why_unknown(name: str, signal: Signal) -> Reason:
    """Why a signal without a value cannot be used."""
    if signal.state is SignalState.STALE:
        return Reason(code=ReasonCode.SIGNAL_STALE, params={"signal": name, "age": round(signal.age_s, 1)})
    if signal.state is SignalState.NAN:
        return Reason(code=ReasonCode.SIGNAL_NAN, params={"signal": name})
    detail = signal.detail or "not reported"
    return Reason(code=ReasonCode.SIGNAL_MISSING, params={"signal": name, "detail": detail})


def is_idle(view: ScaleView) -> bool:
    """Whether it is known that nothing is asked for.

    The routers must say so with fresh numbers; engines that still make tokens (for clients that do
    not come through a router) contradict them.
    """
    if not all((signal := view.signal(name)).known and signal.value <= 0 for name in _DEMAND):
        return False
    generated = view.signal(SignalName.GENERATION_TOKENS_PER_S)
    return not (generated.known and generated.value > 0)


def is_at_rest(view: ScaleView) -> bool:
    """Whether engines' counters say so too: a gauge that still shows work then is left over from before."""
    return is_idle(view) and view.signal(SignalName.GENERATION_TOKENS_PER_S).known


def pending_replicas(view: ScaleView) -> int:
    """Replicas that were ordered and will serve without a second order: starting and not late, or wanted
    and not begun."""
    known = view.starting
    if view.replicas:
        limit = LATE_S if view.start_s is None else LATE_AFTER_STARTS * view.start_s
        known = sum(r.phase is ReplicaPhase.STARTING and r.age_s <= limit for r in view.replicas)
    begun = view.ready + view.starting
    return known + max(0, view.current - begun)
