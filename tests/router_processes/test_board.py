"""Memory that processes share: each sees what the others tell."""

import time

from hypothesis import given
from hypothesis import strategies as st

from supervisord_cp.core.routing.rate import RateLimiter
from supervisord_cp.router.board import Board, Column
from supervisord_cp.router.shared_rate import SharedRate
from supervisord_cp.router.turns import Turns


def columns(number: int) -> list[Column]:
    board = Board.make()
    made = [Column(board, n) for n in range(number)]
    for column in made:
        column.beat(time.monotonic_ns())
    see(made)
    return made


def see(those: list[Column]) -> None:
    for column in those:
        column.others.look()


def test_counts_of_others_are_seen_by_name() -> None:
    one, two, three = all_of_them = columns(3)
    rows = {column: {name: column.row(name) for name in names} for column, names in (
        (one, ("a", "b")), (two, ("b", "a")), (three, ("b",)),
    )}  # fmt: skip
    see(all_of_them)
    for number, column in enumerate(all_of_them, start=1):
        for row in rows[column].values():
            assert row is not None
            row.tell(number)
            row.tell_bytes(number * 100)
    a, b = rows[one]["a"], rows[one]["b"]
    assert a is not None and b is not None
    assert (a.elsewhere(), b.elsewhere()) == (2, 5)
    assert (a.elsewhere_bytes(), b.elsewhere_bytes()) == (200, 500)
    two.drop("a")
    two.row("c")  # takes its place
    see(all_of_them)
    assert a.elsewhere() == 0


def test_a_process_that_has_ended_has_nothing() -> None:
    board = Board.make()
    one, two = Column(board, 0), Column(board, 1)
    two.beat(1)
    mine, other = one.row("a"), two.row("a")
    assert mine is not None and other is not None
    other.tell(7)
    one.others.look()
    assert mine.elsewhere() == 7
    board.clear(1)
    one.others.look()
    assert mine.elsewhere() == 0
    assert not one.others.any


def test_connections_are_compared_with_the_fewest() -> None:
    one, two, three = columns(3)
    assert one.connections(4) == 0, "the others take none yet"
    assert two.connections(1) == -3
    assert three.connections(9) == 8
    two.take_none()
    assert three.connections(9) == 5


def test_lines_take_turns_by_the_keys_that_wait() -> None:
    woken: list[int] = []
    one, two = both = columns(2)
    mine, other = one.row("line"), two.row("line")
    see(both)
    assert mine is not None and other is not None
    turns = Turns(woken.append)
    mine.tell(100)
    mine.turn = 50.0
    turns.joined(other)
    other.tell(100)
    assert other.turn == 50.0, "no claim to what was served before it came"
    sent = {1: 0, 2: 0}
    for _ in range(40):
        if not turns.passes(mine):
            turns.served(mine, keys=3)
            sent[1] += 1
        else:
            assert woken.pop() == 2
            turns.served(other, keys=1)
            sent[2] += 1
    assert sent == {1: 30, 2: 10}


def test_room_that_nobody_here_needs_is_told() -> None:
    woken: list[int] = []
    one, two = both = columns(2)
    mine, other = one.row("line"), two.row("line")
    see(both)
    assert mine is not None and other is not None
    turns = Turns(woken.append)
    turns.freed(mine)
    assert not turns.others_wait(mine)
    other.tell(1)
    turns.freed(mine)
    assert turns.others_wait(mine)
    assert woken == [2]


@given(
    st.sampled_from([0.5, 1.0, 2.0, 8.0]),
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from([0.0, 0.125, 0.25, 1.0])), max_size=40),
)
def test_the_shared_limit_is_the_limit_of_one_process(rate: float, calls: list[tuple[str, float]]) -> None:
    shared, alone = SharedRate(Board.make(), rate), RateLimiter(rate)
    now = 100.0
    for client, pause in calls:
        now += pause
        assert bool(shared.take(client, now)) == bool(alone.take(client, now))
