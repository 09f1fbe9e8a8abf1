"""Sleep and waking in the life of an instance. Pure.

What sleeps is told by commands and their outcome, never by health checks: `/health` of a sleeping engine
answers 200. From the first command on a mark is kept with the history, so that an agent that was restarted
in between takes the engine for asleep until it has proved that it is awake.
"""

from msgspec.structs import replace

from supervisord_cp.core.instances import effects as do
from supervisord_cp.core.instances import events as ev
from supervisord_cp.core.instances.life import Life, Slept, Stage
from supervisord_cp.model.instance import ExitCause, Phase
from supervisord_cp.model.reason import NO_REASON

SleepEvent = ev.Answered | ev.FellAsleep | ev.Woken | ev.SleepFailed


def absorb(life: Life, event: SleepEvent, now: float) -> Life:
    """What the outcome of a command makes of an instance."""
    run, history = life.run, life.history
    if run is None:
        return life
    match event:
        case ev.Answered() if life.stage is Stage.FALLING_ASLEEP:
            slept = Slept(incarnation=run.incarnation, answer=event.text)
            return replace(life, history=replace(history, slept=slept))
        case ev.FellAsleep() if life.stage is Stage.FALLING_ASLEEP:
            return replace(life, stage=Stage.ASLEEP)
        case ev.Woken() if life.stage is Stage.WAKING:
            return replace(
                life,
                stage=Stage.READY,
                run=replace(run, ready_since=now, phase=Phase.READY),
                history=replace(history, slept=None, ready_since=now),
                hold=NO_REASON,
                health=NO_REASON,
                health_failures=0,
            )
        case ev.SleepFailed() if life.stage in (Stage.FALLING_ASLEEP, Stage.WAKING):
            return replace(
                life, stage=Stage.DEGRADED, health=event.reason, stalled=True, given_up=ExitCause.SLEEP_MODE
            )
    return life


def converge(life: Life, effects: list[do.Effect]) -> Life:
    """One step of a running engine that may stay towards sleep or out of it."""
    if life.sleeps and life.stage is Stage.READY:
        effects.append(do.Sleep())
        return replace(life, stage=Stage.FALLING_ASLEEP)
    if life.sleeps and life.stage is Stage.WAKING and life.hold != NO_REASON:
        effects.append(do.SleepOn())
        return replace(life, stage=Stage.ASLEEP, hold=NO_REASON)
    if life.wanted and life.stage is Stage.ASLEEP:
        slept = life.history.slept
        effects.append(do.Wake(answer="" if slept is None else slept.answer))
        return replace(life, stage=Stage.WAKING, hold=NO_REASON)
    return life
