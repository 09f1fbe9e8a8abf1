"""When starts are tried again: each cause has its own way, and none waits for a person."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisord_cp.core.instances import events as ev
from supervisord_cp.core.instances.backoff import HOUR_S, RETRIES, backoff_s
from supervisord_cp.core.instances.life import History, Life, Stage
from supervisord_cp.core.instances.show import shown
from supervisord_cp.model.instance import ExitCause, InstanceState
from supervisord_cp.model.reason import ReasonCode, render
from tests.core.instances_kit import Driver, desired

MENDABLE = {ExitCause.CONFIGURATION, ExitCause.KV_CACHE, ExitCause.MODEL_ACCESS, ExitCause.SPAWN_FAILED}


def fail(driver: Driver, cause: ExitCause, *, inputs: str = "as it was") -> float:
    """From idle through a start to its failed end; the wait that follows."""
    driver.feed(ev.Tick(), ev.Admitted())
    spawned = msgspec.structs.replace(driver.spawned(), inputs=inputs)
    driver.feed(spawned, ev.Exited(code=1), ev.Gone(cause=cause))
    assert driver.life.stage is Stage.BACKOFF
    assert driver.life.history.retry_at is not None
    return driver.life.history.retry_at - driver.now


def waits(cause: ExitCause, count: int) -> list[float]:
    """The waits after failures in a row."""
    driver, found = Driver(), []
    for _ in range(count):
        found.append(fail(driver, cause))
        driver.now += found[-1]
    return found


@pytest.mark.parametrize(
    ("cause", "expected"),
    [
        (ExitCause.CONFIGURATION, [10, HOUR_S, HOUR_S]),
        (ExitCause.MODEL_ACCESS, [10, 20, 40, 80, 160, 320, 600, 600]),
        (ExitCause.KV_CACHE, [10, 20, 40, 80, 160, 320, 640, 1280, 2560, HOUR_S, HOUR_S]),
        (ExitCause.PORT_TAKEN, [0.2, 0.4, 0.8]),
        (ExitCause.GPU_MEMORY, [5, 10, 20]),
        (ExitCause.HOST_MEMORY, [10, 20, 40]),
        (ExitCause.GPU_FAULT, [10, 20, 40, 80, 160, 300, 300]),
        (ExitCause.COLLECTIVE_HANG, [5, 10, 20]),
        (ExitCause.STALLED, [1, 2, 4]),
        (ExitCause.ENGINE_DEAD, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]),
        (ExitCause.KILLED, [1, 2, 4]),
        (ExitCause.UNKNOWN, [1, 2, 4]),
    ],
)
def test_each_cause_has_its_waits(cause: ExitCause, expected: list[float]) -> None:
    assert waits(cause, len(expected)) == pytest.approx(expected)


@given(st.sampled_from(ExitCause), st.integers(0, 10_000), st.floats(0, 1))
def test_no_wait_is_longer_than_an_hour_or_nothing_at_all(
    cause: ExitCause, failures: int, chance: float
) -> None:
    wait = backoff_s(cause, failures, chance)
    assert 0.0 < wait <= HOUR_S
    assert backoff_s(cause, failures, 0.0) <= wait <= backoff_s(cause, failures, 1.0)
    assert wait <= backoff_s(cause, failures + 1, chance)


def test_mendable_causes_are_those_that_waiting_does_not_cure() -> None:
    assert {cause for cause, retry in RETRIES.items() if retry.mendable} == MENDABLE


@pytest.mark.parametrize("cause", list(ExitCause))
def test_a_change_of_program_model_or_node_ends_the_wait_of_mendable_causes(cause: ExitCause) -> None:
    driver = Driver()
    fail(driver, cause)
    driver.feed(ev.InputsSeen(inputs="as it was"))
    assert driver.life.stage is Stage.BACKOFF
    driver.feed(ev.InputsSeen(inputs="mended"))
    assert (driver.life.stage is Stage.ADMITTING) == (cause in MENDABLE)
    assert driver.life.history.restarts == 1


def test_what_failed_before_the_change_does_not_lengthen_the_waits_after_it() -> None:
    driver = Driver()
    driver.now += fail(driver, ExitCause.CONFIGURATION)
    assert fail(driver, ExitCause.CONFIGURATION) == HOUR_S
    driver.feed(ev.InputsSeen(inputs="mended"))
    driver.feed(ev.Admitted(), msgspec.structs.replace(driver.spawned(), inputs="mended"))
    driver.feed(ev.Exited(code=2), ev.Gone(cause=ExitCause.CONFIGURATION))
    assert driver.life.history.retry_at == driver.now + 10.0


@pytest.mark.parametrize(("failed_with", "seen"), [("", "something"), ("something", "")])
def test_what_is_unknown_is_no_change(failed_with: str, seen: str) -> None:
    driver = Driver()
    fail(driver, ExitCause.CONFIGURATION, inputs=failed_with)
    driver.feed(ev.InputsSeen(inputs=seen))
    assert driver.life.stage is Stage.BACKOFF


def test_the_reason_says_what_would_end_the_wait() -> None:
    driver = Driver()
    fail(driver, ExitCause.CONFIGURATION)
    state, reason = shown(driver.life, driver.now)
    assert (state, reason.code) == (InstanceState.BACKOFF, ReasonCode.BACKOFF_OR_CHANGE)
    assert "next try in 10 s or when deployment, program, model" in render(reason)


@given(st.lists(st.sampled_from(ExitCause), min_size=1, max_size=6), st.floats(0, 4000))
def test_a_restart_of_the_agent_changes_no_wait(causes: list[ExitCause], passed: float) -> None:
    """The history goes to disk and comes back; what remains of the wait is what remained."""
    driver = Driver()
    for cause in causes:
        driver.now = max(driver.now, driver.life.history.retry_at or 0.0)
        fail(driver, cause)
    wait = driver.life.history.retry_at
    assert wait is not None
    kept = msgspec.json.decode(msgspec.json.encode(driver.life.history), type=History)
    again = Driver()
    again.life = Life(desired=desired(), history=kept)
    again.now = driver.now + passed
    again.feed(ev.Tick())
    assert (again.life.stage is Stage.BACKOFF) == (again.now < wait)
    assert again.life.history.failures == driver.life.history.failures


AT_ONCE = {
    ExitCause.ENGINE_DEAD,
    ExitCause.KILLED,
    ExitCause.KEEPER_LOST,
    ExitCause.START_TIMEOUT,
    ExitCause.STALLED,
    ExitCause.SLEEP_MODE,
    ExitCause.COLLECTIVE_HANG,
    ExitCause.UNKNOWN,
}


def crash(driver: Driver, cause: ExitCause, *, served_s: float = 0.0) -> Life:
    """It starts, serves for so long, and ends with this cause."""
    driver.to_ready()
    driver.feed(ev.Exited(code=0), ev.Gone(cause=cause), after=served_s)
    return driver.life


@pytest.mark.parametrize("cause", sorted(AT_ONCE))
def test_what_has_served_is_started_again_at_once_the_first_time(cause: ExitCause) -> None:
    driver = Driver()
    life = crash(driver, cause, served_s=3.0)
    assert (life.stage, life.history.failures) == (Stage.ADMITTING, 1)
    driver.feed(ev.Admitted(), driver.spawned(), ev.ProbeOk())
    driver.feed(ev.Exited(code=0), ev.Gone(cause=cause), after=3.0)
    assert driver.life.stage is Stage.BACKOFF
    assert driver.life.history.failures == 2


@pytest.mark.parametrize("cause", sorted(set(ExitCause) - AT_ONCE - {ExitCause.REQUESTED}))
def test_other_causes_wait_even_the_first_time(cause: ExitCause) -> None:
    assert crash(Driver(), cause, served_s=3.0).stage is Stage.BACKOFF


@pytest.mark.parametrize("cause", sorted(AT_ONCE))
def test_healthy_time_gives_the_immediate_restart_back(cause: ExitCause) -> None:
    driver = Driver()
    crash(driver, cause)
    driver.feed(ev.Admitted(), driver.spawned(), ev.ProbeOk())
    driver.feed(ev.Exited(code=0), ev.Gone(cause=cause), after=600.0)
    assert (driver.life.stage, driver.life.history.failures) == (Stage.ADMITTING, 1)


def test_what_serves_for_a_moment_each_time_waits_longer_and_longer() -> None:
    driver, found = Driver(), []
    for _ in range(6):
        driver.feed(ev.Tick())
        driver.feed(ev.Admitted(), driver.spawned(), ev.ProbeOk())
        driver.feed(ev.Exited(signal=9), ev.Gone(cause=ExitCause.KILLED))
        assert driver.life.history.retry_at is not None
        found.append(driver.life.history.retry_at - driver.now)
        driver.now += found[-1]
    assert found == pytest.approx([0, 2, 4, 8, 16, 32])
