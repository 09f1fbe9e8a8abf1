"""The waiting line: ranks within a key, turns between keys, in tokens."""

from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from supervisord_cp.core.routing.fair_share import QUANTUM, FairShare
from supervisord_cp.core.routing.queue import WaitingLine
from supervisord_cp.model.request import RoutingRequest
from supervisord_cp.policy.scheduling import WaitingRequest
from supervisord_cp.policy.testing import request, waiting


@dataclass(eq=False)
class Item:
    tokens: int = 100
    key: str = ""
    body_bytes: int = 1
    request: RoutingRequest = field(default_factory=request)
    waiting: WaitingRequest = field(default_factory=waiting)

    @property
    def prompt_tokens(self) -> int:
        return self.tokens // 2


def line(*items: tuple[Item, float]) -> WaitingLine[Item]:
    made: WaitingLine[Item] = WaitingLine(most=1000, most_bytes=10**9)
    for item, rank in items:
        made.add(item, rank)
    return made


def leave(made: WaitingLine[Item], most: int = 10**6) -> list[Item]:
    """Serve from the front."""
    out = []
    while len(out) < most and (item := made.first()) is not None:
        assert made.first() is item, "the answer is the same while nothing is served"
        made.serve(item)
        out.append(item)
    return out


@given(st.lists(st.integers(-3, 3), max_size=30))
def test_ranks_decide_and_equals_go_in_the_order_of_arrival(ranks: list[int]) -> None:
    items = [(Item(), float(rank)) for rank in ranks]
    expected = [item for item, _ in sorted(items, key=lambda pair: pair[1])]
    made = line(*items)
    assert leave(made) == expected
    assert (len(made), made.bytes, made.tokens) == (0, 0, 0)


def test_what_comes_back_goes_first() -> None:
    first, second, back = Item(), Item(), Item()
    made = line((first, -5.0), (second, -9.0))
    made.add(back, front=True)
    assert leave(made) == [back, second, first]


def test_a_rank_below_all_ranks_goes_first() -> None:
    item = Item()
    assert line((Item(), -1e300), (item, float("-inf"))).first() is item


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5)), max_size=30), st.randoms())
def test_a_new_order_loses_nobody(items: list[tuple[int, int]], chance: object) -> None:
    pairs = [(Item(key=str(key)), float(rank)) for key, rank in items]
    made = line(*pairs)
    new = {id(item): float(chance.randrange(5)) for item, _ in pairs}  # type: ignore[attr-defined]
    made.rerank(lambda item: new[id(item)])
    out = leave(made)
    assert sorted(map(id, out)) == sorted(id(item) for item, _ in pairs)
    for key in {item.key for item in out}:
        ranks = [new[id(item)] for item in out if item.key == key]
        assert ranks == sorted(ranks)


def test_how_many_go_before() -> None:
    made = line(*((Item(key="a"), float(n)) for n in range(5)), *((Item(key="b"), 0.0) for _ in range(2)))
    assert made.ahead("a", 2.5) == 3 + 2
    assert made.ahead("a", -1.0) == 0 + 1
    assert made.ahead("c", 0.0) == 0 + 1 + 1
    made.add(Item(), front=True)
    assert made.ahead("a", 9.0) == 1 + 5 + 2


def test_the_next_ones_are_each_keys_first_then_each_keys_second() -> None:
    a, b = [Item(key="a") for _ in range(3)], [Item(key="b") for _ in range(2)]
    made = line(*((item, 0.0) for item in (*a, *b)))
    assert list(made.next_ones(2)) == [a[0], b[0], a[1], b[1]]
    back = Item()
    made.add(back, front=True)
    assert list(made.next_ones(1)) == [back, a[0], b[0]]


# --- fair share


@given(st.lists(st.lists(st.integers(1, 20_000), min_size=1, max_size=40), min_size=2, max_size=4))
@settings(max_examples=60)
def test_keys_that_wait_are_served_alike(costs: list[list[int]]) -> None:
    """While two keys wait without a break, what they were served differs by a bounded amount."""
    made = line(
        *((Item(tokens=cost, key=str(key)), 0.0) for key, line_ in enumerate(costs) for cost in line_)
    )
    left = {str(key): len(line_) for key, line_ in enumerate(costs)}
    largest = {str(key): max(line_) for key, line_ in enumerate(costs)}
    served: Counter[str] = Counter()
    while all(left.values()):
        (item,) = leave(made, 1)
        served[item.key] += item.tokens
        left[item.key] -= 1
        if not left[item.key]:
            break
        for one in left:
            for other in left:
                bound = QUANTUM + largest[one] + largest[other]
                assert served[one] - served[other] <= bound


def test_one_key_with_much_does_not_hold_up_another() -> None:
    heavy = [(Item(tokens=1000, key="heavy"), 0.0) for _ in range(200)]
    light = [(Item(tokens=1000, key="light"), 0.0) for _ in range(5)]
    out = leave(line(*heavy, *light))
    assert max(n for n, item in enumerate(out) if item.key == "light") < 15


def test_many_small_ones_go_while_a_large_one_saves_up() -> None:
    large = [(Item(tokens=50 * int(QUANTUM), key="large"), 0.0)] * 1
    small = [(Item(tokens=int(QUANTUM) // 4, key="small"), 0.0) for _ in range(400)]
    out = leave(line(*large, *small))
    place = next(n for n, item in enumerate(out) if item.key == "large")
    assert place == pytest.approx(200, abs=8)


def test_debts_end_with_the_line() -> None:
    share = FairShare()
    share.join("a")
    share.charge("a", 1e9)
    share.leave("a")
    share.charge("a", 1e9)
    share.join("a")
    share.join("b")
    assert share.turn(lambda key: 1.0) == "a"


class LineMachine(RuleBasedStateMachine):
    """Whatever comes and goes, the line has exactly those who wait, each key's in order."""

    def __init__(self) -> None:
        super().__init__()
        self.line: WaitingLine[Item] = WaitingLine(most=10**6, most_bytes=10**9)
        self.ranks: dict[Item, float] = {}

    @rule(key=st.sampled_from("abc"), rank=st.integers(0, 5), tokens=st.integers(0, 5000))
    def come(self, key: str, rank: int, tokens: int) -> None:
        item = Item(tokens=tokens, key=key)
        self.line.add(item, float(rank))
        self.ranks[item] = float(rank)

    @rule(tokens=st.integers(0, 5000))
    def come_back(self, tokens: int) -> None:
        item = Item(tokens=tokens)
        self.line.add(item, front=True)
        self.ranks[item] = float("-inf")

    @rule(data=st.data())
    def go_away(self, data: st.DataObject) -> None:
        if self.ranks:
            item = data.draw(st.sampled_from(list(self.ranks)))
            assert self.line.remove(item)
            assert not self.line.remove(item)
            del self.ranks[item]

    @rule()
    def be_served(self) -> None:
        item = self.line.first()
        assert (item is None) is (not self.ranks)
        if item is not None:
            same_key = [rank for other, rank in self.ranks.items() if other.key == item.key]
            assert self.ranks[item] == min(same_key)
            self.line.serve(item)
            del self.ranks[item]

    @invariant()
    def sums_are_right(self) -> None:
        assert len(self.line) == len(self.ranks)
        assert set(self.line) == set(self.ranks)
        assert all(item in self.line for item in self.ranks)
        assert self.line.tokens == sum(item.prompt_tokens for item in self.ranks)
        assert self.line.bytes == len(self.ranks)


TestLine = LineMachine.TestCase
