"""Hangs are told from everything that looks like one."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from supervisord_cp.core.instances.progress import (
    ANSWERS,
    FAILURES,
    LOOK_S,
    MOST_PATIENCE,
    NOTHING_SEEN,
    Progress,
    all_progressed,
    heard,
    is_dead,
    is_stalled,
    limit_s,
    progressed,
)
from supervisord_cp.model.instance import EngineLoad

STALL_S = 120.0


def load(
    running: int | None = 1,
    steps: float | None = 5,
    *,
    waiting: int = 0,
    prompt: float | None = 0,
    tokens: float | None = 0,
    asleep: bool | None = None,
) -> EngineLoad:
    return EngineLoad(
        running=running,
        waiting=waiting,
        iterations_total=steps,
        prompt_tokens_total=prompt,
        generation_tokens_total=tokens,
        asleep=asleep,
    )


def watch(loads: Iterable[EngineLoad], every_s: float = 1.0, before: Progress = NOTHING_SEEN) -> Progress:
    """Looks at equal intervals; fails when one of them, but the last, says that it hangs."""
    progress, stalled = before, False
    for one in loads:
        assert not stalled
        progress = progressed(progress, one, every_s)
        stalled = is_stalled(progress, STALL_S)
    return progress


def test_requests_that_run_while_nothing_moves_are_a_hang_after_the_threshold() -> None:
    assert not is_stalled(watch([load()] * 120), STALL_S)
    assert is_stalled(watch([load()] * 121), STALL_S)


@pytest.mark.parametrize(
    "loads",
    [
        pytest.param([load(running=0)] * 1000, id="idle"),
        pytest.param([load(running=0, waiting=9)] * 1000, id="waiting, none in the batch"),
        pytest.param([load(waiting=500, steps=n) for n in range(1000)], id="saturated"),
        pytest.param([load(steps=n // 60) for n in range(1000)], id="a step a minute"),
        pytest.param([load(prompt=2048.0 * (n // 100)) for n in range(1000)], id="a long prefill in chunks"),
        pytest.param([load(tokens=n // 119) for n in range(1000)], id="a token every two minutes"),
        pytest.param([load(asleep=True)] * 1000, id="asleep with requests"),
        pytest.param([load(running=None)] * 1000, id="running unknown"),
        pytest.param([load(steps=None, prompt=None, tokens=None)] * 1000, id="no counter known"),
        pytest.param([load(running=n % 2, steps=5) for n in range(1000)], id="requests that come and go"),
    ],
)
def test_never_taken_for_a_hang(loads: list[EngineLoad]) -> None:
    assert not is_stalled(watch(loads), STALL_S)


def test_a_hundred_thousand_tokens_in_one_step_on_a_slow_engine() -> None:
    """1,000 tokens a second: 100 s in which nothing moves; and again, later."""
    prefill = [load(steps=7)] * 100
    progress = watch([*prefill, load(steps=8), load(running=0, steps=8), *prefill, load(steps=9)])
    assert progress.still_s == 0.0


def test_time_in_which_nobody_looked_is_no_evidence() -> None:
    """The host slept, or the agent was stopped, for an hour."""
    progress = watch([load()] * 60)
    progress = progressed(progress, load(), 3600.0)
    assert progress.still_s <= 60.0 + LOOK_S
    assert progressed(progress, load(), -5.0).still_s == progress.still_s


def test_an_engine_that_has_shown_to_be_slow_is_given_more_time() -> None:
    progress = watch([*[load()] * 111, load(steps=6)])
    assert progress.longest_s == 110.0
    assert limit_s(progress, STALL_S) == 220.0
    assert not is_stalled(watch([load(steps=6)] * 200, before=progress), STALL_S)
    endless = Progress(longest_s=1e9)
    assert limit_s(endless, STALL_S) == MOST_PATIENCE * STALL_S


def test_zero_is_never() -> None:
    progress = NOTHING_SEEN
    for _ in range(10_000):
        progress = progressed(progress, load(), 5.0)
        assert not is_stalled(progress, 0.0)


LOADS = st.builds(
    load,
    running=st.none() | st.integers(0, 2),
    steps=st.none() | st.integers(0, 2),
    tokens=st.none() | st.integers(0, 2),
    asleep=st.none() | st.booleans(),
)
LOOKS = st.lists(st.tuples(LOADS, st.floats(-10, 1000)), max_size=60)


@given(LOOKS)
def test_stillness_is_never_more_than_what_was_seen_of_it(looks: list[tuple[EngineLoad, float]]) -> None:
    progress, seen = NOTHING_SEEN, 0.0
    for one, elapsed_s in looks:
        before, progress = progress, progressed(progress, one, elapsed_s)
        seen += min(max(elapsed_s, 0.0), LOOK_S)
        assert 0.0 <= progress.still_s <= seen + 1e-6
        assert progress.longest_s >= before.longest_s
        if not one.running or one.asleep:
            assert progress.still_s == 0.0


@given(LOOKS, st.floats(1, 500))
def test_whatever_came_before_a_hang_is_found_in_bounded_time(
    looks: list[tuple[EngineLoad, float]], stall_s: float
) -> None:
    progress = NOTHING_SEEN
    for one, elapsed_s in looks:
        progress = progressed(progress, one, elapsed_s)
    for _ in range(2 + int(MOST_PATIENCE * stall_s)):
        progress = progressed(progress, load(steps=99), 1.0)
    assert is_stalled(progress, stall_s)


def test_silence_is_many_failures_over_a_long_time() -> None:
    silence = ANSWERS
    for _ in range(FAILURES - 1):
        silence = heard(silence, healthy=False, elapsed_s=1000.0)
        assert not is_dead(silence, 60.0), "an agent that was stopped for hours has seen two of them"
    silence = heard(silence, healthy=False, elapsed_s=1.0)
    assert is_dead(silence, 60.0)
    assert not is_dead(silence, 0.0)
    assert heard(silence, healthy=True, elapsed_s=1.0) == ANSWERS


def test_a_rank_that_hangs_does_not_hide_behind_those_that_work() -> None:
    """Data parallelism: the sums move on with the healthy rank."""
    progress: tuple[Progress, ...] = ()
    for second in range(130):
        ranks = (load(2, second), load(1, 7), load(0, 3))
        progress = all_progressed(progress, replace(load(3, 10 + second), ranks=ranks), 1.0)
    assert [is_stalled(one, STALL_S) for one in progress] == [False, True, False]


def test_another_number_of_ranks_begins_anew() -> None:
    progress = (Progress(busy=True, counters=(5, 0, 0), still_s=100.0),)
    assert all_progressed(progress, replace(load(), ranks=(load(), load())), 1.0)[0].still_s == 0.0
