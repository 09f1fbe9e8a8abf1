"""What scalers see of a deployment, made from everything that central knows. Pure but for the counters."""

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from supervisord_cp.central import fleet
from supervisord_cp.central.routers import RouterView
from supervisord_cp.central.signals import Signals
from supervisord_cp.config.schema import AutoscaleConfig, DeploymentConfig, ShrinkCheckConfig
from supervisord_cp.model.assignment import Assignment, Override
from supervisord_cp.model.base import DeploymentName, InstanceId
from supervisord_cp.model.instance import InstanceState, InstanceStatus
from supervisord_cp.model.launch import EngineKind
from supervisord_cp.model.scaling import Behavior, ScaleBounds, ScaleLimits, ScaleView, ShrinkCheck
from supervisord_cp.model.signal import (
    NamedResult,
    ReplicaPhase,
    ReplicaView,
    SignalName,
    SignalSource,
    measured,
)

UNBOUNDED: Final = 1_000_000
_SERVING: Final = (InstanceState.READY, InstanceState.UNKNOWN, InstanceState.UNLISTED)
_PHASES: Final[Mapping[InstanceState, ReplicaPhase]] = {
    InstanceState.READY: ReplicaPhase.READY,
    InstanceState.UNKNOWN: ReplicaPhase.READY,
    InstanceState.UNLISTED: ReplicaPhase.READY,
    InstanceState.DEGRADED: ReplicaPhase.UNREADY,
    InstanceState.SLEEPING: ReplicaPhase.UNREADY,
    InstanceState.CRASHED: ReplicaPhase.FAILED,
    InstanceState.BACKOFF: ReplicaPhase.FAILED,
}


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What central knows when it decides."""

    now: float
    wall: float
    statuses: Mapping[InstanceId, tuple[fleet.NodeView, InstanceStatus]]
    states: Mapping[InstanceId, InstanceState]
    routers: Mapping[str, RouterView]
    results: Mapping[str, NamedResult]


def configured(deployment: DeploymentConfig) -> int:
    """What the configuration asks for before any policy speaks."""
    if deployment.engine == EngineKind.NONE:
        return 0
    return deployment.replicas if deployment.autoscale is None else deployment.autoscale.min


def behavior_of(scale: AutoscaleConfig) -> Behavior:
    """The configured behaviour as the envelope takes it."""
    return msgspec.convert(msgspec.to_builtins(scale.behavior), Behavior)


def limits_of(
    deployment: DeploymentConfig, override: Override | None, gpus_left: int | None, view: ScaleView
) -> ScaleLimits:
    """What the envelope holds a deployment to."""
    scale = deployment.autoscale
    return ScaleLimits(
        behavior=None if scale is None else behavior_of(scale),
        idle_s=0.0 if scale is None else scale.idle_s,
        shrink_check=None if scale is None else _shrink_check(deployment, scale, view),
        gpus_per_replica=deployment.gpus,
        gpus_left=gpus_left,
        gpu_share=deployment.gpu_share or None,
        override=override,
    )


def _shrink_check(
    deployment: DeploymentConfig, scale: AutoscaleConfig, view: ScaleView
) -> ShrinkCheck | None:
    """The check that is configured; without one, the one that `max_concurrency` makes possible."""
    config = scale.shrink_check
    if config is None:
        if not deployment.max_concurrency:
            return None
        config = ShrinkCheckConfig()
    if config.fill == 0:
        return None
    if config.per_replica is not None:
        each = measured(config.per_replica)
    elif config.signal == SignalName.PROMPT_TOKENS_PER_S:
        each = view.signal(SignalName.PREFILL_CAPACITY)
    else:
        each = measured(deployment.max_concurrency or None)
    return ShrinkCheck(load=view.signal(config.signal), per_replica=each, fill=config.fill)


def scale_view(
    deployment: DeploymentConfig,
    mine: Iterable[Assignment],
    known: Known,
    signals: Signals,
    *,
    wanted: int | None,
    kept: int | None = None,
    now_s: float,
    start_s: float | None,
    taken_in: float | None = None,
) -> ScaleView:
    """The view of one deployment at its own time `now_s`.

    `wanted` is the number decided last, None after a start of central; then what it remembers (`kept`) and
    what it finds both count: the larger of them is what there is.
    """
    name = DeploymentName(deployment.name)
    scale = deployment.autoscale
    bounds = ScaleBounds(min=0, max=UNBOUNDED) if scale is None else ScaleBounds(min=scale.min, max=scale.max)
    replicas = tuple(_replica(a, known, signals) for a in mine)
    counting = [r for r in replicas if r.phase is not ReplicaPhase.DRAINING]
    ready = sum(r.phase is ReplicaPhase.READY for r in counting)
    measures = signals.deployment(
        name, known.routers, [r.signals for r in counting if r.phase is ReplicaPhase.READY], known.now
    )
    measures[SignalName.PREFILL_CAPACITY] = measured(
        taken_in, source=SignalSource.AGENT, detail="no request has waited yet"
    )
    return ScaleView(
        deployment=name,
        configured=configured(deployment),
        bounds=bounds,
        now_s=now_s,
        wall_s=known.wall,
        wanted=max(len(counting), kept or 0) if wanted is None else wanted,
        ready=ready,
        starting=len(counting) - ready,
        draining=len(replicas) - len(counting),
        replicas=replicas,
        signals=measures,
        queries={query: result.total for query, result in known.results.items()},
        tolerance=Behavior().tolerance if scale is None else behavior_of(scale).tolerance,
        max_concurrency=deployment.max_concurrency,
        slo_ttft_s=None if deployment.slo.ttft_ms is None else deployment.slo.ttft_ms / 1000,
        start_s=start_s,
    )


def _replica(assignment: Assignment, known: Known, signals: Signals) -> ReplicaView:
    found = known.statuses.get(assignment.id)
    phase = _PHASES.get(known.states.get(assignment.id, InstanceState.GATED), ReplicaPhase.STARTING)
    if not assignment.counts:
        phase = ReplicaPhase.DRAINING
    if found is None:
        return ReplicaView(id=assignment.id, phase=phase)
    view, status = found
    queries = {}
    for query, result in known.results.items():
        part = result.instances.get(assignment.id)
        if part is not None:
            queries[query] = part
    return ReplicaView(
        id=assignment.id,
        phase=phase,
        age_s=status.uptime_s,
        changed_s=status.uptime_s if phase is ReplicaPhase.READY else None,
        signals=signals.replica(status, view, known.now),
        queries=queries,
    )
