"""Starts: what is learned from them, when they will be ready, and which of them are frozen."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisord_cp.core.instances.startup import (
    FROZEN_S,
    KEPT,
    LOOK_S,
    MOVING_BYTES,
    PHASES,
    Movement,
    Start,
    StartHistory,
    Work,
    eta_s,
    is_frozen,
    looked,
    movement,
    remembered,
    usual_s,
)
from supervisord_cp.model.instance import Phase

TOOK = {Phase.SPAWNED: 10.0, Phase.LOADING: 100.0, Phase.WARMING: 20.0}


def history(*starts: dict[Phase, float], model: str = "m") -> StartHistory:
    found = StartHistory()
    for start in starts:
        found = remembered(found, model, start)
    return found


def test_the_usual_time_of_a_phase_is_the_median() -> None:
    known = history(*({Phase.LOADING: seconds} for seconds in (900.0, 60.0, 62.0, 61.0)))
    assert usual_s(known, Phase.LOADING) == 61.5
    assert usual_s(known, Phase.COMPILING) == 0.0
    assert usual_s(StartHistory(), Phase.LOADING) is None


def test_another_model_begins_anew_and_old_starts_are_forgotten() -> None:
    known = history(*[TOOK] * (KEPT + 5))
    assert len(known.starts) == KEPT
    assert remembered(known, "other", TOOK) == history(TOOK, model="other")


@pytest.mark.parametrize(
    ("phase", "seconds", "eta"),
    [
        (Phase.SPAWNED, 0.0, 130.0),
        (Phase.SPAWNED, 4.0, 126.0),
        (Phase.SPAWNED, 50.0, 120.0),  # later than usual: what is left is left
        (Phase.LOADING, 30.0, 90.0),
        (Phase.COMPILING, 3.0, 20.0),
        (Phase.WARMING, 5.0, 15.0),
        (Phase.WARMING, 500.0, 0.0),
    ],
)
def test_eta(phase: Phase, seconds: float, eta: float) -> None:
    assert eta_s(history(TOOK), Start(phase=phase, seconds={phase: seconds})) == eta


def test_without_a_history_there_is_no_eta_and_no_verdict() -> None:
    assert eta_s(StartHistory(), Start()) is None
    assert not is_frozen(StartHistory(), Start(still_s=1e6), 600.0)


MIB = 2**20


@pytest.mark.parametrize(
    ("work", "logged", "moved"),
    [
        (Work(), False, Movement(io=False, other=False)),
        (Work(io_bytes=MOVING_BYTES - 1, cpu_s=0.05), False, Movement(io=False, other=False)),  # polls
        (Work(io_bytes=MIB), False, Movement(io=True, other=False)),
        (Work(cpu_s=1.9), False, Movement(io=False, other=True)),
        (Work(), True, Movement(io=False, other=True)),
        (Work(cpu_s=-5.0), False, Movement(io=False, other=True)),  # a process ended
    ],
)
def test_movement(work: Work, logged: bool, moved: Movement) -> None:
    before = Work(io_bytes=7 * MIB, cpu_s=50.0)
    after = Work(io_bytes=before.io_bytes + work.io_bytes, cpu_s=before.cpu_s + work.cpu_s)
    assert movement(before, after, logged=logged, elapsed_s=2.0) == moved


@pytest.mark.parametrize(
    ("usual", "start_timeout_s", "limit"),
    [(1.0, 1800.0, FROZEN_S), (100.0, 1800.0, 300.0), (100.0, 60.0, 60.0)],
)
def test_frozen_is_long_after_what_is_usual(usual: float, start_timeout_s: float, limit: float) -> None:
    known = history({Phase.LOADING: usual})
    for still_s, frozen in ((limit - 1.0, False), (limit, True)):
        start = Start(phase=Phase.LOADING, still_s=still_s)
        assert is_frozen(known, start, start_timeout_s) is frozen


def test_a_slow_load_that_moves_is_never_frozen() -> None:
    start = Start(phase=Phase.LOADING)
    for number in range(5000):
        start = looked(start, Phase.LOADING, 2.0, moved=number % 20 == 0)
        assert not is_frozen(history({Phase.LOADING: 5.0}), start, 1800.0)
    assert start.seconds[Phase.LOADING] == 10_000.0


LOOKS = st.lists(st.tuples(st.sampled_from(PHASES), st.floats(-5, 5000), st.booleans()), max_size=50)


@given(LOOKS)
def test_only_time_that_was_looked_at_is_stillness(looks: list[tuple[Phase, float, bool]]) -> None:
    start, seen = Start(), 0.0
    for phase, elapsed_s, moved in looks:
        start = looked(start, phase, elapsed_s, moved=moved)
        seen += min(max(elapsed_s, 0.0), LOOK_S)
        assert 0.0 <= start.still_s <= seen + 1e-6
        if moved:
            assert start.still_s == 0.0
    assert sum(start.seconds.values()) == pytest.approx(sum(max(0.0, one[1]) for one in looks))


@given(LOOKS, st.lists(st.dictionaries(st.sampled_from(PHASES), st.floats(0, 5000)), min_size=1, max_size=12))
def test_an_eta_is_never_negative_and_shrinks_as_time_passes(
    looks: list[tuple[Phase, float, bool]], starts: list[dict[Phase, float]]
) -> None:
    known, start = history(*starts), Start()
    for phase, elapsed_s, moved in looks:
        start = looked(start, phase, elapsed_s, moved=moved)
    before = eta_s(known, start)
    after = eta_s(known, looked(start, start.phase, 10.0, moved=True))
    assert before is not None
    assert after is not None
    assert 0.0 <= after <= before
