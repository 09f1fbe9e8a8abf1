"""Sleep in the life of an instance: only commands and their outcome put it to sleep and wake it."""

import pytest

from supervisord_cp.core.instances import effects as do
from supervisord_cp.core.instances import events as ev
from supervisord_cp.core.instances.life import Life, Stage
from supervisord_cp.model.instance import ExitCause, InstanceState
from supervisord_cp.model.launch import DesiredInstance, RunState, SleepLevel
from supervisord_cp.model.reason import Reason, ReasonCode
from tests.core.instances_kit import Driver, adopted, desired

AWAKE = desired(sleep=SleepLevel.LEVEL1)
ASLEEP = desired(sleep=SleepLevel.LEVEL1, run=RunState.SLEEPING)
STOPPED = desired(sleep=SleepLevel.LEVEL1, run=RunState.STOPPED)
BUSY = Reason(code=ReasonCode.AWAITING_DEVICE, params={"device": "slot-0, which other-0 still uses"})
BROKEN = Reason(code=ReasonCode.SLEEP_FAILED, params={"error": "it answers something else"})


def wanted(what: DesiredInstance) -> ev.Wanted:
    return ev.Wanted(desired=what)


def falling() -> Driver:
    driver = Driver(AWAKE)
    driver.to_ready()
    assert driver.feed(wanted(ASLEEP)) == [do.Sleep()]
    assert driver.state is InstanceState.SLEEPING
    return driver


def asleep() -> Driver:
    driver = falling()
    assert driver.feed(ev.Answered(text="Paris"), ev.FellAsleep()) == []
    assert driver.life.stage is Stage.ASLEEP
    return driver


def waking() -> Driver:
    driver = asleep()
    assert driver.feed(wanted(AWAKE)) == [do.Wake(answer="Paris")]
    assert driver.state is InstanceState.STARTING
    return driver


def test_it_sleeps_wakes_and_is_ready_only_when_it_has_answered() -> None:
    driver = waking()
    assert driver.feed(ev.ProbeOk(), ev.ProbeFailed(reason=BUSY)) == []
    assert driver.state is InstanceState.STARTING, "health checks say nothing about it"
    assert driver.feed(ev.Woken()) == []
    assert (driver.state, driver.life.history.slept) == (InstanceState.READY, None)
    assert driver.life.history.restarts == 0


def test_a_health_check_does_not_wake_what_sleeps() -> None:
    driver = asleep()
    driver.feed(ev.ProbeOk(), ev.ProbeFailed(reason=BUSY), ev.ProbeOk())
    assert driver.state is InstanceState.SLEEPING


def test_it_waits_for_its_devices_before_it_wakes_and_need_not() -> None:
    driver = waking()
    driver.feed(ev.Held(reason=BUSY))
    assert driver.state is InstanceState.GATED
    assert driver.feed(wanted(ASLEEP)) == [do.SleepOn()]
    assert driver.state is InstanceState.SLEEPING


def test_one_that_wakes_already_wakes_first_and_sleeps_then() -> None:
    driver = waking()
    assert driver.feed(wanted(ASLEEP)) == []
    assert driver.feed(ev.Woken()) == [do.Sleep()]


@pytest.mark.parametrize("stage", [falling, asleep, waking])
def test_it_can_be_stopped_at_any_time(stage: object) -> None:
    driver = stage()  # type: ignore[operator]
    (stop,) = driver.feed(wanted(STOPPED))
    assert (type(stop), stop.fault) == (do.Stop, None)
    driver.feed(ev.Woken(), ev.FellAsleep(), ev.SleepFailed(reason=BROKEN))
    driver.feed(ev.Exited(code=0, requested=True), ev.Gone())
    assert driver.state is InstanceState.STOPPED


def test_one_that_answers_otherwise_than_before_is_started_anew() -> None:
    driver = waking()
    (stop,) = driver.feed(ev.SleepFailed(reason=BROKEN))
    assert isinstance(stop, do.Stop)
    assert (stop.fault, stop.why) == (ExitCause.SLEEP_MODE, "sleep mode failed: it answers something else")
    assert [type(e) for e in driver.feed(ev.Exited(code=0), ev.Gone())] == [do.Admit]


def test_one_that_does_not_fall_asleep_is_stopped_and_not_started_again() -> None:
    driver = falling()
    (stop,) = driver.feed(ev.SleepFailed(reason=BROKEN))
    assert isinstance(stop, do.Stop)
    driver.feed(ev.Exited(code=0), ev.Gone())
    assert driver.feed(ev.Tick(), after=600.0) == []
    assert driver.state is InstanceState.STOPPED
    assert driver.life.history.last is not None
    assert driver.life.history.last.cause is ExitCause.SLEEP_MODE


def test_what_dies_asleep_is_not_started_until_it_is_wanted() -> None:
    driver = asleep()
    driver.feed(ev.Exited(signal=9), ev.Gone(cause=ExitCause.KILLED))
    assert driver.feed(ev.Tick(), after=600.0) == []
    assert driver.state is InstanceState.STOPPED
    assert [type(e) for e in driver.feed(wanted(AWAKE))] == [do.Admit]


@pytest.mark.parametrize("stage", ["starting", "degraded", "nothing"])
def test_what_is_not_ready_is_not_worth_keeping(stage: str) -> None:
    driver = Driver(AWAKE)
    if stage == "starting":
        driver.to_starting()
    elif stage == "degraded":
        driver.to_ready()
        driver.feed(*[ev.ProbeFailed(reason=BUSY)] * 3)
    asked = [type(effect) for effect in driver.feed(wanted(ASLEEP))]
    assert asked == ([] if stage == "nothing" else [do.Stop])


@pytest.mark.parametrize("far", [falling, asleep, waking])
def test_a_restarted_agent_takes_it_for_asleep_until_it_has_answered(far: object) -> None:
    driver = far()  # type: ignore[operator]
    if far is falling:
        driver.feed(ev.Answered(text="Paris"))
    again = Driver(AWAKE, history=driver.life.history)
    incarnation = driver.life.run.incarnation
    assert again.feed(adopted(AWAKE, incarnation=incarnation)) == [do.Wake(answer="Paris")]
    assert again.state is InstanceState.STARTING


def test_without_a_question_asked_before_a_restarted_agent_looks_first() -> None:
    driver = falling()
    again = Driver(ASLEEP, history=driver.life.history)
    assert driver.life.run is not None
    assert again.feed(adopted(AWAKE, incarnation=driver.life.run.incarnation)) == []
    assert again.state is InstanceState.UNKNOWN
    assert again.feed(ev.ProbeOk()) == [do.Sleep()]


def test_the_next_incarnation_has_not_slept() -> None:
    driver = asleep()
    driver.feed(ev.Exited(signal=9), ev.Gone(cause=ExitCause.KILLED), wanted(AWAKE))
    driver.feed(ev.Tick(), after=60.0)
    driver.feed(ev.Admitted(), driver.spawned(), ev.ProbeOk())
    assert driver.state is InstanceState.READY
    assert driver.life.history.slept is None


def test_a_sleeper_that_is_replaced_ends() -> None:
    driver = asleep()
    (stop,) = driver.feed(wanted(desired(sleep=SleepLevel.LEVEL1, run=RunState.SLEEPING, restart=1)))
    assert isinstance(stop, do.Stop)
    driver.feed(ev.Exited(code=0), ev.Gone())
    assert driver.state is InstanceState.STOPPED


def test_what_is_absent_stays_absent() -> None:
    life = Life(desired=AWAKE, stage=Stage.ABSENT)
    assert Driver(AWAKE, stage=life.stage).feed(ev.Woken()) == []
