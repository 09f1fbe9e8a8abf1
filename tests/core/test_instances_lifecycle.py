"""The lifecycle, case by case."""

import pytest
from msgspec.structs import replace

from supervisord_cp.core.instances import effects as do
from supervisord_cp.core.instances import events as ev
from supervisord_cp.core.instances.life import History, Stage
from supervisord_cp.core.instances.lifecycle import wake_at
from supervisord_cp.core.instances.show import shown, status_of
from supervisord_cp.model.base import DeviceId, Incarnation
from supervisord_cp.model.instance import ExitCause, InstanceState, Phase
from supervisord_cp.model.launch import RunState
from supervisord_cp.model.reason import Reason, ReasonCode
from tests.core.instances_kit import START, Driver, adopted, desired

WRONG = Reason(code=ReasonCode.HEALTH_FAILED, params={"status": 500})


def kinds(effects: list[do.Effect]) -> list[type]:
    return [type(effect) for effect in effects]


def test_a_start_is_admitted_spawned_and_ready() -> None:
    driver = Driver()
    assert kinds(driver.feed(ev.Tick())) == [do.Admit]
    held = Reason(code=ReasonCode.AWAITING_PORT, params={"ports": "1-2"})
    driver.feed(ev.Held(reason=held))
    assert shown(driver.life, driver.now) == (InstanceState.GATED, held)
    assert kinds(driver.feed(ev.Admitted())) == [do.Spawn]
    assert driver.state is InstanceState.STARTING
    driver.feed(driver.spawned())
    driver.feed(ev.PhaseSeen(phase=Phase.COMPILING), ev.PhaseSeen(phase=Phase.LOADING))
    assert status_of(driver.life, now=driver.now).phase is Phase.COMPILING
    driver.feed(ev.ProbeOk(), after=5.0)
    status = status_of(driver.life, now=driver.now + 7.0, url="http://x")
    assert (status.state, status.phase, status.uptime_s, status.pid) == (
        InstanceState.READY,
        Phase.READY,
        7.0,
        101,
    )
    assert [event.message for event in driver.events] == [
        "gated: waiting for a free port in 1-2",
        "starting",
        "ready",
    ]


def test_only_what_holds_a_start_up_at_the_gate_is_announced() -> None:
    driver = Driver()
    driver.feed(ev.Tick())
    for free in ("1 GiB", "2 GiB"):
        params = {"needed": "3 GiB", "free": free}
        driver.feed(ev.Held(reason=Reason(code=ReasonCode.AWAITING_MEMORY, params=params)))
    driver.feed(ev.Held(reason=Reason(code=ReasonCode.AWAITING_PORT, params={"ports": "1-2"})))
    assert [event.reason.code for event in driver.events] == [
        ReasonCode.AWAITING_MEMORY,
        ReasonCode.AWAITING_PORT,
    ]


def test_an_unrequested_exit_is_a_failure_with_code_0_too() -> None:
    driver = Driver()
    driver.to_ready()
    assert driver.feed(ev.Exited(code=0)) == []
    assert driver.state is InstanceState.CRASHED
    assert driver.feed(ev.Tick(), after=100.0) == []  # nothing starts before the tree is gone
    gone = ev.Gone(cause=ExitCause.ENGINE_DEAD, detail="EngineDeadError")
    assert kinds(driver.feed(gone)) == [do.Admit]  # the first time at once
    driver.feed(ev.Admitted(), driver.spawned(), ev.Exited(code=0), gone)
    status = status_of(driver.life, now=driver.now + 0.25)
    assert status.state is InstanceState.BACKOFF
    assert status.reason.params == {"seconds": 1.8, "restarts": 2, "how": "exit code 0 (EngineDeadError)"}
    assert status.restarts == 2
    assert status.last_exit is not None
    assert status.last_exit.cause is ExitCause.ENGINE_DEAD
    assert (status.pid, status.load) == (None, None)
    due = wake_at(driver.life)
    assert due == driver.now + 2.0
    assert driver.feed(ev.Tick(), after=1.9) == []
    assert kinds(driver.feed(ev.Tick(), after=0.1)) == [do.Admit]


def test_a_crash_is_told_in_one_line_and_the_next_try_in_another() -> None:
    driver = Driver()
    driver.to_starting()
    driver.events.clear()
    driver.feed(ev.Exited(code=1), ev.Gone(cause=ExitCause.CONFIGURATION, detail="no such flag"))
    assert [event.message for event in driver.events] == [
        "ended unasked: exit code 1 (no such flag)",
        "backoff: next try in 10 s or when deployment, program, model or the node's configuration change",
    ]


def test_failures_in_a_row_wait_longer_and_healthy_time_forgives() -> None:
    driver = Driver()
    waits = []
    for healthy_s in (1.0, 1.0, 1.0, 700.0, 1.0):
        driver.to_ready()
        driver.feed(ev.Exited(signal=9), after=healthy_s)
        driver.feed(ev.Gone(cause=ExitCause.KILLED))
        due = driver.life.history.retry_at
        assert due is not None
        waits.append(due - driver.now)
        driver.now = due
    assert waits == [0.0, 2.0, 4.0, 0.0, 2.0]
    assert driver.life.history.restarts == 5


@pytest.mark.parametrize("stage", ["admitting", "starting", "ready", "degraded"])
def test_stop_and_start_again(stage: str) -> None:
    driver = Driver()
    driver.feed(ev.Tick())
    if stage != "admitting":
        driver.feed(ev.Admitted(), driver.spawned())
    if stage in ("ready", "degraded"):
        driver.feed(ev.ProbeOk())
    if stage == "degraded":
        driver.feed(*[ev.ProbeFailed(reason=WRONG)] * 3)
        assert shown(driver.life, driver.now) == (InstanceState.DEGRADED, WRONG)
    effects = driver.feed(ev.Wanted(desired=desired(run=RunState.STOPPED)))
    if stage == "admitting":
        assert kinds(effects) == [do.Withdraw]
    else:
        assert effects == [do.Stop(grace_s=5.0 if stage == "starting" else 30.0)]
        assert driver.state is InstanceState.STOPPING
        assert driver.feed(ev.Exited(code=0), ev.Gone(cause=ExitCause.ENGINE_DEAD)) == []
        assert driver.life.history.last is not None
        assert driver.life.history.last.cause is ExitCause.REQUESTED
        assert driver.life.history.restarts == 0
    assert shown(driver.life, driver.now) == (InstanceState.STOPPED, Reason(code=ReasonCode.HELD))
    assert kinds(driver.feed(ev.Wanted(desired=desired()))) == [do.Admit]


def test_a_stop_while_spawning_stops_what_was_spawned() -> None:
    driver = Driver()
    driver.feed(ev.Tick(), ev.Admitted())
    assert driver.feed(ev.Wanted(desired=desired(run=RunState.STOPPED))) == []
    assert kinds(driver.feed(driver.spawned())) == [do.Stop]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model": "other"}, ReasonCode.REPLACED),
        ({"devices": ("slot-1",)}, ReasonCode.REPLACED),
        ({"restart": 1}, ReasonCode.RESTART_ASKED),
    ],
)
def test_another_launch_replaces_the_running_one(change: dict[str, object], reason: ReasonCode) -> None:
    driver = Driver()
    driver.to_ready()
    other = desired(**change)  # type: ignore[arg-type]
    assert kinds(driver.feed(ev.Wanted(desired=other))) == [do.Stop]
    assert shown(driver.life, driver.now)[1].code is reason
    before = status_of(driver.life, now=driver.now)
    assert (before.revision, before.devices, before.restart) == (desired().revision, ("slot-0",), 0)
    effects = driver.feed(ev.Exited(code=0), ev.Gone())
    assert effects == [do.Admit(desired=other)]
    driver.feed(ev.Admitted(), driver.spawned())
    after = status_of(driver.life, now=driver.now)
    assert (after.revision, after.devices, after.restart) == (other.revision, other.devices, other.restart)


def test_what_does_not_change_the_launch_does_not_touch_the_engine() -> None:
    driver = Driver()
    driver.to_ready()
    assert driver.feed(ev.Wanted(desired=replace(desired(draining=True), max_concurrency=3))) == []
    assert driver.state is InstanceState.DRAINING
    assert driver.feed(ev.Wanted(desired=desired())) == []
    assert driver.state is InstanceState.READY
    assert driver.feed(ev.Unlisted()) == []
    assert driver.state is InstanceState.READY
    assert not status_of(driver.life, now=driver.now).listed


def test_an_application_for_an_outdated_launch_is_taken_back() -> None:
    driver = Driver()
    driver.feed(ev.Tick())
    other = desired(model="other")
    assert driver.feed(ev.Wanted(desired=other)) == [do.Withdraw(), do.Admit(desired=other)]


def test_removal_ends_absent_and_absent_is_the_end() -> None:
    driver = Driver()
    driver.to_ready()
    assert kinds(driver.feed(ev.Removed())) == [do.Stop]
    assert shown(driver.life, driver.now)[1].code is ReasonCode.REMOVED
    assert kinds(driver.feed(ev.Exited(code=0), ev.Gone())) == [do.Forget]
    assert driver.life.stage is Stage.ABSENT
    assert driver.feed(ev.Wanted(desired=desired()), ev.Tick()) == []


def test_a_removal_taken_back_in_time_starts_again() -> None:
    driver = Driver()
    driver.to_ready()
    driver.feed(ev.Removed(), ev.Exited(code=0), ev.Wanted(desired=desired()))
    assert kinds(driver.feed(ev.Gone())) == [do.Admit]


def test_a_start_that_takes_too_long_fails() -> None:
    driver = Driver(desired(start_timeout_s=60.0))
    driver.to_starting()
    assert wake_at(driver.life) == START + 60.0
    driver.feed(ev.ProbeFailed(reason=WRONG), after=59.0)
    assert driver.state is InstanceState.STARTING
    assert driver.feed(ev.Tick(), after=1.0) == [
        do.Stop(grace_s=5.0, fault=ExitCause.START_TIMEOUT, why="not ready after 60 s (spawned)")
    ]
    assert shown(driver.life, driver.now)[1].code is ReasonCode.START_DEADLINE
    driver.feed(ev.Exited(signal=9), ev.Gone())
    assert driver.state is InstanceState.BACKOFF
    assert driver.life.history.last is not None
    assert driver.life.history.last.cause is ExitCause.START_TIMEOUT
    assert driver.life.history.restarts == 1


def test_a_slow_start_is_not_ended_while_it_reads() -> None:
    driver = Driver(desired(start_timeout_s=60.0))
    driver.to_starting()
    for _ in range(100):
        assert driver.feed(ev.Moved(io=True), ev.Tick(), after=30.0) == []
    assert wake_at(driver.life) == driver.now + 60.0
    assert kinds(driver.feed(ev.Tick(), after=60.0)) == [do.Stop]


def test_a_start_that_only_computes_or_talks_has_a_limit() -> None:
    driver = Driver(desired(start_timeout_s=60.0))
    driver.to_starting()
    while driver.now < START + 230.0:
        assert driver.feed(ev.Moved(), ev.Tick(), after=10.0) == []
    assert wake_at(driver.life) == START + 240.0
    (stop,) = driver.feed(ev.Moved(), ev.Tick(), after=10.0)
    assert isinstance(stop, do.Stop)
    assert stop.fault is ExitCause.START_TIMEOUT


def test_a_frozen_start_is_ended_before_its_deadline() -> None:
    driver = Driver(desired(start_timeout_s=600.0))
    driver.to_starting()
    params = {"seconds": 130, "phase": "loading weights", "usual": 20}
    frozen = Reason(code=ReasonCode.STUCK_IN_PHASE, params=params)
    why = "nothing has moved for 130 s (loading weights, usually 20 s)"
    assert driver.feed(ev.Frozen(reason=frozen)) == [
        do.Stop(grace_s=5.0, fault=ExitCause.START_TIMEOUT, why=why)
    ]
    driver.feed(ev.Exited(signal=15, requested=True), ev.Gone(cause=ExitCause.START_TIMEOUT, detail=why))
    assert driver.state is InstanceState.BACKOFF
    driver.feed(ev.Tick(), after=1.0)
    driver.feed(ev.Admitted(), driver.spawned(), ev.ProbeOk())
    assert driver.state is InstanceState.READY


def test_the_eta_and_what_is_wrong_are_of_a_start_only() -> None:
    driver = Driver()
    driver.to_starting()
    status = status_of(driver.life, now=driver.now, eta_s=7.0, starting=WRONG)
    assert (status.eta_s, status.reason) == (7.0, WRONG)
    driver.feed(ev.ProbeOk())
    status = status_of(driver.life, now=driver.now, eta_s=7.0, starting=WRONG)
    assert (status.eta_s, status.reason.code) == (None, ReasonCode.NONE)


def test_a_failed_spawn_backs_off_and_another_launch_does_not_wait() -> None:
    driver = Driver()
    driver.feed(ev.Tick(), ev.Admitted(), ev.SpawnFailed(detail="no such file"))
    state, reason = shown(driver.life, driver.now)
    assert state is InstanceState.BACKOFF
    assert reason.params["how"] == "spawn failed (no such file)"
    assert kinds(driver.feed(ev.Wanted(desired=desired(model="other")))) == [do.Admit]


@pytest.mark.parametrize("change", [{"restart": 1}, {"model": "other"}])
def test_asking_for_something_else_ends_a_backoff_and_its_growth(change: dict[str, object]) -> None:
    driver = Driver()
    for _ in range(4):
        driver.feed(ev.Tick(), ev.Admitted(), ev.SpawnFailed(detail="x"), after=500.0)
    assert driver.life.history.failures == 4
    other = desired(**change)  # type: ignore[arg-type]
    assert kinds(driver.feed(ev.Wanted(desired=other))) == [do.Admit]
    driver.feed(ev.Admitted(), ev.SpawnFailed(detail="x"))
    assert driver.life.history.failures == 1


def test_degraded_after_three_failed_checks_in_a_row_and_back() -> None:
    driver = Driver()
    driver.to_ready()
    failed = ev.ProbeFailed(reason=WRONG)
    driver.feed(failed, failed, ev.ProbeOk(), failed, failed)
    assert driver.state is InstanceState.READY
    driver.feed(failed)
    assert driver.state is InstanceState.DEGRADED
    driver.feed(ev.ProbeOk())
    assert driver.state is InstanceState.READY
    assert driver.life.run is not None
    assert driver.life.run.ready_since == START


def test_a_stalled_engine_is_out_of_rotation_then_killed_and_started_again() -> None:
    driver = Driver()
    driver.to_ready()
    hangs = Reason(code=ReasonCode.STALLED, params={"running": 3, "seconds": 120})
    assert driver.feed(ev.Stalled(reason=hangs)) == []
    assert shown(driver.life, driver.now) == (InstanceState.DEGRADED, hangs)
    driver.feed(ev.ProbeOk(), ev.ProbeOk())  # /health of a hung engine answers
    assert driver.state is InstanceState.DEGRADED
    why = "3 requests run, and no iteration or token was counted for 120 s"
    assert driver.feed(ev.GivenUp()) == [do.Stop(grace_s=0.0, fault=ExitCause.STALLED, why=why)]
    assert shown(driver.life, driver.now) == (InstanceState.STOPPING, hangs)
    driver.feed(ev.Exited(signal=9, requested=True), ev.Gone(cause=ExitCause.STALLED, detail=why))
    status = status_of(driver.life, now=driver.now)
    assert status.state is InstanceState.GATED
    assert status.last_exit is not None
    assert (status.last_exit.cause, status.last_exit.detail) == (ExitCause.STALLED, why)
    assert status.restarts == 1
    driver.feed(ev.Admitted(), driver.spawned(), ev.ProbeOk())
    assert driver.state is InstanceState.READY


def test_what_has_not_served_yet_cannot_stall() -> None:
    driver = Driver()
    driver.to_starting()
    driver.feed(ev.Stalled(reason=WRONG), ev.GivenUp())
    assert driver.life.stage is Stage.STARTING


def test_a_halted_instance_stops_and_stays() -> None:
    driver = Driver()
    driver.to_ready()
    assert kinds(driver.feed(ev.Halted())) == [do.Stop]
    assert shown(driver.life, driver.now)[1].code is ReasonCode.AGENT_STOPS
    assert driver.feed(ev.Exited(code=0), ev.Gone(), ev.Tick()) == []
    assert driver.state is InstanceState.STOPPED


def test_what_survives_sigkill_is_shown_as_unkillable() -> None:
    driver = Driver()
    driver.to_ready()
    driver.feed(ev.Removed())
    driver.now += 39.0
    assert shown(driver.life, driver.now)[1].code is ReasonCode.REMOVED
    driver.now += 1.0
    assert shown(driver.life, driver.now)[1] == Reason(code=ReasonCode.UNKILLABLE, params={"pid": 101})


def test_what_survives_a_crash_and_sigkill_is_shown_as_unkillable() -> None:
    """The time counts from the news: an agent that was away has not begun to kill before."""
    driver = Driver()
    driver.to_ready()
    driver.feed(ev.Exited(code=1, age_s=1000.0))
    driver.now += 9.0
    assert shown(driver.life, driver.now)[0] is InstanceState.CRASHED
    driver.now += 1.0
    unkillable = Reason(code=ReasonCode.UNKILLABLE, params={"pid": "?"})
    assert shown(driver.life, driver.now) == (InstanceState.STOPPING, unkillable)
    assert kinds(driver.feed(ev.Gone())) == [do.Admit]


class TestAdoption:
    def test_one_that_served_counts_as_serving_until_it_is_asked(self) -> None:
        driver = Driver(history=History(ready=Incarnation("old"), ready_since=START - 50.0))
        assert driver.feed(adopted(desired())) == []
        assert driver.state is InstanceState.UNKNOWN
        driver.feed(ev.ProbeOk())
        status = status_of(driver.life, now=driver.now)
        assert (status.state, status.uptime_s, status.pid) == (InstanceState.READY, 50.0, 50)

    def test_one_that_never_served_is_starting(self) -> None:
        driver = Driver()
        driver.feed(adopted(desired()))
        assert driver.state is InstanceState.STARTING

    def test_one_of_another_launch_is_replaced(self) -> None:
        driver = Driver(desired(model="other"))
        assert kinds(driver.feed(adopted(desired()))) == [do.Stop]

    def test_one_that_crashed_meanwhile_is_a_failure(self) -> None:
        driver = Driver(history=History(ready=Incarnation("old"), ready_since=START - 5.0, failures=2))
        driver.feed(adopted(desired()), ev.Exited(code=1, age_s=3.0), ev.Gone(cause=ExitCause.UNKNOWN))
        assert driver.state is InstanceState.GATED
        assert driver.life.history.restarts == 1
        assert driver.life.history.ended == "old"
        assert driver.life.history.last is not None
        assert driver.life.history.last.at == START - 3.0

    def test_one_whose_stop_an_earlier_agent_asked_for_is_no_failure(self) -> None:
        driver = Driver()
        driver.feed(adopted(desired()), ev.Exited(code=0, requested=True))
        assert driver.state is InstanceState.STOPPING
        assert kinds(driver.feed(ev.Gone())) == [do.Admit]
        assert driver.life.history.restarts == 0

    def test_a_backoff_goes_on_where_it_was(self) -> None:
        history = History(retry_at=START + 30.0, failures=3)
        driver = Driver(history=history)
        assert driver.feed(ev.Tick()) == []
        assert driver.life.stage is Stage.BACKOFF
        assert kinds(driver.feed(ev.Tick(), after=30.0)) == [do.Admit]


def test_late_events_of_an_earlier_question_change_nothing() -> None:
    driver = Driver(desired(run=RunState.STOPPED))
    idle = driver.life
    for event in (
        ev.Admitted(),
        ev.Held(reason=WRONG),
        driver.spawned(),
        ev.SpawnFailed(detail="x"),
        ev.ProbeOk(),
        ev.ProbeFailed(reason=WRONG),
        ev.PhaseSeen(phase=Phase.LOADING),
        ev.Exited(code=1),
        ev.Gone(),
    ):
        assert driver.feed(event) == []
        assert driver.life is idle


def test_devices_of_the_status_are_those_in_use() -> None:
    driver = Driver()
    driver.to_ready()
    driver.feed(ev.Wanted(desired=desired(devices=("slot-1",))))
    assert status_of(driver.life, now=driver.now).devices == (DeviceId("slot-0"),)


def test_an_engine_that_says_it_cannot_serve_is_believed_at_once() -> None:
    """vLLM answers 503 when its core has died; anything else may be a moment's trouble."""
    driver = Driver()
    driver.to_ready()
    driver.feed(ev.ProbeFailed(reason=WRONG))
    assert driver.state is InstanceState.READY
    driver.feed(ev.ProbeFailed(reason=Reason(code=ReasonCode.HEALTH_FAILED, params={"status": 503})))
    assert driver.state is InstanceState.DEGRADED
    driver.feed(ev.ProbeOk())
    assert driver.state is InstanceState.READY
