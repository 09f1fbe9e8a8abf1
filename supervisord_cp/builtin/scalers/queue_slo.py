"""queue_slo: as many replicas as clear the queue within the time to first token that is asked for."""

from typing import Annotated

from msgspec import Meta

from supervisord_cp.policy import (
    PolicyKind,
    Reason,
    ReasonCode,
    ScaleProposal,
    ScaleView,
    Signal,
    SignalName,
    Value,
    cannot_tell,
    measured,
    pending_replicas,
    policy,
    whole_replicas,
    why_unknown,
)

Positive = Annotated[float, Meta(gt=0)]


class QueueSloParams(Value, frozen=True, kw_only=True):
    """Parameters of `queue_slo`."""

    ttft_ms: Positive | None = None
    """Time to first token; default: the deployment's `slo`."""
    utilization_percent: Annotated[float, Meta(gt=0, le=100)] = 80.0
    """How much of a replica's prefill capacity arrivals may use when nothing waits."""
    prefill_tokens_per_s: Positive | None = None
    """Prompt tokens per second that one replica takes in; default: as measured."""


@policy(PolicyKind.SCALER, "queue_slo", params=QueueSloParams)
def queue_slo(view: ScaleView, params: QueueSloParams) -> ScaleProposal:
    """Clears the queue within the time to first token, from tokens and measured throughput."""
    ttft_s = view.slo_ttft_s if params.ttft_ms is None else params.ttft_ms / 1000.0
    if ttft_s is None:
        return cannot_tell("queue_slo", Reason(code=ReasonCode.NO_SLO))
    queued = view.signal(SignalName.QUEUED_TOKENS)
    arriving = view.signal(SignalName.PROMPT_TOKENS_PER_S)
    capacity = _capacity(view, params)
    for name, signal in (
        (SignalName.QUEUED_TOKENS, queued),
        (SignalName.PROMPT_TOKENS_PER_S, arriving),
        (SignalName.PREFILL_CAPACITY, capacity),
    ):
        if not signal.known:
            return cannot_tell("queue_slo", why_unknown(name, signal))
    steady = max(arriving.value / (capacity.value * params.utilization_percent / 100.0), _to_serve(view))
    clearing = (queued.value + arriving.value * ttft_s) / (capacity.value * ttft_s)
    clears_in = _clears_in(view, queued.value, arriving.value, capacity.value)
    needed, code = max(steady, clearing), ReasonCode.QUEUE
    useless = clears_in is not None and view.start_s is not None and clears_in <= view.start_s
    if useless and whole_replicas(needed) > max(view.current, whole_replicas(steady)):
        needed, code = max(steady, float(view.current)), ReasonCode.QUEUE_CLEARS
    if view.current > 0 and view.tolerance.covers(needed / view.current):
        needed = float(view.current)
    reason = Reason(
        code=code,
        params={
            "queued": round(queued.value),
            "arriving": round(arriving.value, 1),
            "capacity": round(capacity.value, 1),
            "seconds": round(clears_in or 0.0, 1),
        },
    )
    return ScaleProposal(policy="queue_slo", replicas=float(whole_replicas(needed)), reason=reason)


def _capacity(view: ScaleView, params: QueueSloParams) -> Signal:
    """Prompt tokens per second of one replica; one that takes in none has not been measured."""
    if params.prefill_tokens_per_s is not None:
        return measured(params.prefill_tokens_per_s)
    signal = view.signal(SignalName.PREFILL_CAPACITY)
    if signal.known and signal.value <= 0:
        return Signal(source=signal.source, detail="nothing was prefilled yet")
    return signal


def _to_serve(view: ScaleView) -> float:
    """Replicas whose `max_concurrency` holds every request that waits or runs; 0 where it is unknown."""
    requests = view.signal(SignalName.CONCURRENCY)
    if view.max_concurrency <= 0 or not requests.known:
        return 0.0
    return requests.value / view.max_concurrency


def _clears_in(view: ScaleView, queued: float, arriving: float, capacity: float) -> float | None:
    """Seconds until the replicas that are ordered have cleared the queue; None: they never will."""
    spare = (view.ready + pending_replicas(view)) * capacity - arriving
    return queued / spare if spare > 0 else None
