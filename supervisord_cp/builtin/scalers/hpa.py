"""hpa: the horizontal pod autoscaler of Kubernetes (v2), over PromQL results and built-in signals."""

from typing import Annotated, Final

from msgspec import Meta

from supervisord_cp.builtin.scalers.hpa_arithmetic import (
    AverageTarget,
    Readiness,
    UtilizationTarget,
    by_average_value,
    by_samples,
    by_value,
    grouped,
    milli,
)
from supervisord_cp.policy import (
    PolicyKind,
    Reason,
    ReasonCode,
    ReplicaView,
    ScaleProposal,
    ScaleView,
    Signal,
    SignalName,
    SignalState,
    Value,
    cannot_tell,
    is_at_rest,
    is_idle,
    measured,
    policy,
    why_unknown,
)

_RATIOS: Final = frozenset({SignalName.KV_CACHE_USAGE, SignalName.GPU_UTILIZATION})
_REQUESTS: Final = frozenset(
    {
        SignalName.INFLIGHT,
        SignalName.RUNNING,
        SignalName.WAITING,
        SignalName.QUEUED,
        SignalName.CONCURRENCY,
    }
)
_ENGINE_GAUGES: Final = frozenset(
    {SignalName.RUNNING, SignalName.WAITING, SignalName.KV_CACHE_USAGE, SignalName.GPU_UTILIZATION}
)

Target = Annotated[float, Meta(ge=0.001)]


class HpaParams(Value, frozen=True, kw_only=True):
    """Parameters of `hpa`: one metric, one target. Several metrics are several scalers."""

    query: str = ""
    """A name of `[prometheus.queries]`."""
    signal: SignalName | None = None
    """Or a built-in signal."""
    target_value: Target | None = None
    """For the whole, whatever the number of replicas (HPA: `Value`): a latency, a ratio."""
    target_average_value: Target | None = None
    """For each replica (HPA: `AverageValue`): requests, tokens."""
    target_utilization: Annotated[int, Meta(ge=1)] | None = None
    """Percent of what a replica has (HPA: `Utilization`), from samples of single replicas."""
    per_replica: bool = False
    """`target_average_value` is compared with samples of single replicas (HPA: `Pods`), not with the sum."""
    gauge: bool = False
    """The query reads an engine's gauge, which can stay where it was when work ends: counters overrule it."""
    initialization_s: Annotated[float, Meta(ge=0)] = 300.0
    """`target_utilization`: a younger replica counts once it is ready and sampled after that."""
    initial_readiness_delay_s: Annotated[float, Meta(ge=0)] = 30.0
    """`target_utilization`: one that turned unready within this time of its start never was ready."""

    def __post_init__(self) -> None:
        if bool(self.query) == (self.signal is not None):
            raise ValueError("either query or signal must be set")
        targets = (self.target_value, self.target_average_value, self.target_utilization)
        if sum(target is not None for target in targets) != 1:
            raise ValueError("one of target_value, target_average_value and target_utilization must be set")
        if self.per_replica and self.target_value is not None:
            raise ValueError("target_value is for the whole; per_replica needs target_average_value")

    @property
    def metric(self) -> str:
        """What is compared, by name."""
        return self.query or str(self.signal)

    @property
    def target(self) -> float:
        """What it is compared with."""
        return self.target_value or self.target_average_value or self.target_utilization or 0.0


@policy(PolicyKind.SCALER, "hpa", params=HpaParams)
def hpa(view: ScaleView, params: HpaParams) -> ScaleProposal:
    """Keeps a metric at its target, with the arithmetic of Kubernetes' HPA v2."""
    if params.per_replica or params.target_utilization is not None:
        return _by_replica(view, params)
    signal = _settled(_read(view, params), view, params)
    if not signal.known:
        return cannot_tell("hpa", why_unknown(params.metric, signal))
    value, target = milli(signal.value), milli(params.target)
    if params.target_value is not None:
        replicas = by_value(value, target, current=view.current, ready=view.ready, tolerance=view.tolerance)
    else:
        replicas = by_average_value(value, target, current=view.current, tolerance=view.tolerance)
    return _proposal(replicas, view, params, signal.value)


def _by_replica(view: ScaleView, params: HpaParams) -> ScaleProposal:
    full = _full(view, params)
    if full is None:
        hint = "max_concurrency is not set" if params.signal in _REQUESTS else "nothing is 100 % of it"
        return cannot_tell("hpa", why_unknown(params.metric, Signal(detail=hint)))
    utilization = params.target_utilization is not None
    readiness = Readiness(
        initialization_s=params.initialization_s, initial_delay_s=params.initial_readiness_delay_s
    )
    groups = grouped(
        view.replicas,
        lambda replica: _settled(_read(replica, params), view, params),
        readiness if utilization else None,
    )
    target: AverageTarget | UtilizationTarget
    if params.target_utilization is not None:
        target = UtilizationTarget(percent=params.target_utilization, full=milli(full))
    else:
        target = AverageTarget(target=milli(params.target))
    replicas = by_samples(groups, target, current=view.current, tolerance=view.tolerance)
    if replicas is None:
        silent = Signal(detail="no ready replica reports it")
        return cannot_tell("hpa", why_unknown(params.metric, silent))
    average = sum(groups.samples.values()) / 1000 / len(groups.samples)
    shown = 100 * average / full if utilization else average
    return _proposal(replicas, view, params, shown, assumed=bool(groups.missing or groups.unready))


def _full(view: ScaleView, params: HpaParams) -> float | None:
    """What is 100 % of one replica; 1 where no percentage is asked for."""
    if params.target_utilization is None or params.query or params.signal in _RATIOS:
        return 1.0
    return float(view.max_concurrency) or None if params.signal in _REQUESTS else None


def _read(where: ScaleView | ReplicaView, params: HpaParams) -> Signal:
    match where:
        case ScaleView():
            return where.query(params.query) if params.query else where.signal(params.metric)
        case ReplicaView():
            return (where.queries if params.query else where.signals).get(params.metric, Signal())


def _settled(signal: Signal, view: ScaleView, params: HpaParams) -> Signal:
    """The signal, or zero where other evidence says that there is no work.

    A ratio without traffic is no number, and an engine that has nothing to do may leave its gauges where
    they were. Neither is believed when routers count nothing, and the gauge not when the engines'
    counters stand still besides.
    """
    gauge = params.gauge or params.signal in _ENGINE_GAUGES
    no_number = signal.state is SignalState.NAN and is_idle(view)
    left_over = gauge and signal.state is not SignalState.MISSING and is_at_rest(view)
    if no_number or left_over:
        return measured(0.0, source=signal.source, age_s=0.0)
    return signal


def _proposal(
    replicas: int, view: ScaleView, params: HpaParams, value: float, *, assumed: bool = False
) -> ScaleProposal:
    code = ReasonCode.TARGET
    if value == 0 and is_idle(view):
        code = ReasonCode.NO_TRAFFIC
    elif assumed:
        code = ReasonCode.UNREADY_REPLICAS
    elif replicas == view.current:
        code = ReasonCode.WITHIN_TOLERANCE
    reason = Reason(
        code=code, params={"signal": params.metric, "value": round(value, 3), "target": params.target}
    )
    return ScaleProposal(policy="hpa", replicas=float(replicas), reason=reason)
