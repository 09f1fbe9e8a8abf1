"""Waiting lines, retries, rate limits: bounded, and never off by one."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisord_cp.core.routing.queue import WaitingLine
from supervisord_cp.core.routing.rate import MOST_CLIENTS, RateLimiter
from supervisord_cp.core.routing.retry import (
    FLOOR_PER_S,
    MAX_LOSSES,
    MAX_REFUSALS,
    MOST_SAVED,
    RATIO,
    Miss,
    RetryBudget,
    may_retry,
)


@dataclass(eq=False)
class Item:
    body_bytes: int = 1
    prompt_tokens: int = 1
    tokens: int = 1
    key: str = ""


@given(
    st.lists(
        st.tuples(st.sampled_from(["add", "front", "remove"]), st.integers(0, 9), st.integers(0, 50)),
        max_size=60,
    )
)
def test_a_line_keeps_its_order_and_its_sums(steps: list[tuple[str, int, int]]) -> None:
    line: WaitingLine[Item] = WaitingLine(most=5, most_bytes=100)
    expected: list[Item] = []
    items = [Item(0, n) for n in range(10)]
    for what, which, size in steps:
        item = items[which]
        if what == "remove":
            assert line.remove(item) is (item in expected)
            expected = [other for other in expected if other is not item]
        elif item not in expected:
            item.body_bytes = size
            room = not expected or (len(expected) < 5 and sum(i.body_bytes for i in expected) + size <= 100)
            assert line.fits(item) is room
            if room or what == "front":
                line.add(item, front=what == "front")
                expected = [item, *expected] if what == "front" else [*expected, item]
        assert list(line) == expected
        assert line.first() is (expected[0] if expected else None)
        assert (line.bytes, line.tokens) == (
            sum(i.body_bytes for i in expected),
            sum(i.prompt_tokens for i in expected),
        )


def test_nobody_stands_in_line_twice() -> None:
    line: WaitingLine[Item] = WaitingLine(most=5, most_bytes=100)
    item = Item()
    line.add(item)
    with pytest.raises(ValueError, match="waits already"):
        line.add(item)


@given(st.lists(st.integers(0, 5), max_size=30), st.integers(0, 3))
def test_a_position_is_how_many_go_before(ranks: list[int], returned: int) -> None:
    line: WaitingLine[Item] = WaitingLine(most=100, most_bytes=10_000)
    items = [Item() for _ in ranks]
    for item, rank in zip(items, ranks, strict=True):
        line.add(item, rank)
    again = [Item() for _ in range(returned)]
    for item in again:
        line.add(item, front=True)
    positions = {id(item): line.position(item) for item in (*items, *again)}
    for position in range(1, len(line) + 1):
        first = line.first()
        assert first is not None
        assert positions[id(first)] == position
        line.serve(first)


def test_no_line_at_all() -> None:
    assert not WaitingLine(most=0, most_bytes=100).fits(Item())


def test_one_body_of_any_size_may_wait() -> None:
    line: WaitingLine[Item] = WaitingLine(most=5, most_bytes=100)
    assert line.fits(Item(1000))


def verdict(miss: Miss, **more: object) -> bool:
    given_: dict[str, object] = {
        "losses": 0,
        "refusals": 0,
        "died": True,
        "work": 400,
        "budget": RetryBudget(0.0),
        "now": 0.0,
    }
    return may_retry(miss, **(given_ | more))  # type: ignore[arg-type]


def test_what_the_engine_has_not_seen_is_always_sent_again() -> None:
    assert verdict(Miss.UNREACHABLE, losses=9, refusals=9, died=False)
    assert verdict(Miss.STALE, losses=9, refusals=9, died=False)


def test_a_request_that_breaks_connections_is_given_up() -> None:
    assert verdict(Miss.LOST, losses=MAX_LOSSES - 1)
    assert not verdict(Miss.LOST, losses=MAX_LOSSES)


def test_a_refused_request_is_tried_a_few_times() -> None:
    assert verdict(Miss.FULL, refusals=MAX_REFUSALS - 1)
    assert not verdict(Miss.FULL, refusals=MAX_REFUSALS)


def test_losses_on_the_living_take_from_the_budget_and_deaths_do_not() -> None:
    budget = RetryBudget(0.0)
    deaths = [verdict(Miss.LOST, losses=1, budget=budget) for _ in range(1000)]
    assert all(deaths)
    living = [verdict(Miss.LOST, losses=1, died=False, budget=budget, work=400) for _ in range(1000)]
    assert sum(living) == FLOOR_PER_S / 400


def test_what_is_large_costs_more() -> None:
    budget = RetryBudget(0.0)
    assert budget.spend(30_000, 0.0)  # the last one may overdraw
    assert not budget.spend(1, 0.0)
    assert not budget.spend(1, 6.0)
    assert budget.spend(1, 7.0)
    assert RetryBudget(0.0).spend(10**9, 0.0)  # nothing is too large to be sent again at all


@given(requests=st.integers(0, 200), work=st.integers(1, 5000), seconds=st.floats(0, 100))
def test_the_budget_is_a_share_of_the_work_and_some_a_second(
    requests: int, work: int, seconds: float
) -> None:
    budget = RetryBudget(0.0)
    for _ in range(requests):
        budget.earn(work)
    spent = 0
    while budget.spend(100, seconds):
        spent += 100
    earned = FLOOR_PER_S + RATIO * work * requests
    most = min(MOST_SAVED, min(MOST_SAVED + RATIO * work, earned) + FLOOR_PER_S * seconds)
    assert most - 1 <= spent <= most + 101


def test_the_rate_limit_holds_over_any_second() -> None:
    limiter = RateLimiter(5.0)
    passed = [at for at in (n / 100 for n in range(300)) if not limiter.take("x", at)]
    for start in passed:
        assert sum(start <= at < start + 1.0 for at in passed) <= 5 + 5
    assert 5 + 2 * 5 - 1 <= len(passed) <= 5 + 3 * 5
    assert limiter.take("y", 0.0) == 0
    assert RateLimiter(0.1).take("z", 0.0) == 0


def test_a_refused_client_is_told_when() -> None:
    limiter = RateLimiter(0.1)
    assert limiter.take("x", 0.0) == 0
    assert limiter.take("x", 0.0) == 10
    assert limiter.take("x", 4.0) == 6
    assert limiter.take("x", 10.0) == 0
    assert all(RateLimiter(0.0).take("x", 0.0) == 0 for _ in range(10))


def test_clients_are_forgotten_before_they_are_too_many() -> None:
    limiter = RateLimiter(1.0)
    for number in range(MOST_CLIENTS + 10):
        limiter.take(str(number), 0.0)
    assert len(limiter._buckets) == MOST_CLIENTS
