"""What happens to a policy that misbehaves: counted, passed over, left alone, tried again."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisord_cp.core.policies.breaker import (
    FIRST_OPEN_S,
    LEAST_SHARE,
    LONGEST_OPEN_S,
    MOST_FAILURES,
    WINDOW_S,
    Breaker,
)
from supervisord_cp.core.policies.guard import Figures, Guard, Overrun
from supervisord_cp.policy.answers import Nonsense

# --- the breaker


def fail(breaker: Breaker, times: int, now: float = 0.0) -> list[float]:
    return [breaker.failed(now) for _ in range(times)]


def test_it_opens_after_some_failures_in_a_row() -> None:
    breaker = Breaker()
    assert fail(breaker, MOST_FAILURES) == [0.0] * (MOST_FAILURES - 1) + [FIRST_OPEN_S]
    assert breaker.blocks(FIRST_OPEN_S - 0.1)
    assert not breaker.blocks(FIRST_OPEN_S)


def test_failures_that_are_far_apart_do_not_open_it() -> None:
    breaker = Breaker()
    assert not any(breaker.failed(n * WINDOW_S) for n in range(100))


def test_a_policy_that_is_asked_often_may_fail_now_and_then() -> None:
    breaker = Breaker()
    for n in range(int(MOST_FAILURES / LEAST_SHARE) * 4):
        breaker.succeeded(0.0)
        if n % 20 == 19:
            assert not breaker.failed(0.0)


def test_a_grave_failure_opens_it_at_once() -> None:
    assert Breaker().failed(0.0, grave=True) == FIRST_OPEN_S


def test_one_call_on_trial_decides_and_each_time_it_stays_open_for_longer() -> None:
    breaker = Breaker()
    lasts = fail(breaker, MOST_FAILURES)[-1]
    now, seen = lasts, [lasts]
    for _ in range(8):
        lasts = breaker.failed(now)
        seen.append(lasts)
        assert breaker.blocks(now + lasts - 0.1)
        now += lasts
    assert seen == sorted(seen)
    assert seen[1] == 2 * FIRST_OPEN_S
    assert seen[-1] == LONGEST_OPEN_S
    assert breaker.succeeded(now)
    assert not breaker.succeeded(now)
    assert fail(breaker, MOST_FAILURES, now + 1)[-1] == FIRST_OPEN_S


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 5)), max_size=200))
def test_what_is_left_alone_comes_back_in_bounded_time(steps: list[tuple[bool, float]]) -> None:
    breaker, now = Breaker(), 0.0
    for good, pause in steps:
        now += pause
        if not breaker.blocks(now):
            lasts = 0.0 if good and breaker.succeeded(now) is not None else breaker.failed(now)
            assert lasts <= LONGEST_OPEN_S
            assert breaker.blocks(now) is (lasts > 0)


# --- the guard


class Stand:
    """A guard with a timer that moves as told, and what it says."""

    def __init__(self, budget_s: float = 0.002) -> None:
        self.figures = Figures()
        self.said: list[str] = []
        self.time = 0.0
        self.inside = 0
        self.guard = Guard("p", self.figures, self, lambda: self.time, budget_s=budget_s, watch=self)

    def opened(self, policy: str, why: str, lasts_s: float) -> None:
        self.said.append(f"opened: {why}")

    def closed(self, policy: str) -> None:
        self.said.append("closed")

    def enter(self) -> None:
        self.inside += 1

    def leave(self) -> None:
        self.inside = 0

    def ask(self, call: Callable[..., Any], now: float = 0.0) -> Any:
        return self.guard.ask(call, checked, now, 7)


def checked(answer: object, asked: int) -> object:
    if answer == "nonsense":
        raise Nonsense("returned nonsense")
    return answer


def raises(error: BaseException) -> Callable[..., Any]:
    def call(*args: object) -> object:
        raise error

    return call


def test_a_good_answer_goes_through_and_is_counted() -> None:
    stand = Stand()
    assert stand.ask(lambda asked: asked + 1) == 8
    assert (stand.figures.calls, stand.figures.failures, stand.inside) == (1, 0, 0)


@pytest.mark.parametrize(
    ("call", "why"),
    [
        (raises(RuntimeError("broken")), "raised RuntimeError: broken"),
        (raises(RecursionError()), "raised RecursionError: "),
        (raises(SystemExit(3)), "raised SystemExit: 3"),
        (lambda asked: "nonsense", "returned nonsense"),
        (lambda: None, "raised TypeError: "),
    ],
)
def test_a_failure_is_no_answer(call: Callable[..., Any], why: str) -> None:
    stand = Stand()
    assert stand.ask(call) is None
    assert stand.figures.failures == 1
    assert stand.figures.last_failure.startswith(why)
    assert stand.inside == 0
    assert not stand.said


def test_what_did_not_come_back_is_left_alone_at_once() -> None:
    stand = Stand()
    assert stand.ask(raises(Overrun())) is None
    assert stand.inside == 0
    assert stand.said == ["opened: did not come back and was broken off"]


def test_a_process_that_is_to_end_ends() -> None:
    with pytest.raises(KeyboardInterrupt):
        Stand().ask(raises(KeyboardInterrupt()))


def test_a_slow_answer_is_used_and_counts_as_a_failure() -> None:
    stand = Stand(budget_s=0.002)

    def slow(asked: int) -> int:
        stand.time += 0.0031
        return asked

    answers = [stand.ask(slow) for _ in range(MOST_FAILURES)]
    assert answers == [7] * MOST_FAILURES
    assert stand.figures.failures == MOST_FAILURES
    assert stand.said == ["opened: took 3.1 ms, more than 2 ms"]
    assert stand.figures.seconds == pytest.approx(0.0031 * MOST_FAILURES)


def test_while_it_is_open_the_policy_is_not_asked_and_then_one_call_closes_it() -> None:
    stand = Stand()
    for _ in range(MOST_FAILURES):
        stand.ask(raises(ValueError()))
    assert (stand.guard.is_open, stand.figures.open) == (True, 1)
    calls = stand.figures.calls
    assert stand.ask(lambda asked: asked, now=FIRST_OPEN_S - 0.1) is None
    assert stand.figures.calls == calls
    assert stand.ask(lambda asked: asked, now=FIRST_OPEN_S) == 7
    assert (stand.guard.is_open, stand.figures.open) == (False, 0)
    assert [text.partition(":")[0] for text in stand.said] == ["opened", "closed"]


def test_a_guard_that_is_no_longer_used_does_not_count_as_open() -> None:
    stand = Stand()
    stand.ask(raises(Overrun()))
    stand.guard.retire()
    stand.guard.retire()
    assert stand.figures.open == 0


def test_long_texts_of_errors_are_cut() -> None:
    stand = Stand()
    stand.ask(raises(ValueError("x" * 10_000)))
    assert len(stand.figures.last_failure) < 400
