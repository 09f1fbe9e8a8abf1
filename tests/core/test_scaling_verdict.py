"""Is the new revision clearly worse? By tables, and by chance."""

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisord_cp.core.scaling.verdict import LEAST, clearly_worse, together
from supervisord_cp.model.reason import ReasonCode, render
from supervisord_cp.model.router import Outcomes


def answers(good: int, bad: int = 0) -> Outcomes:
    return Outcomes(answered=good, failed=bad)


def streams(*seconds: float, times: int = 1) -> Outcomes:
    first_token: dict[int, int] = {}
    for one in seconds:
        bucket = Outcomes.bucket_of(one)
        first_token[bucket] = first_token.get(bucket, 0) + times
    return Outcomes(answered=len(seconds) * times, first_token=first_token)


@pytest.mark.parametrize(
    ("new", "old", "worse"),
    [
        (answers(40, 60), answers(1000), True),
        (answers(90, 10), answers(1000), True),
        (answers(96, 4), answers(1000), False),  # four in a hundred are not worth it
        (answers(0, 49), answers(1000), False),  # too few to tell
        (answers(0, 50), answers(49), False),
        (answers(0, 50), answers(50), True),
        (answers(45, 5), answers(50), False),  # may be chance
        (answers(90, 10), answers(900, 100), False),  # the old one is no better
        (answers(1000), answers(500, 500), False),
        (answers(0), answers(0), False),
    ],
)
def test_errors(new: Outcomes, old: Outcomes, worse: bool) -> None:
    reason = clearly_worse(new, old)
    assert (reason is not None) is worse
    if reason is not None:
        assert reason.code is ReasonCode.MORE_ERRORS
        assert "?" not in render(reason)


@pytest.mark.parametrize(
    ("new", "old", "worse"),
    [
        (streams(0.5, times=50), streams(0.2, times=50), True),
        (streams(0.5, times=49), streams(0.2, times=50), False),
        (streams(0.5, times=50), streams(0.2, times=49), False),
        (streams(0.3, times=50), streams(0.2, times=50), False),
        (streams(0.06, times=50), streams(0.02, times=50), False),  # who would notice
        (streams(0.2, 0.2, 0.2, 9.0, times=50), streams(0.2, times=50), False),  # a few slow ones
        (streams(0.5, 0.5, 0.5, times=50), streams(0.2, 0.2, 0.9, times=50), False),  # the tail was as bad
        (streams(0.1, times=50), streams(0.5, times=50), False),
    ],
)
def test_time_to_first_token(new: Outcomes, old: Outcomes, worse: bool) -> None:
    reason = clearly_worse(new, old)
    assert (reason is not None) is worse
    if reason is not None:
        assert reason.code is ReasonCode.SLOWER
        assert reason.params == {"now": pytest.approx(0.5, rel=0.1), "before": pytest.approx(0.2, rel=0.1)}


def test_sums_over_incarnations_and_routers() -> None:
    assert together([streams(0.2, 0.3), streams(0.2), answers(1, 2)]) == Outcomes(
        answered=4, failed=2, first_token={Outcomes.bucket_of(0.2): 2, Outcomes.bucket_of(0.3): 1}
    )
    assert together([]) == Outcomes()


@given(st.floats(1e-3, 1e4))
def test_a_bucket_is_within_a_tenth(seconds: float) -> None:
    assert Outcomes.seconds(Outcomes.bucket_of(seconds)) == pytest.approx(seconds, rel=0.05)


def test_the_same_is_never_worse_by_chance() -> None:
    """Looked at after each answer, the way central does, over two hundred roll-outs of an equal revision."""
    random, back = Random(7), 0
    for _ in range(200):
        parts = [[0, 0, {}], [0, 0, {}]]
        for _ in range(400):
            part = parts[random.random() < 0.5]
            part[random.random() < 0.1] += 1  # type: ignore[operator]
            bucket = Outcomes.bucket_of(math.exp(random.gauss(-1.0, 0.8)))
            part[2][bucket] = part[2].get(bucket, 0) + 1  # type: ignore[index,attr-defined]
            new, old = (Outcomes(answered=a, failed=f, first_token=t) for a, f, t in parts)  # type: ignore[arg-type]
            if new.total % 10 == 0 and min(new.total, old.total) >= LEAST and clearly_worse(new, old):
                back += 1
                break
    assert back <= 2
