"""An instance as users see it: state, reason, status."""

import signal
from collections.abc import Mapping
from typing import Final

from supervisord_cp.core.instances.life import DEFAULT_POLICY, Ended, Launch, Life, LifePolicy, Run, Stage
from supervisord_cp.core.instances.retry import awaits_change
from supervisord_cp.model.base import Incarnation
from supervisord_cp.model.instance import EngineLoad, InstanceState, InstanceStatus, LastExit, Phase
from supervisord_cp.model.launch import RunState
from supervisord_cp.model.reason import NO_REASON, Reason, ReasonCode

_STATES: Final[Mapping[Stage, InstanceState]] = {
    Stage.IDLE: InstanceState.STOPPED,
    Stage.ADMITTING: InstanceState.GATED,
    Stage.ADMITTED: InstanceState.GATED,
    Stage.SPAWNING: InstanceState.STARTING,
    Stage.STARTING: InstanceState.STARTING,
    # It served before the agent was restarted and its process runs: nothing says that it does not serve.
    Stage.ADOPTED: InstanceState.UNKNOWN,
    Stage.READY: InstanceState.READY,
    Stage.DEGRADED: InstanceState.DEGRADED,
    Stage.FALLING_ASLEEP: InstanceState.SLEEPING,
    Stage.ASLEEP: InstanceState.SLEEPING,
    Stage.WAKING: InstanceState.STARTING,
    Stage.STOPPING: InstanceState.STOPPING,
    Stage.CRASHED: InstanceState.CRASHED,
    Stage.BACKOFF: InstanceState.BACKOFF,
    Stage.ABSENT: InstanceState.STOPPED,
}


def shown(life: Life, now: float, policy: LifePolicy = DEFAULT_POLICY) -> tuple[InstanceState, Reason]:
    """State and reason; `now` in monotonic seconds."""
    stage, last = life.stage, life.history.last
    state = _STATES[stage]
    if life.desired.draining and state in (InstanceState.READY, InstanceState.DEGRADED):
        return InstanceState.DRAINING, NO_REASON
    if life.releasing != NO_REASON:
        return InstanceState.RELEASING, life.releasing
    match stage:
        case Stage.IDLE if life.desired.run is RunState.STOPPED:
            return state, Reason(code=ReasonCode.HELD)
        case Stage.ADMITTING | Stage.ADMITTED:
            return state, life.hold
        case Stage.DEGRADED:
            return state, life.health
        case Stage.FALLING_ASLEEP:
            return state, Reason(code=ReasonCode.FALLING_ASLEEP)
        case Stage.WAKING if life.hold != NO_REASON:
            return InstanceState.GATED, life.hold
        case Stage.WAKING:
            return state, Reason(code=ReasonCode.WAKING)
        case Stage.STOPPING if life.stopping is not None:
            if now >= life.stopping.since + life.stopping.grace_s + policy.unkillable_after_s:
                return state, _unkillable(life)
            return state, life.stopping.reason
        case Stage.CRASHED if last is not None:
            ended_at = life.run.exited_at if life.run is not None else None
            if ended_at is not None and now >= ended_at + policy.unkillable_after_s:
                return InstanceState.STOPPING, _unkillable(life)
            return state, Reason(code=ReasonCode.EXITED, params={"how": how(last)})
        case Stage.BACKOFF if last is not None:
            seconds = max(0.0, (life.history.retry_at or now) - now)
            mendable = awaits_change(life.history)
            return state, Reason(
                code=ReasonCode.BACKOFF_OR_CHANGE if mendable else ReasonCode.BACKOFF,
                params={"seconds": round(seconds, 1), "restarts": life.history.restarts, "how": how(last)},
            )
    return state, NO_REASON


def _unkillable(life: Life) -> Reason:
    pid = life.run.pid if life.run is not None else None
    return Reason(code=ReasonCode.UNKILLABLE, params={"pid": "?" if pid is None else pid})


def how(ended: Ended) -> str:
    """How an incarnation ended, in a few words."""
    if ended.signal is not None:
        try:
            words = signal.Signals(ended.signal).name
        except ValueError:
            words = f"signal {ended.signal}"
    elif ended.code is not None:
        words = f"exit code {ended.code}"
    else:
        words = ended.cause.replace("_", " ")
    return f"{words} ({ended.detail})" if ended.detail else words


def status_of(
    life: Life,
    *,
    now: float,
    url: str = "",
    load: EngineLoad | None = None,
    eta_s: float | None = None,
    starting: Reason = NO_REASON,
    can_sleep: bool = False,
    policy: LifePolicy = DEFAULT_POLICY,
) -> InstanceStatus:
    """The status that the agent reports. `eta_s` and `starting` are of a start under way: when it will be
    ready, and what is wrong with it."""
    state, reason = shown(life, now, policy)
    under_way = life.stage is Stage.STARTING
    if under_way and starting != NO_REASON:
        reason = starting
    desired, run, last = life.desired, life.run, life.history.last
    running = run if run is not None and run.pid is not None else None
    launch = running.launch if running is not None else Launch.of(desired)
    return InstanceStatus(
        id=desired.id,
        deployment=desired.deployment,
        engine=desired.spec.engine.value,
        revision=launch.revision,
        incarnation=run.incarnation if run is not None else life.history.ended or Incarnation(""),
        state=state,
        reason=reason,
        phase=running.phase if running is not None else Phase.NONE,
        eta_s=eta_s if under_way else None,
        pid=running.pid if running is not None else None,
        url=url,
        devices=launch.devices,
        restart=run.launch.restart if run is not None else desired.restart,
        restarts=life.history.restarts,
        uptime_s=_uptime(running, now),
        load=load if running is not None else None,
        last_exit=_last_exit(last, now) if last is not None else None,
        served_names=desired.spec.served_names,
        max_concurrency=desired.max_concurrency,
        listed=life.listed,
        can_sleep=can_sleep and running is not None,
    )


def _uptime(run: Run | None, now: float) -> float:
    return 0.0 if run is None or run.ready_since is None else now - run.ready_since


def _last_exit(last: Ended, now: float) -> LastExit:
    age_s = max(0.0, now - last.at)
    return LastExit(code=last.code, signal=last.signal, cause=last.cause, age_s=age_s, detail=last.detail)
