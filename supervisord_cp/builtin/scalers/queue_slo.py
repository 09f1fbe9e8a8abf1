"""queue_slo: as many replicas as clear the queue within the time to first token that is asked for."""

from dataclasses import dataclass
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
    is_idle,
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """What is to be done, and what one replica does."""

    queued: float
    """Prompt tokens."""
    arriving: float
    """Prompt tokens per second."""
    capacity: float
    """Prompt tokens per second of one replica."""
    ttft_s: float
    serving: float
    """Replicas whose `max_concurrency` holds every request that waits or runs; 0 without such a limit."""


@policy(PolicyKind.SCALER, "queue_slo", params=QueueSloParams)
def queue_slo(view: ScaleView, params: QueueSloParams) -> ScaleProposal:
    """Clears the queue within the time to first token, from tokens and measured throughput."""
    work = _work(view, params)
    if isinstance(work, Reason):
        if work.code is not ReasonCode.NO_SLO and _nothing_asked(view):
            return ScaleProposal(policy="queue_slo", replicas=0.0, reason=Reason(code=ReasonCode.NO_TRAFFIC))
        return cannot_tell("queue_slo", work)
    needed, code = _needed(view, work, params.utilization_percent / 100.0)
    if view.current > 0 and view.tolerance.covers(needed / view.current):
        needed = float(view.current)
    reason = Reason(
        code=code,
        params={
            "queued": round(work.queued),
            "arriving": round(work.arriving, 1),
            "capacity": round(work.capacity, 1),
        },
    )
    return ScaleProposal(policy="queue_slo", replicas=float(whole_replicas(needed)), reason=reason)


def _work(view: ScaleView, params: QueueSloParams) -> _Work | Reason:
    """What the signals say, or why they say nothing."""
    ttft_s = view.slo_ttft_s if params.ttft_ms is None else params.ttft_ms / 1000.0
    if ttft_s is None:
        return Reason(code=ReasonCode.NO_SLO)
    needed = {
        SignalName.QUEUED_TOKENS: view.signal(SignalName.QUEUED_TOKENS),
        SignalName.PROMPT_TOKENS_PER_S: view.signal(SignalName.PROMPT_TOKENS_PER_S),
        SignalName.PREFILL_CAPACITY: _capacity(view, params),
    }
    if view.max_concurrency > 0:
        needed[SignalName.CONCURRENCY] = view.signal(SignalName.CONCURRENCY)
    for name, signal in needed.items():
        if not signal.known:
            return why_unknown(name, signal)
    requests = needed.get(SignalName.CONCURRENCY)
    return _Work(
        queued=needed[SignalName.QUEUED_TOKENS].value,
        arriving=needed[SignalName.PROMPT_TOKENS_PER_S].value,
        capacity=needed[SignalName.PREFILL_CAPACITY].value,
        ttft_s=ttft_s,
        serving=0.0 if requests is None else requests.value / view.max_concurrency,
    )


def _nothing_asked(view: ScaleView) -> bool:
    """Whether that is known. It needs no capacity, which is learned only while requests wait."""
    tokens = (view.signal(SignalName.QUEUED_TOKENS), view.signal(SignalName.PROMPT_TOKENS_PER_S))
    return is_idle(view) and all(one.known and one.value <= 0 for one in tokens)


def _capacity(view: ScaleView, params: QueueSloParams) -> Signal:
    """Prompt tokens per second of one replica; one that takes in none has not been measured."""
    if params.prefill_tokens_per_s is not None:
        return measured(params.prefill_tokens_per_s)
    signal = view.signal(SignalName.PREFILL_CAPACITY)
    if signal.known and signal.value <= 0:
        return Signal(source=signal.source, detail="nothing was prefilled yet")
    return signal


def _needed(view: ScaleView, work: _Work, utilization: float) -> tuple[float, ReasonCode]:
    """Replicas, and whether the queue or its clearing by itself decides.

    A replica that is ordered now serves after `start_s`. So what counts is the queue that will be left
    then, and it is cleared within the time to first token, or within the time that a start takes where
    that is longer: faster would cost replicas that come when the queue is gone. None of the present
    ones is given up while the queue needs it.
    """
    start_s = view.start_s or 0.0
    horizon = max(work.ttft_s, start_s)
    spare = (view.ready + pending_replicas(view)) * work.capacity - work.arriving
    left = max(0.0, work.queued - max(0.0, spare) * start_s)
    steady = max(work.serving, work.arriving / (work.capacity * utilization))
    at_once = (work.queued + work.arriving * work.ttft_s) / (work.capacity * work.ttft_s)
    in_time = (left + work.arriving * horizon) / (work.capacity * horizon)
    needed = max(steady, in_time, min(at_once, float(view.current)))
    clears = work.queued > 0 and left == 0 and whole_replicas(at_once) > whole_replicas(needed)
    return needed, ReasonCode.QUEUE_CLEARS if clears else ReasonCode.QUEUE
