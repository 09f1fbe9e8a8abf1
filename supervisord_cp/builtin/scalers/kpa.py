"""kpa: the pod autoscaler of Knative, on concurrency or on requests per second."""

import math
from enum import StrEnum
from typing import Annotated, Final, Literal

from msgspec import Meta
from msgspec.structs import replace

from supervisord_cp.builtin.scalers.kpa_window import Window, age, average, bridged, put
from supervisord_cp.policy import (
    PolicyKind,
    Reason,
    ReasonCode,
    ScaleProposal,
    ScaleView,
    SignalName,
    SignalState,
    Value,
    cannot_tell,
    policy,
    why_unknown,
)

BUCKET_S: Final = 1.0
MOST_REPLICAS: Final = 2**31 - 1
DEFAULT_CONCURRENCY: Final = 100.0
DEFAULT_RPS: Final = 200.0
ACTIVATION_BUFFER_S: Final = 30.0

Percent = Annotated[float, Meta(gt=0, le=100)]


class KpaParams(Value, frozen=True, kw_only=True):
    """Parameters of `kpa`, with Knative's defaults."""

    metric: Literal["concurrency", "rps"] = "concurrency"
    target: Annotated[float, Meta(gt=0)] | None = None
    """What one replica takes; default: the deployment's `max_concurrency`, else 100; 200 for rps."""
    target_utilization_percent: Percent = 70.0
    """How much of it is used."""
    stable_window_s: Annotated[float, Meta(ge=6, le=3600)] = 60.0
    panic_window_percent: Annotated[float, Meta(ge=1, le=100)] = 10.0
    """Of the stable window."""
    panic_threshold_percent: Annotated[float, Meta(ge=110, le=1000)] = 200.0
    """Of what the ready replicas take."""
    max_scale_up_rate: Annotated[float, Meta(gt=1)] = 1000.0
    max_scale_down_rate: Annotated[float, Meta(gt=1)] = 2.0
    activation_scale: Annotated[int, Meta(ge=1)] = 1
    """Replicas at least while there is anything to do."""
    scale_down_delay_s: Annotated[float, Meta(ge=0, le=3600)] = 0.0
    scale_to_zero: bool = True
    scale_to_zero_grace_s: Annotated[float, Meta(ge=0)] = 30.0
    """How long after it became inactive the last replica goes."""
    progress_deadline_s: Annotated[float, Meta(gt=0)] = 600.0
    """How long a first replica may take to start before it is given up without traffic."""

    @property
    def panic_window_s(self) -> float:
        return self.stable_window_s * self.panic_window_percent / 100.0


class Activity(StrEnum):
    """Whether a deployment serves, as far as going to zero is concerned."""

    ACTIVATING = "activating"
    ACTIVE = "active"
    INACTIVE = "inactive"


class KpaMemory(Value, frozen=True, kw_only=True):
    """What `kpa` remembers. Times are monotonic seconds."""

    last_s: float | None = None
    """When it was asked last; None: it is new."""
    window: Window = Window()
    panic_since_s: float | None = None
    panic_most: int = 0
    """The most that was asked for in this panic."""
    delayed: tuple[tuple[float, int], ...] = ()
    """(time, number) of the scale-down delay, numbers descending."""
    activity: Activity = Activity.INACTIVE
    activity_since_s: float = 0.0


@policy(PolicyKind.SCALER, "kpa", params=KpaParams, memory=KpaMemory)
def kpa(view: ScaleView, params: KpaParams, memory: KpaMemory) -> tuple[ScaleProposal, KpaMemory]:
    """Stable and panic windows of Knative, on concurrency or requests per second."""
    name = SignalName.CONCURRENCY if params.metric == "concurrency" else SignalName.REQUESTS_PER_S
    signal = view.signal(name)
    if not signal.known:
        return cannot_tell("kpa", why_unknown(name, signal)), memory
    now = view.now_s
    size = math.ceil(params.stable_window_s / BUCKET_S)
    bucket = math.floor(now / BUCKET_S)
    sampled = math.floor((now - signal.age_s) / BUCKET_S)
    if _is_new(memory, now, sampled, size):
        memory = _new(view)
    window = put(bridged(memory.window, sampled, signal.value, size), sampled, signal.value, size)
    memory = replace(memory, window=window, last_s=now)
    stable = average(window, bucket, size)
    panic = average(window, bucket, math.ceil(params.panic_window_s / BUCKET_S))
    if stable is None:
        late = replace(signal, state=SignalState.STALE)
        return cannot_tell("kpa", why_unknown(name, late)), memory
    target = target_of(view, params)
    desired, memory = scale(stable, panic or 0.0, target, view.ready, now, params, memory)
    replicas, memory = to_zero(desired, view, params, memory)
    panicking = memory.panic_since_s is not None
    window_s = params.panic_window_s if panicking else params.stable_window_s
    reason = Reason(
        code=ReasonCode.PANIC_WINDOW if panicking else ReasonCode.STABLE_WINDOW,
        params={
            "signal": str(name),
            "value": round(panic or 0.0 if panicking else stable, 3),
            "window": round(min(window_s, BUCKET_S * age(window, bucket, size))),
            "target": round(target, 3),
        },
    )
    if panicking and replicas > _rounded_up(max(stable, panic or 0.0) / target):
        left = (memory.panic_since_s or now) + params.stable_window_s - now
        held = {"replicas": replicas, "left": max(0, round(left))}
        reason = replace(reason, code=ReasonCode.PANIC_HOLDS, params=reason.params | held)
    if desired == 0 and replicas > 0 and params.scale_to_zero and view.bounds.min == 0:
        reason = Reason(code=ReasonCode.ZERO_GRACE, params={"left": round(_zero_in(now, params, memory))})
    return ScaleProposal(policy="kpa", replicas=float(replicas), reason=reason), memory


def target_of(view: ScaleView, params: KpaParams) -> float:
    """What one replica shall take: its capacity times the utilization."""
    if params.target is not None:
        full = params.target
    elif params.metric == "rps":
        full = DEFAULT_RPS
    else:
        full = float(view.max_concurrency) or DEFAULT_CONCURRENCY
    return full * params.target_utilization_percent / 100.0


def scale(
    stable: float,
    panic: float,
    target: float,
    ready: int,
    now: float,
    params: KpaParams,
    memory: KpaMemory,
) -> tuple[int, KpaMemory]:
    """Replicas for the averages of both windows, before anything about zero."""
    serving = max(1, ready)
    most = math.ceil(params.max_scale_up_rate * serving)
    fewest = math.floor(serving / params.max_scale_down_rate)
    raw_stable, raw_panic = _rounded_up(stable / target), _rounded_up(panic / target)
    for_stable = _activated(raw_stable, min(max(raw_stable, fewest), most), params)
    for_panic = _activated(raw_panic, min(max(raw_panic, fewest), most), params)
    over = raw_panic / serving >= params.panic_threshold_percent / 100.0
    memory = _panicked(over, now, params, memory)
    desired = for_stable
    if memory.panic_since_s is not None:
        desired = max(for_stable, for_panic, memory.panic_most)
        memory = replace(memory, panic_most=desired)
    if params.scale_down_delay_s > 0:
        memory = replace(memory, delayed=_delayed(memory.delayed, now, desired, params))
        desired = memory.delayed[0][1]
    return desired, memory


def _rounded_up(replicas: float) -> int:
    return math.ceil(max(0.0, min(replicas, float(MOST_REPLICAS))))


def _activated(raw: int, clamped: int, params: KpaParams) -> int:
    return max(clamped, params.activation_scale) if params.activation_scale > 1 and raw > 0 else clamped


def _panicked(over: bool, now: float, params: KpaParams, memory: KpaMemory) -> KpaMemory:
    """Over the threshold begins a panic or prolongs it; one stable window later it is over."""
    if over:
        return replace(memory, panic_since_s=now)
    since = memory.panic_since_s
    if since is not None and since + params.stable_window_s < now:
        return replace(memory, panic_since_s=None, panic_most=0)
    return memory


def _delayed(
    entries: tuple[tuple[float, int], ...], now: float, desired: int, params: KpaParams
) -> tuple[tuple[float, int], ...]:
    """The maxima of the delay window; an entry exactly as old as the delay is gone."""
    kept = [(at, n) for at, n in entries if n > desired and now - at < params.scale_down_delay_s]
    return (*kept, (now, desired))


def to_zero(desired: int, view: ScaleView, params: KpaParams, memory: KpaMemory) -> tuple[int, KpaMemory]:
    """What becomes of a wish for zero: a deployment first turns inactive, then goes after a grace."""
    now = view.now_s
    activity, since = memory.activity, memory.activity_since_s
    if desired > 0:
        following = Activity.ACTIVE if view.ready > 0 else Activity.ACTIVATING
        return desired, _turned(memory, following, now)
    if not params.scale_to_zero:
        return 1, memory
    if view.current == 0:
        return 0, _turned(memory, Activity.INACTIVE, now)
    if activity is Activity.ACTIVATING and view.ready > 0:
        memory = _turned(memory, Activity.ACTIVE, now)
        activity, since = memory.activity, memory.activity_since_s
    match activity:
        case Activity.ACTIVATING:
            given_up = now - since >= params.progress_deadline_s + ACTIVATION_BUFFER_S
            return (0 if given_up else view.current), memory
        case Activity.ACTIVE:
            if now - since < params.stable_window_s:
                return 1, memory
            return view.current, _turned(memory, Activity.INACTIVE, now)
        case Activity.INACTIVE:
            gone = now - since >= params.scale_to_zero_grace_s
            return (0 if gone else view.current), memory


def _zero_in(now: float, params: KpaParams, memory: KpaMemory) -> float:
    """Seconds until zero is proposed when nothing comes any more."""
    lasts = {
        Activity.ACTIVATING: params.progress_deadline_s + ACTIVATION_BUFFER_S,
        Activity.ACTIVE: params.stable_window_s + params.scale_to_zero_grace_s,
        Activity.INACTIVE: params.scale_to_zero_grace_s,
    }
    return max(0.0, memory.activity_since_s + lasts[memory.activity] - now)


def _turned(memory: KpaMemory, activity: Activity, now: float) -> KpaMemory:
    if memory.activity is activity:
        return memory
    return replace(memory, activity=activity, activity_since_s=now)


def _is_new(memory: KpaMemory, now: float, sampled: int, size: int) -> bool:
    """Nothing is known of the last window: at the start, after a long silence, or on another clock."""
    if memory.last_s is None or now < memory.last_s or not memory.window.buckets:
        return True
    return sampled - memory.window.buckets[-1][0] >= size


def _new(view: ScaleView) -> KpaMemory:
    """A new one that finds replicas begins in panic with their number, so that a restart does not shrink."""
    panic = view.ready > 1
    if view.ready:
        activity = Activity.ACTIVE
    else:
        activity = Activity.ACTIVATING if view.current else Activity.INACTIVE
    return KpaMemory(
        panic_since_s=view.now_s if panic else None,
        panic_most=view.ready if panic else 0,
        activity=activity,
        activity_since_s=view.now_s,
    )
