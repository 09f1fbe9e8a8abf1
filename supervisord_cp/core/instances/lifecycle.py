"""The lifecycle of an instance: (life, event, now) -> (life, effects). Pure.

An event changes what is observed or wanted (`_absorb`); what follows from the difference is found
afterwards from the state alone (`_converge`), whatever the event was. So a lost or late event
delays convergence and never changes where it leads.
"""

from typing import Final, assert_never

from msgspec.structs import replace

from supervisord_cp.core.instances import effects as do
from supervisord_cp.core.instances import events as ev
from supervisord_cp.core.instances import sleeping
from supervisord_cp.core.instances.announce import announcements
from supervisord_cp.core.instances.life import (
    DEFAULT_POLICY,
    RUNNING,
    SLEEPY,
    Ended,
    Launch,
    Life,
    LifePolicy,
    Run,
    Stage,
    Stopping,
)
from supervisord_cp.core.instances.retry import failed, looked_at, must_wait
from supervisord_cp.model.base import Value
from supervisord_cp.model.instance import ExitCause, Phase
from supervisord_cp.model.reason import NO_REASON, Reason, ReasonCode, render

UNAVAILABLE: Final = 503
_PHASES: Final = tuple(Phase)
_MAY_SLEEP: Final = RUNNING - {Stage.STARTING, Stage.DEGRADED}
"""What is not ready is not worth keeping."""


class Step(Value, frozen=True, kw_only=True):
    """The outcome of one event."""

    life: Life
    effects: tuple[do.Effect, ...] = ()


def step(
    life: Life, event: ev.LifeEvent, *, now: float, chance: float, policy: LifePolicy = DEFAULT_POLICY
) -> Step:
    """What an event makes of an instance, and what has to be done about it.

    `now` is in monotonic seconds; `chance` (0 to 1) jitters a backoff that begins with this event.
    """
    if life.stage is Stage.ABSENT:
        return Step(life=life)
    effects: list[do.Effect] = []
    after = _absorb(life, event, now, chance, policy)
    while (further := _converge(after, now, policy, effects)) is not after:
        after = further
    effects.extend(do.Announce(event=told) for told in announcements(life, after, now))
    return Step(life=after, effects=tuple(effects))


def wake_at(life: Life, policy: LifePolicy = DEFAULT_POLICY) -> float | None:
    """When a `Tick` is due, monotonic seconds; None: never by itself."""
    if life.stage is Stage.STARTING and life.run is not None:
        return _start_deadline(life, life.run, policy)
    if life.stage is Stage.BACKOFF:
        return life.history.retry_at
    return None


def _absorb(life: Life, event: ev.LifeEvent, now: float, chance: float, policy: LifePolicy) -> Life:
    match event:
        case ev.Wanted() | ev.Unlisted() | ev.Removed() | ev.Halted():
            return _absorb_wish(life, event)
        case ev.Held():
            waits = life.stage in (Stage.ADMITTING, Stage.WAKING)
            return replace(life, hold=event.reason) if waits else life
        case ev.Admitted():
            return replace(life, stage=Stage.ADMITTED) if life.stage is Stage.ADMITTING else life
        case ev.Spawned():
            return _absorb_spawned(life, event, now)
        case ev.Adopted():
            return _absorb_adopted(life, event, now)
        case ev.SpawnFailed():
            if life.stage is not Stage.SPAWNING or life.asked is None:
                return life
            ended = Ended(at=now, cause=event.cause, detail=event.detail)
            return _fail(life, life.asked, ended, inputs=event.inputs, now=now, chance=chance, policy=policy)
        case ev.PhaseSeen():
            return _absorb_phase(life, event.phase)
        case ev.Moved() | ev.Frozen():
            return _absorb_movement(life, event, now)
        case ev.ProbeOk() | ev.ProbeFailed():
            return _absorb_probe(life, event, now, policy)
        case ev.Stalled():
            if life.stage not in RUNNING - {Stage.STARTING}:
                return life
            return replace(life, stage=Stage.DEGRADED, health=event.reason, stalled=True)
        case ev.GivenUp():
            return replace(life, given_up=ExitCause.STALLED) if life.stalled else life
        case ev.Answered() | ev.FellAsleep() | ev.Woken() | ev.SleepFailed():
            return sleeping.absorb(life, event, now)
        case ev.Exited():
            return _absorb_exit(life, event, now)
        case ev.Releasing():
            over = life.stage in (Stage.CRASHED, Stage.STOPPING)
            return replace(life, releasing=event.reason) if over else life
        case ev.Gone():
            life = replace(life, releasing=NO_REASON) if life.releasing != NO_REASON else life
            return _absorb_gone(life, event, now, chance, policy)
        case ev.InputsSeen():
            history = looked_at(life.history, event.inputs) if life.stage is Stage.BACKOFF else life.history
            return life if history is life.history else replace(life, history=history)
        case ev.Tick():
            return life
        case _:
            assert_never(event)


def _absorb_wish(life: Life, event: ev.Wanted | ev.Unlisted | ev.Removed | ev.Halted) -> Life:
    match event:
        case ev.Wanted():
            return replace(life, desired=event.desired, listed=True, removed=False)
        case ev.Unlisted():
            return replace(life, listed=False)
        case ev.Removed():
            return replace(life, removed=True)
        case ev.Halted():
            return replace(life, halted=True)


def _absorb_spawned(life: Life, event: ev.Spawned, now: float) -> Life:
    if life.stage is not Stage.SPAWNING or life.asked is None:
        return life
    run = Run(
        incarnation=event.incarnation,
        pid=event.pid,
        launch=life.asked,
        spawned_at=now,
        stop_grace_s=event.stop_grace_s,
        inputs=event.inputs,
    )
    history = replace(life.history, ready=None, ready_since=None, slept=None)
    return replace(life, stage=Stage.STARTING, asked=None, run=run, history=history)


def _absorb_adopted(life: Life, event: ev.Adopted, now: float) -> Life:
    if life.stage is not Stage.IDLE:
        return life
    served = life.history.ready == event.incarnation
    run = Run(
        incarnation=event.incarnation,
        pid=event.pid,
        launch=event.launch,
        spawned_at=now,
        stop_grace_s=event.stop_grace_s,
        inputs=event.inputs,
        ready_since=life.history.ready_since if served else None,
        phase=Phase.READY if served else Phase.SPAWNED,
    )
    slept = life.history.slept
    if served and slept is not None and slept.incarnation == event.incarnation:
        return replace(life, stage=Stage.ASLEEP, run=run)
    return replace(life, stage=Stage.ADOPTED if served else Stage.STARTING, run=run)


def _absorb_phase(life: Life, phase: Phase) -> Life:
    """Phases only go forward: a late line of the log does not undo what is known."""
    run = life.run
    if life.stage is not Stage.STARTING or run is None:
        return life
    if phase is Phase.READY or _PHASES.index(phase) <= _PHASES.index(run.phase):
        return life
    return replace(life, run=replace(run, phase=phase))


def _absorb_movement(life: Life, event: ev.Moved | ev.Frozen, now: float) -> Life:
    run = life.run
    if life.stage is not Stage.STARTING or run is None:
        return life
    if isinstance(event, ev.Frozen):
        return replace(life, run=replace(run, frozen=event.reason))
    return replace(life, run=replace(run, moved_at=now, io_at=now if event.io else run.io_at))


def _absorb_probe(life: Life, event: ev.ProbeOk | ev.ProbeFailed, now: float, policy: LifePolicy) -> Life:
    run = life.run
    if life.stage not in RUNNING - SLEEPY or run is None or life.stalled:
        return life
    if isinstance(event, ev.ProbeFailed):
        if life.stage is Stage.STARTING:
            return life
        failures = life.health_failures + 1
        believed = failures >= policy.degraded_after or _cannot_serve(event.reason)
        stage = Stage.DEGRADED if believed else life.stage
        return replace(life, stage=stage, health=event.reason, health_failures=failures)
    if life.stage is Stage.READY and not life.health_failures:
        return life
    since = now if run.ready_since is None else run.ready_since
    return replace(
        life,
        stage=Stage.READY,
        run=replace(run, ready_since=since, phase=Phase.READY),
        history=replace(life.history, ready=run.incarnation, ready_since=since),
        health=NO_REASON,
        health_failures=0,
    )


def _cannot_serve(reason: Reason) -> bool:
    """It says so itself: vLLM does when its core has died, and nobody else's trouble looks like that."""
    return reason.code is ReasonCode.HEALTH_FAILED and reason.params.get("status") == UNAVAILABLE


def _absorb_exit(life: Life, event: ev.Exited, now: float) -> Life:
    run = life.run
    if life.stage not in RUNNING | {Stage.STOPPING} or run is None:
        return life
    ended = Ended(at=now - event.age_s, code=event.code, signal=event.signal)
    stage, stopping = life.stage, life.stopping
    if stopping is not None:
        ended = replace(ended, cause=stopping.fault or ExitCause.REQUESTED)
    elif event.requested:  # asked for by an earlier life of the agent
        ended = replace(ended, cause=ExitCause.REQUESTED)
        stage = Stage.STOPPING
        stopping = Stopping(reason=NO_REASON, since=now, grace_s=0.0)
    else:
        stage = Stage.CRASHED
    return replace(
        life,
        stage=stage,
        stopping=stopping,
        run=replace(run, pid=None, exited_at=now),
        history=replace(life.history, last=ended),
        health=NO_REASON,
        health_failures=0,
        stalled=False,
        given_up=None,
    )


def _absorb_gone(life: Life, event: ev.Gone, now: float, chance: float, policy: LifePolicy) -> Life:
    last, run = life.history.last, life.run
    if life.stage not in (Stage.CRASHED, Stage.STOPPING) or last is None or run is None:
        return life
    if life.stage is Stage.CRASHED:
        cause = event.cause
    elif life.stopping is not None and life.stopping.fault is not None:
        cause = life.stopping.fault
    else:
        history = replace(life.history, ended=run.incarnation, ready=None, ready_since=None)
        return replace(life, stage=Stage.IDLE, stopping=None, history=history)
    life = replace(life, history=replace(life.history, ended=run.incarnation))
    ended = replace(last, cause=cause, detail=event.detail)
    return _fail(life, run.launch, ended, inputs=run.inputs, now=now, chance=chance, policy=policy)


def _fail(
    life: Life,
    launch: Launch,
    ended: Ended,
    *,
    inputs: str,
    now: float,
    chance: float,
    policy: LifePolicy,
) -> Life:
    """Nothing is left of a launch that ended unasked, or that never came up."""
    history = failed(
        life.history,
        launch,
        ended,
        inputs=inputs,
        now=now,
        chance=chance,
        forgive_after_s=policy.forgive_after_s,
    )
    return replace(life, stage=Stage.BACKOFF, asked=None, stopping=None, history=history)


def _converge(life: Life, now: float, policy: LifePolicy, effects: list[do.Effect]) -> Life:
    """One step from what is observed towards what is wanted; the same object when there is none."""
    stage = life.stage
    if stage is Stage.IDLE:
        return _converge_idle(life, now, effects)
    if stage in (Stage.ADMITTING, Stage.ADMITTED):
        if not life.wanted or life.asked is None or not life.asked.serves(life.desired):
            effects.append(do.Withdraw())
            return replace(life, stage=Stage.IDLE, asked=None, hold=NO_REASON)
        if stage is Stage.ADMITTED:
            effects.append(do.Spawn(desired=life.desired))
            return replace(life, stage=Stage.SPAWNING, hold=NO_REASON)
        return life
    if stage in RUNNING:
        return _converge_running(life, now, policy, effects)
    if stage is Stage.BACKOFF and not (life.wanted and must_wait(life.history, life.desired, now)):
        return replace(life, stage=Stage.IDLE)
    return life


def _converge_idle(life: Life, now: float, effects: list[do.Effect]) -> Life:
    if life.removed:
        effects.append(do.Forget())
        return replace(life, stage=Stage.ABSENT)
    if not life.wanted:
        return life
    if must_wait(life.history, life.desired, now):
        return replace(life, stage=Stage.BACKOFF)
    effects.append(do.Admit(desired=life.desired))
    return replace(life, stage=Stage.ADMITTING, asked=Launch.of(life.desired), hold=NO_REASON)


def _converge_running(life: Life, now: float, policy: LifePolicy, effects: list[do.Effect]) -> Life:
    run = life.run
    assert run is not None
    fault: ExitCause | None = None
    may_sleep = life.sleeps and (life.stage in _MAY_SLEEP or life.given_up is not None)
    if not life.wanted and not may_sleep:
        reason = Reason(code=_why_unwanted(life))
    elif not run.launch.serves(life.desired):
        same = replace(run.launch, restart=life.desired.restart).serves(life.desired)
        reason = Reason(code=ReasonCode.RESTART_ASKED if same else ReasonCode.REPLACED)
    elif life.stage is Stage.STARTING and run.frozen != NO_REASON:
        reason, fault = run.frozen, ExitCause.START_TIMEOUT
    elif life.stage is Stage.STARTING and now >= _start_deadline(life, run, policy):
        params: dict[str, str | int | float] = {"seconds": round(now - run.spawned_at), "phase": run.phase}
        reason = Reason(code=ReasonCode.START_DEADLINE, params=params)
        fault = ExitCause.START_TIMEOUT
    elif life.given_up is not None:
        reason, fault = life.health, life.given_up
    else:
        return sleeping.converge(life, effects)
    grace_s = run.stop_grace_s
    if life.stage is Stage.STARTING:
        grace_s = min(grace_s, policy.loading_grace_s)
    elif fault is not None:
        grace_s = 0.0  # it does not listen, and what it has will not be finished
    why = "" if fault is None else render(reason)
    effects.append(do.Stop(grace_s=grace_s, fault=fault, why=why))
    stopping = Stopping(reason=reason, since=now, grace_s=grace_s, fault=fault)
    return replace(life, stage=Stage.STOPPING, stopping=stopping)


def _why_unwanted(life: Life) -> ReasonCode:
    if life.removed or life.sleeps:
        return ReasonCode.REMOVED
    return ReasonCode.AGENT_STOPS if life.halted else ReasonCode.HELD


def _start_deadline(life: Life, run: Run, policy: LifePolicy) -> float:
    """A slow start that moves is not ended: one that reads or writes never, any other not before a multiple
    of its time."""
    timeout_s = life.desired.spec.start_timeout_s
    due = run.spawned_at + timeout_s
    if run.moved_at is not None:
        longest = run.spawned_at + policy.most_extension * timeout_s
        due = max(due, min(run.moved_at + policy.moving_s, longest))
    return due if run.io_at is None else max(due, run.io_at + policy.moving_s)
