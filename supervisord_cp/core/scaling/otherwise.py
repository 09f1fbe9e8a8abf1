"""What would have to change for another number: the decision, made again with one thing lifted.

Everything is worked out from the record of the decision alone, with the code that made it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from msgspec.structs import replace

from supervisord_cp.core.scaling import behavior as rules
from supervisord_cp.core.scaling import history as past
from supervisord_cp.core.scaling.envelope import decide
from supervisord_cp.core.scaling.step import answers
from supervisord_cp.errors import UsageError
from supervisord_cp.model.explanation import Otherwise
from supervisord_cp.model.reason import NO_REASON, Reason, ReasonCode
from supervisord_cp.model.scaling import (
    Behavior,
    DirectionRules,
    Limit,
    Recommendation,
    ScaleDecision,
    ScaleEvent,
    ScaleHistory,
    ScaleLimits,
    ScaleProposal,
    ScaleRecord,
    ScaleView,
    SelectPolicy,
)
from supervisord_cp.model.signal import STALE_AFTER_S, ReplicaView, Signal, SignalState
from supervisord_cp.policy.declare import PolicySpec

_NO_MAX: Final = 1_000_000
_LESS: Final = 1.0 - 1e-9


def otherwise(record: ScaleRecord, known: Mapping[str, PolicySpec]) -> tuple[Otherwise, ...]:
    """For each thing that held the number: what lifts it, and the number that there would be then.

    `known` are the scalers by name; one that is not there is taken at its word of then.
    """
    found: list[Otherwise] = []
    if record.limits.override is not None:
        found.append(_without_override(record))
    for limit in record.decision.limits:
        lift = _LIFTS.get(limit.reason.code)
        if lift is not None:
            found += (replace(one, lifts=limit.reason) for one in lift(record, limit))
    if record.decision.held:
        found += _with_data(record, known)
    return tuple(found)


def _again(
    record: ScaleRecord,
    *,
    view: ScaleView | None = None,
    proposals: Sequence[ScaleProposal] | None = None,
    limits: ScaleLimits | None = None,
    history: ScaleHistory | None = None,
) -> ScaleDecision:
    """The decision with something else in place of what it was made from."""
    decision, _ = decide(
        view or record.view,
        record.decision.proposals if proposals is None else proposals,
        limits or record.limits,
        history or record.history,
    )
    return decision


def _then(change: Reason, decision: ScaleDecision, in_s: float | None = None) -> Otherwise:
    return Otherwise(change=change, wanted=decision.wanted, because=decision.reason, in_s=in_s)


def _without_override(record: ScaleRecord) -> Otherwise:
    change = Reason(code=ReasonCode.WITHOUT_OVERRIDE, params={"deployment": record.view.deployment})
    return _then(change, _again(record, limits=replace(record.limits, override=None)))


# bounds and GPUs


def _without_min(record: ScaleRecord, limit: Limit) -> Iterator[Otherwise]:
    view = record.view
    decision = _again(record, view=replace(view, bounds=replace(view.bounds, min=0)))
    yield _then(Reason(code=ReasonCode.WITHOUT_MIN, params=limit.reason.params), decision)


def _without_max(record: ScaleRecord, limit: Limit) -> Iterator[Otherwise]:
    view = record.view
    decision = _again(record, view=replace(view, bounds=replace(view.bounds, max=_NO_MAX)))
    yield _then(Reason(code=ReasonCode.WITHOUT_MAX, params=limit.reason.params), decision)


def _without_policy_bound(record: ScaleRecord, limit: Limit) -> Iterator[Otherwise]:
    by = limit.reason.params.get("policy")
    free = [
        replace(p, at_least=None, at_most=None) if p.policy == by else p for p in record.decision.proposals
    ]
    change = Reason(code=ReasonCode.WITHOUT_POLICY_BOUND, params=limit.reason.params)
    yield _then(change, _again(record, proposals=free))


def _without_budget(record: ScaleRecord, limit: Limit) -> Iterator[Otherwise]:
    change = Reason(code=ReasonCode.WITHOUT_GPU_BUDGET)
    yield _then(change, _again(record, limits=replace(record.limits, gpus_left=None)))


def _without_share(record: ScaleRecord, limit: Limit) -> Iterator[Otherwise]:
    change = Reason(code=ReasonCode.WITHOUT_GPU_SHARE, params=limit.reason.params)
    yield _then(change, _again(record, limits=replace(record.limits, gpu_share=None)))


# windows and rates


def _after_window(record: ScaleRecord, limit: Limit) -> Iterator[Otherwise]:
    """When the last recommendation that holds the number leaves the window, if the same is asked for."""
    behavior, now = _behavior(record), record.view.now_s
    history = past.continued(record.history, record.view, behavior)
    up = limit.reason.code is ReasonCode.STABILIZED_UP
    window = rules.up_window_s(behavior) if up else rules.down_window_s(behavior)
    asked = limit.before
    holding = [r for r in history.recommendations if (r.replicas < asked if up else r.replicas > asked)]
    in_s = max((r.at_s + window - now for r in holding), default=window)
    then = now + in_s
    later = replace(
        history,
        recommendations=(Recommendation(replicas=asked, at_s=then),),
        idle_since_s=past.idle_since(history, record.view),
        last_s=then,
    )
    decision = _again(record, view=replace(record.view, now_s=then), history=later)
    yield _then(Reason(code=ReasonCode.AFTER_WINDOW, params={"seconds": round(in_s)}), decision, in_s)


def _after_rate(record: ScaleRecord, limit: Limit) -> Iterator[Otherwise]:
    """When the rate limits allow more, if as much is asked for then; and what there would be without them."""
    behavior, now = _behavior(record), record.view.now_s
    reached, asked = record.decision.wanted, limit.before
    events = record.history.events
    if change := reached - record.view.current:
        events = (*events, ScaleEvent(change=change, at_s=now))
    up = limit.reason.code is ReasonCode.RATE_UP
    direction = behavior.scale_up if up else behavior.scale_down
    step = rules.up_limit if up else rules.down_limit
    for in_s in rules.relief_s(events, direction, now, up=up):
        allowed = step(reached, events, direction, now + in_s)
        if allowed != reached:
            number = min(asked, allowed) if up else max(asked, allowed)
            reason = Reason(code=ReasonCode.AFTER_RATE, params={"seconds": round(in_s)})
            yield Otherwise(change=reason, wanted=number, because=record.decision.reason, in_s=in_s)
            break
    free = replace(direction, policies=rules.UNLIMITED)
    yield _then(Reason(code=ReasonCode.WITHOUT_RATE), _again(record, limits=_ruled(record, free, up=up)))


def _enabled(record: ScaleRecord, limit: Limit) -> Iterator[Otherwise]:
    behavior = _behavior(record)
    up = limit.reason.params.get("direction") == "up"
    direction = replace(behavior.scale_up if up else behavior.scale_down, select_policy=SelectPolicy.MAX)
    decision = _again(record, limits=_ruled(record, direction, up=up))
    yield _then(Reason(code=ReasonCode.IF_ENABLED, params=limit.reason.params), decision)


def _ruled(record: ScaleRecord, direction: DirectionRules, *, up: bool) -> ScaleLimits:
    behavior = _behavior(record)
    changed = replace(behavior, scale_up=direction) if up else replace(behavior, scale_down=direction)
    return replace(record.limits, behavior=changed)


def _behavior(record: ScaleRecord) -> Behavior:
    return record.limits.behavior or Behavior()


# checks


def _without_pending(record: ScaleRecord, limit: Limit) -> Iterator[Otherwise]:
    """Without knowing what a replica carries nobody relies on those that start."""
    change = Reason(code=ReasonCode.WITHOUT_PENDING, params=limit.reason.params)
    forgotten = past.continued(record.history, record.view, _behavior(record))
    decision, _ = decide(
        replace(record.view, replicas=(), starting=0, wanted=record.view.current, ready=record.view.current),
        record.decision.proposals,
        record.limits,
        replace(forgotten, carried=None),
    )
    yield _then(change, decision)


def _of_shrink_check(record: ScaleRecord, limit: Limit) -> Iterator[Otherwise]:
    check, fewer = record.limits.shrink_check, limit.after - 1
    if check is not None and limit.reason.code is ReasonCode.SHRINK_UNSAFE and fewer > 0:
        load = fewer * check.per_replica.value * check.fill
        less = replace(check, load=replace(check.load, value=load * _LESS))
        decision = _again(record, limits=replace(record.limits, shrink_check=less))
        yield _then(Reason(code=ReasonCode.IF_LOAD_BELOW, params={"value": round(load, 3)}), decision)
    change = Reason(code=ReasonCode.WITHOUT_SHRINK_CHECK)
    yield _then(change, _again(record, limits=replace(record.limits, shrink_check=None)))


def _idle(record: ScaleRecord, limit: Limit) -> Iterator[Otherwise]:
    since = past.idle_since(record.history, record.view)
    waited = 0.0 if since is None else record.view.now_s - since
    in_s = max(0.0, record.limits.idle_s - waited)
    change = Reason(code=ReasonCode.IF_IDLE, params={"seconds": round(in_s)})
    yield Otherwise(change=change, wanted=0, because=NO_REASON, in_s=in_s)


_LIFTS: Final[Mapping[ReasonCode, Callable[[ScaleRecord, Limit], Iterator[Otherwise]]]] = {
    ReasonCode.BOUND_MIN: _without_min,
    ReasonCode.BOUND_MAX: _without_max,
    ReasonCode.POLICY_MIN: _without_policy_bound,
    ReasonCode.POLICY_MAX: _without_policy_bound,
    ReasonCode.GPU_BUDGET: _without_budget,
    ReasonCode.GPU_SHARE: _without_share,
    ReasonCode.STABILIZED_UP: _after_window,
    ReasonCode.STABILIZED_DOWN: _after_window,
    ReasonCode.RATE_UP: _after_rate,
    ReasonCode.RATE_DOWN: _after_rate,
    ReasonCode.SCALING_DISABLED: _enabled,
    ReasonCode.PENDING: _without_pending,
    ReasonCode.SHRINK_UNSAFE: _of_shrink_check,
    ReasonCode.SHRINK_UNKNOWN: _of_shrink_check,
    ReasonCode.IDLE_WAIT: _idle,
}


# data


def _with_data(record: ScaleRecord, known: Mapping[str, PolicySpec]) -> Iterator[Otherwise]:
    """For each scaler that does not know: which data it lacks; where it is only old, what it would say."""
    fresh = replace(
        record.view,
        signals=_freshened(record.view.signals),
        queries=_freshened(record.view.queries),
        replicas=tuple(_fresh_replica(replica) for replica in record.view.replicas),
    )
    try:
        proposals = answers(replace(record, view=fresh), known)
    except UsageError:
        proposals = list(record.decision.proposals)
    decision = _again(record, view=fresh, proposals=proposals)
    silent = [p for p in record.decision.proposals if p.replicas is None]
    for proposal in silent or [ScaleProposal(policy="no scaler", replicas=None)]:
        name = str(proposal.reason.params.get("signal", "what it follows"))
        stale = _stale(record.view, name)
        if stale is None or decision.held:
            params: dict[str, str | int | float] = {"signal": name, "policy": proposal.policy}
            yield Otherwise(change=Reason(code=ReasonCode.IF_KNOWN, params=params))
        else:
            params = {
                "signal": name,
                "age": round(stale.age_s),
                "limit": round(STALE_AFTER_S),
                "value": f"{stale.value:.6g}",
            }
            yield _then(Reason(code=ReasonCode.IF_FRESH, params=params), decision)


def _stale(view: ScaleView, name: str) -> Signal | None:
    found = view.queries.get(name) or view.signal(name)
    return found if found.state is SignalState.STALE else None


def _freshened(signals: dict[str, Signal]) -> dict[str, Signal]:
    """Every old value as if it had just been measured."""
    return {
        name: replace(one, state=SignalState.VALUE, age_s=0.0) if one.state is SignalState.STALE else one
        for name, one in signals.items()
    }


def _fresh_replica(replica: ReplicaView) -> ReplicaView:
    return replace(replica, signals=_freshened(replica.signals), queries=_freshened(replica.queries))
