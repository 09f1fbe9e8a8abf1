"""Policies propose, the envelope disposes: one place where limits change a number, each one listed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from supervisord_cp.core.scaling import behavior as rules
from supervisord_cp.core.scaling import history as past
from supervisord_cp.model.assignment import Override
from supervisord_cp.model.reason import NO_REASON, Reason, ReasonCode, render
from supervisord_cp.model.scaling import (
    Behavior,
    Limit,
    ScaleDecision,
    ScaleHistory,
    ScaleLimits,
    ScaleProposal,
    ScaleView,
    SelectPolicy,
    ShrinkCheck,
)
from supervisord_cp.model.signal import SignalName
from supervisord_cp.policy.scaling import pending_replicas, whole_replicas

CANCEL_AFTER_S: Final = 10.0
"""Longer than clients wait before they try again."""
NO_LIMITS: Final = ScaleLimits()
NO_HISTORY: Final = ScaleHistory()


class _Course:
    """A number on its way from what was asked for to what is granted."""

    def __init__(self, replicas: int, reason: Reason = NO_REASON, *, held: bool = False) -> None:
        self.replicas = replicas
        self.asked = reason
        self.held = held
        self.limits: list[Limit] = []

    def to(self, replicas: int, code: ReasonCode, /, **params: str | float) -> None:
        """Change the number, and say why; nothing happens where it does not change."""
        if replicas != self.replicas:
            reason = Reason(code=code, params=dict(params))
            self.limits.append(Limit(reason=reason, before=self.replicas, after=replicas))
            self.replicas = replicas

    def at_least(self, replicas: int, code: ReasonCode, /, **params: str | float) -> None:
        self.to(max(self.replicas, replicas), code, **params)

    def at_most(self, replicas: int, code: ReasonCode, /, **params: str | float) -> None:
        self.to(min(self.replicas, replicas), code, **params)

    @property
    def reason(self) -> Reason:
        return self.limits[-1].reason if self.limits else self.asked


def decide(
    view: ScaleView,
    proposals: Sequence[ScaleProposal],
    limits: ScaleLimits = NO_LIMITS,
    history: ScaleHistory = NO_HISTORY,
) -> tuple[ScaleDecision, ScaleHistory]:
    """The number of replicas that a deployment gets, and the history for the next step.

    The largest valid proposal wins. Without a valid one the number stays; with one that is not valid it
    does not go down. With `limits.behavior` the number then passes windows, rates and checks. An
    operator's override takes the place of all that and of the bounds. The GPU budget binds everything.
    """
    proposals = tuple(_finite(proposal) for proposal in proposals)
    if limits.override is not None:
        course = _Course(limits.override.replicas, _override_reason(view, limits.override))
    elif limits.behavior is None:
        course = _given(view, proposals)
    else:
        history = past.continued(history, view, limits.behavior)
        course, history = _automatic(view, proposals, limits, limits.behavior, history)
    _budget(course, limits)
    if limits.override is None and limits.behavior is not None:
        history = past.changed(history, course.replicas - view.current, view.now_s)
    else:
        history = past.untouched(history, view)
    decision = ScaleDecision(
        deployment=view.deployment,
        wanted=course.replicas,
        current=view.current,
        proposals=proposals,
        limits=tuple(course.limits),
        reason=course.reason,
        held=course.held,
    )
    return decision, history


def _given(view: ScaleView, proposals: Sequence[ScaleProposal]) -> _Course:
    """A number that is not measured: it takes effect as it is, within the bounds."""
    best = _largest(proposals)
    if best is None:
        course = _held(view, proposals)
    else:
        course = _Course(whole_replicas(best.replicas or 0.0), best.reason)
    _bound(course, _bounds(view, proposals), best)
    return course


def _automatic(
    view: ScaleView,
    proposals: Sequence[ScaleProposal],
    limits: ScaleLimits,
    behavior: Behavior,
    history: ScaleHistory,
) -> tuple[_Course, ScaleHistory]:
    """A number that measurements ask for, as far as windows, rates and checks let it."""
    current, bounds = view.current, _bounds(view, proposals)
    course = _Course(current)
    _bound(course, bounds, None)
    if course.limits:  # outside of its bounds measurements are not asked
        return course, history
    best = _largest(proposals)
    if _nobody_waits(course, view, best, bounds, history):
        return course, past.recommended(history, 0, view.now_s)
    doubtful = any(proposal.replicas is None for proposal in proposals)
    if best is None or (doubtful and whole_replicas(best.replicas or 0.0) < current):
        course = _held(view, proposals)
        desired = current
    else:
        course = _Course(whole_replicas(best.replicas or 0.0), best.reason)
        _bound(course, bounds, best)
        desired = course.replicas
        _stabilize(course, view, behavior, history)
        _await_pending(course, view, history)
        if limits.shrink_check is not None:
            _check_shrinking(course, current, limits.shrink_check)
        _rate(course, view, behavior, history)
    _zero(course, view, bounds, limits, history)
    asked = max(desired, course.replicas) if current == 0 else desired
    history = past.woken(history, view, course.replicas)
    return course, past.recommended(history, asked, view.now_s)


def _held(view: ScaleView, proposals: Sequence[ScaleProposal]) -> _Course:
    """The present number, because what is not known never shrinks anything."""
    silent = (p.reason for p in proposals if p.replicas is None and p.reason != NO_REASON)
    why = next((_why(reason) for reason in silent), "no data")
    return _Course(view.current, Reason(code=ReasonCode.HOLD, params={"why": why}), held=True)


def _why(reason: Reason) -> str:
    given = reason.params.get("why")
    return str(given) if reason.code is ReasonCode.HOLD and given else render(reason)


def _largest(proposals: Sequence[ScaleProposal]) -> ScaleProposal | None:
    valid = [p for p in proposals if p.replicas is not None]
    return max(valid, key=lambda p: p.replicas or 0.0, default=None)


def _finite(proposal: ScaleProposal) -> ScaleProposal:
    if proposal.replicas is None or math.isfinite(proposal.replicas):
        return proposal
    error = f"it answers {proposal.replicas}"
    reason = Reason(code=ReasonCode.SCALER_FAILED, params={"policy": proposal.policy, "error": error})
    return replace(proposal, replicas=None, reason=reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bounds:
    """Minimum and maximum of now, and the policies that set them ("" for the configuration)."""

    low: int
    high: int
    low_by: str = ""
    high_by: str = ""


def _bounds(view: ScaleView, proposals: Sequence[ScaleProposal]) -> _Bounds:
    """Policies may set narrower bounds than the configuration, not wider ones; a maximum goes before a
    minimum."""
    low, high, low_by, high_by = view.bounds.min, view.bounds.max, "", ""
    for proposal in proposals:
        if proposal.at_most is not None and proposal.at_most < high:
            high, high_by = max(proposal.at_most, view.bounds.min), proposal.policy
    for proposal in proposals:
        if proposal.at_least is not None and proposal.at_least > low:
            low, low_by = min(proposal.at_least, high), proposal.policy
    return _Bounds(low=low, high=high, low_by=low_by, high_by=high_by)


def _bound(course: _Course, bounds: _Bounds, best: ScaleProposal | None) -> None:
    """`best`: the proposal that the number comes from; None: it is the present one."""
    number = f"{course.replicas:.6g}"
    asked = f"there were {number}" if best is None else f"{best.policy} asks for {number}"
    if bounds.low_by:
        course.at_least(bounds.low, ReasonCode.POLICY_MIN, policy=bounds.low_by, limit=bounds.low)
    course.at_least(bounds.low, ReasonCode.BOUND_MIN, limit=bounds.low, asked=asked)
    if bounds.high_by:
        course.at_most(bounds.high, ReasonCode.POLICY_MAX, policy=bounds.high_by, limit=bounds.high)
    course.at_most(bounds.high, ReasonCode.BOUND_MAX, limit=bounds.high, asked=asked)


def _stabilize(course: _Course, view: ScaleView, behavior: Behavior, history: ScaleHistory) -> None:
    stable = rules.stabilized(view.current, course.replicas, history.recommendations, behavior, view.now_s)
    if stable < course.replicas:
        window = rules.up_window_s(behavior)
        course.to(stable, ReasonCode.STABILIZED_UP, replicas=stable, seconds=window)
    else:
        window = rules.down_window_s(behavior)
        course.to(stable, ReasonCode.STABILIZED_DOWN, replicas=stable, seconds=window)


def _await_pending(course: _Course, view: ScaleView, history: ScaleHistory) -> None:
    """What is starting is capacity: no more is ordered than what arrives needs with it.

    Until new replicas are ready a queue grows, and a ratio may: neither is new demand. Where nobody has
    seen what a replica carries, nothing is held back.
    """
    starting, carried, demand = pending_replicas(view), history.carried, past.demand_of(view)
    if course.replicas <= view.current or starting == 0 or carried is None or demand is None:
        return
    name, value = demand
    if carried.signal != name or carried.per_replica <= 0:
        return
    needed = value / carried.per_replica
    enough = view.current
    if needed > view.current * (1.0 + view.tolerance.up):
        enough = whole_replicas(needed)
    course.at_most(
        enough, ReasonCode.PENDING, replicas=enough, starting=starting, demand=round(value, 1), signal=name
    )


def _check_shrinking(course: _Course, current: int, check: ShrinkCheck) -> None:
    """Fewer replicas only where they could carry what there is."""
    if course.replicas >= current:
        return
    if check.load.known and check.load.value <= 0:
        return
    if not check.load.known or not check.per_replica.known or check.per_replica.value <= 0:
        course.held = True
        course.to(current, ReasonCode.SHRINK_UNKNOWN)
        return
    enough = whole_replicas(check.load.value / (check.per_replica.value * check.fill))
    enough = min(current, enough)
    load = round(check.load.value, 3)
    course.at_least(enough, ReasonCode.SHRINK_UNSAFE, replicas=enough, load=load)


def _rate(course: _Course, view: ScaleView, behavior: Behavior, history: ScaleHistory) -> None:
    current, now = view.current, view.now_s
    if course.replicas > current:
        up = behavior.scale_up
        limit = rules.up_limit(current, history.events, up, now)
        if up.select_policy is SelectPolicy.DISABLED:
            course.to(current, ReasonCode.SCALING_DISABLED, direction="up")
        course.at_most(limit, ReasonCode.RATE_UP, replicas=limit)
    elif course.replicas < current:
        down = behavior.scale_down
        limit = rules.down_limit(current, history.events, down, now)
        if down.select_policy is SelectPolicy.DISABLED:
            course.to(current, ReasonCode.SCALING_DISABLED, direction="down")
        course.at_least(limit, ReasonCode.RATE_DOWN, replicas=limit)


def _zero(
    course: _Course,
    view: ScaleView,
    bounds: _Bounds,
    limits: ScaleLimits,
    history: ScaleHistory,
) -> None:
    """The last replica goes when nothing was asked for long enough; at zero a waiting request brings one."""
    if course.replicas > 0:
        return
    if view.current > 0:
        since = history.idle_since_s
        idle_s = 0.0 if since is None else view.now_s - since
        if since is None or idle_s < limits.idle_s:
            course.to(1, ReasonCode.IDLE_WAIT, idle=round(idle_s), seconds=round(limits.idle_s))
        return
    queued = view.signal(SignalName.QUEUED)
    if queued.known and queued.value > 0:
        course.to(min(1, bounds.high), ReasonCode.WAKE, queued=round(queued.value))


def _nobody_waits(
    course: _Course,
    view: ScaleView,
    best: ScaleProposal | None,
    bounds: _Bounds,
    history: ScaleHistory,
) -> bool:
    """Cancel a start that was ordered at zero for requests which have left, before it is ready.

    Not what the minimum or a scaler asks for. What a scaler cannot tell does not keep it: it was ordered
    for the requests alone, and the routers know that they are gone.
    """
    asked = 0 if best is None else whole_replicas(best.replicas or 0.0)
    idle_s = 0.0 if history.idle_since_s is None else view.now_s - history.idle_since_s
    if not history.woken or bounds.low > 0 or asked > 0 or idle_s < CANCEL_AFTER_S:
        return False
    course.to(0, ReasonCode.NOBODY_WAITS, seconds=round(idle_s))
    return True


def _budget(course: _Course, limits: ScaleLimits) -> None:
    """GPUs that there are for it; a replica that needs none is not limited by them."""
    each = limits.gpus_per_replica
    if each <= 0:
        return
    for code, gpus in (
        (ReasonCode.GPU_SHARE, limits.gpu_share),
        (ReasonCode.GPU_BUDGET, limits.gpus_left),
    ):
        if gpus is not None:
            most = max(0, gpus) // each
            course.at_most(most, code, replicas=most, limit=gpus)


def _override_reason(view: ScaleView, override: Override) -> Reason:
    if override.learned:
        return Reason(
            code=ReasonCode.LEARNED,
            params={
                "replicas": override.replicas,
                "deployment": view.deployment,
                "configured": view.configured,
            },
        )
    return Reason(code=ReasonCode.OVERRIDE, params={"replicas": override.replicas})
