"""What is measured, with its age and where it comes from. Unknown is a value of its own."""

import math
from enum import StrEnum
from typing import Final

from msgspec.structs import replace

from supervisord_cp.model.base import InstanceId, Value

STALE_AFTER_S: Final = 15.0


class SignalState(StrEnum):
    """What can be made of a measurement. Only a value may take replicas away."""

    VALUE = "value"
    """A number. Zero is one."""
    MISSING = "missing"
    """Nothing was measured: no such series, a query that failed, a report without it."""
    STALE = "stale"
    """It was measured too long ago."""
    NAN = "nan"
    """It was measured and is no finite number: a ratio without traffic, for one."""


class SignalSource(StrEnum):
    """Who measured."""

    NONE = ""
    ROUTER = "router"
    AGENT = "agent"
    PROMETHEUS = "prometheus"

    @classmethod
    def _missing_(cls, value: object) -> "SignalSource":
        return cls.NONE


class SignalName(StrEnum):
    """The built-in signals. A deployment's are sums over its routers and replicas unless they say more."""

    QUEUED = "queued"
    """Requests that wait in the routers."""
    QUEUED_TOKENS = "queued_tokens"
    """Estimated prompt tokens of those."""
    INFLIGHT = "inflight"
    """Requests that were sent to a replica and are not done: the mean over the last seconds."""
    REQUESTS_PER_S = "requests_per_s"
    """Requests that arrive."""
    PROMPT_TOKENS_PER_S = "prompt_tokens_per_s"
    """Prompt tokens that arrive."""
    CONCURRENCY = "concurrency"
    """Queued and in flight. Made from the two where it is not given."""
    RUNNING = "running"
    """Requests in the engines' batches, as engines report."""
    WAITING = "waiting"
    """Requests in the engines' own queues, as engines report."""
    KV_CACHE_USAGE = "kv_cache_usage"
    """Ratio, 0 to 1; of a deployment: the mean."""
    GPU_UTILIZATION = "gpu_utilization"
    """Ratio, 0 to 1; of a deployment: the mean."""
    GENERATION_TOKENS_PER_S = "generation_tokens_per_s"
    """Tokens made, from the engines' counters."""
    PREEMPTIONS_PER_S = "preemptions_per_s"
    """Requests that engines put back for want of KV cache."""
    PREFILL_TOKENS_PER_S = "prefill_tokens_per_s"
    """Prompt tokens that engines take in, from their counters."""
    PREFILL_CAPACITY = "prefill_capacity"
    """Prompt tokens per second that one replica took in while requests waited."""
    TTFT_S = "ttft_s"
    """Time to first token, seconds."""
    ITL_S = "itl_s"
    """Time between two tokens, seconds."""


class Signal(Value, frozen=True, kw_only=True):
    """One measurement. `value` means something for `value` and, as the last that was known, for `stale`."""

    state: SignalState = SignalState.MISSING
    value: float = 0.0
    age_s: float = 0.0
    window_s: float = 0.0
    """Time over which it is an average or a rate; 0: a moment."""
    source: SignalSource = SignalSource.NONE
    detail: str = ""
    """Why there is no value, for people."""

    @property
    def known(self) -> bool:
        return self.state is SignalState.VALUE

    def older(self, by_s: float) -> "Signal":
        """The same so much later: stale when it is too old by then."""
        if by_s <= 0 or self.state is SignalState.MISSING:
            return self
        age_s = self.age_s + by_s
        return replace(self, age_s=age_s, state=SignalState.STALE if age_s > STALE_AFTER_S else self.state)


MISSING: Final = Signal()


def measured(
    value: float | None,
    *,
    source: SignalSource = SignalSource.NONE,
    age_s: float = 0.0,
    window_s: float = 0.0,
    stale_after_s: float = STALE_AFTER_S,
    detail: str = "",
) -> Signal:
    """The signal that a raw number makes. None is missing; NaN and the infinities are no number;
    an age beyond `stale_after_s` makes it stale, whatever it was."""
    finite = value is not None and math.isfinite(value)
    if value is None:
        state = SignalState.MISSING
    elif age_s > stale_after_s:
        state = SignalState.STALE
    else:
        state = SignalState.VALUE if finite else SignalState.NAN
    number = float(value) if value is not None and finite else 0.0
    return Signal(state=state, value=number, age_s=age_s, window_s=window_s, source=source, detail=detail)


def together(*parts: Signal) -> Signal:
    """The sum of several signals: as old as the oldest, and known only if all of them are."""
    if not parts:
        return MISSING
    value = age_s = window_s = 0.0
    for part in parts:
        if part.state is not SignalState.VALUE:
            return part
        value += part.value
        if part.age_s > age_s:
            age_s = part.age_s
        if part.window_s > window_s:
            window_s = part.window_s
    return Signal(
        state=SignalState.VALUE, value=value, age_s=age_s, window_s=window_s, source=parts[0].source
    )


class NamedResult(Value, frozen=True, kw_only=True):
    """What a named PromQL expression said last."""

    total: Signal = MISSING
    """All its series summed; no series at all is missing, which is not zero."""
    instances: dict[InstanceId, Signal] = {}
    """Of the instances that its series name with the label `instance_id`."""


class ReplicaPhase(StrEnum):
    """Where a replica stands, as far as scaling is concerned."""

    STARTING = "starting"
    """Ordered and not up yet."""
    READY = "ready"
    UNREADY = "unready"
    """Up and not fit to serve just now."""
    FAILED = "failed"
    """Its engine ended and is not tried at this moment."""
    DRAINING = "draining"
    """On its way out; no longer one of the wanted."""


class ReplicaView(Value, frozen=True, kw_only=True):
    """One replica of a deployment with what was measured on it."""

    id: InstanceId
    phase: ReplicaPhase = ReplicaPhase.READY
    age_s: float = 0.0
    """Since its engine was started, or ordered while there is none."""
    changed_s: float | None = None
    """Since it last became ready or unready; None: unknown."""
    signals: dict[str, Signal] = {}
    """Built-in signals of this replica by name."""
    queries: dict[str, Signal] = {}
    """Named PromQL results whose series carry this replica's `instance_id`."""
