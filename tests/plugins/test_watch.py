"""Policies that do not come back are broken off, on both event loops, and nothing else is."""

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Iterator

import pytest
import uvloop

from supervisord_cp.core.policies.guard import Figures, Guard, Overrun
from supervisord_cp.plugin_host.watch import AlarmWatch

TICK_S = 0.02


@pytest.fixture
def watch() -> Iterator[AlarmWatch]:
    made = AlarmWatch(TICK_S)
    made.arm()
    yield made
    made.disarm()


def spins() -> None:
    while True:
        pass


def sleeps() -> None:
    time.sleep(60)


def spins_deep_inside() -> None:
    sorted(range(3), key=lambda number: spins())


def holds_on() -> None:
    while True:
        with contextlib.suppress(Exception):
            spins()


@pytest.mark.parametrize("call", [spins, sleeps, spins_deep_inside, holds_on])
def test_what_does_not_come_back_is_broken_off(watch: AlarmWatch, call: Callable[[], None]) -> None:
    with pytest.raises(Overrun), watch.around():
        call()


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_the_event_loop_goes_on(watch: AlarmWatch, run: Callable[..., None]) -> None:
    async def main() -> None:
        for call in (spins, sleeps):
            with pytest.raises(Overrun), watch.around():
                call()
            await asyncio.sleep(2 * TICK_S)

    run(main())


def test_between_calls_nothing_happens(watch: AlarmWatch) -> None:
    with watch.around():
        pass
    until = time.monotonic() + 5 * TICK_S
    while time.monotonic() < until:
        pass


def test_many_short_calls_are_no_long_one(watch: AlarmWatch) -> None:
    until = time.monotonic() + 5 * TICK_S
    while time.monotonic() < until:
        with watch.around():
            pass


def test_a_guard_survives_it(watch: AlarmWatch) -> None:
    class Quiet:
        def opened(self, policy: str, why: str, lasts_s: float) -> None: ...

        def closed(self, policy: str) -> None: ...

    figures = Figures()
    guard = Guard("p", figures, Quiet(), time.perf_counter, watch=watch)
    assert guard.ask(spins, lambda answer: answer, 0.0) is None
    assert figures.last_failure == "did not come back and was broken off"
    assert guard.is_open


def test_the_alarm_is_given_back() -> None:
    handler, (_, interval) = signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)
    watch = AlarmWatch(TICK_S)
    watch.arm()
    watch.arm()
    assert watch.armed
    assert signal.getsignal(signal.SIGALRM) != handler
    watch.disarm()
    watch.disarm()
    assert not watch.armed
    assert signal.getsignal(signal.SIGALRM) == handler
    assert signal.getitimer(signal.ITIMER_REAL)[1] == interval
