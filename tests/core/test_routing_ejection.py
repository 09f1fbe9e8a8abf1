"""Who is out of rotation and how it comes back; who is too slow; what a new instance gets."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisord_cp.core.routing.ejection import (
    CALM_S,
    FIRST_PROBE_S,
    MOST_HOLD_S,
    PROBE_EVERY_S,
    TRIALS,
    Cause,
    Ejections,
    hold_s,
    may_eject,
)
from supervisord_cp.core.routing.leases import Account, Ledger
from supervisord_cp.core.routing.outliers import LEAST_SAMPLES, is_slow, peers_median, slowest
from supervisord_cp.core.routing.rotation import Rotation
from supervisord_cp.core.routing.vitals import MOST, WINDOW_S, Measure, Vitals
from supervisord_cp.core.routing.warmup import LEAST_SHARE, most_at_once, share
from supervisord_cp.model.base import Incarnation
from tests.core.test_routing_lanes import routed

ONE, TWO = Incarnation("a.1"), Incarnation("b.1")


# --- out and in


def test_what_lost_its_connection_is_asked_soon_and_then_every_second() -> None:
    out = Ejections()
    assert out.eject(ONE, 100.0)
    assert not out.eject(ONE, 100.0)
    assert ONE in out
    assert out.due(100.0) == []
    assert out.due(100.0 + FIRST_PROBE_S) == [ONE]
    assert out.due(100.2) == []
    assert out.due(100.0 + FIRST_PROBE_S + PROBE_EVERY_S) == [ONE]


@pytest.mark.parametrize("cause", Cause)
def test_the_way_back_goes_through_trials(cause: Cause) -> None:
    out = Ejections(first_hold_s=10.0)
    out.eject(ONE, 0.0, cause, "why")
    assert not out.passed(ONE, 1.0)  # it was not on trial: an old request has ended well
    assert not out.try_out(ONE, 0.0)  # too soon
    assert out.try_out(ONE, 20.0)
    assert not out.try_out(ONE, 20.0)
    assert out.due(1000.0) == []  # requests show how it is, nobody asks
    for left in range(TRIALS[cause] - 1, -1, -1):
        assert ONE in out
        assert out.passed(ONE, 30.0) is (left == 0)
    assert ONE not in out
    assert not out.passed(ONE, 30.0)


def test_each_time_in_a_row_it_stays_out_for_longer() -> None:
    out = Ejections(first_hold_s=10.0)
    now, holds = 0.0, []
    for _ in range(8):
        assert out.eject(ONE, now, Cause.FAILURES)
        ejected = out.get(ONE)
        assert ejected is not None
        holds.append(ejected.until - now)
        now = ejected.until
        assert out.try_out(ONE, now)  # and its trial fails
    assert holds == [10, 20, 40, 80, 160, 300, 300, 300]


def test_a_record_is_clean_after_a_calm_time() -> None:
    for rest, times in ((CALM_S - 1, 2), (CALM_S, 1)):
        out = Ejections()
        out.eject(ONE, 0.0)
        out.try_out(ONE, 1.0)
        assert out.passed(ONE, 1.0)
        out.eject(ONE, 1.0 + rest)
        ejected = out.get(ONE)
        assert ejected is not None
        assert ejected.times == times


def test_who_has_been_taken_for_bad_before_is_known() -> None:
    out = Ejections()
    out.eject(ONE, 0.0)
    assert not out.revived(ONE)
    out.try_out(ONE, 1.0)
    assert out.revived(ONE)
    out.passed(ONE, 1.0)
    assert out.revived(ONE)
    out.eject(TWO, 0.0)
    out.keep({ONE})
    assert out.incarnations == ()
    assert out.revived(ONE)
    out.keep(set())
    assert not out.revived(ONE)


@given(cause=st.sampled_from(Cause), times=st.integers(1, 10_000), first=st.floats(0.1, 300))
def test_a_hold_is_bounded_and_never_gets_shorter(cause: Cause, times: int, first: float) -> None:
    assert 0 < hold_s(cause, times, first) <= hold_s(cause, times + 1, first) <= MOST_HOLD_S


@given(routable=st.integers(0, 50))
def test_on_suspicion_never_more_than_half_is_out(routable: int) -> None:
    for cause in (Cause.FAILURES, Cause.LATENCY):
        out = 0
        while may_eject(cause, routable, out):
            out += 1
        assert out == routable // 2
    assert may_eject(Cause.CONNECTION, routable, routable)


# --- who is slow


def slow(samples: dict[str, Sequence[float]], factor: float = 4.0) -> set[str]:
    return set(slowest({Incarnation(n): s for n, s in samples.items()}, Measure.FIRST_TOKEN, factor))


USUAL = [0.4, 0.5, 0.6, 0.5] * 5
SLOW = [4.0, 5.0, 6.0, 5.0] * 5


@pytest.mark.parametrize(
    ("samples", "found"),
    [
        ({"a": USUAL, "b": USUAL, "c": SLOW}, {"c"}),
        ({"a": USUAL, "b": SLOW}, {"b"}),
        ({"a": SLOW, "b": SLOW, "c": SLOW}, set()),
        ({"a": SLOW}, set()),
        ({}, set()),
        ({"a": USUAL, "b": USUAL, "c": SLOW[: LEAST_SAMPLES - 1]}, set()),
        ({"a": USUAL[: LEAST_SAMPLES - 1], "b": SLOW}, set()),
        # some slow answers make no slow instance: a few long prompts
        ({"a": USUAL, "b": USUAL, "c": USUAL[:12] + SLOW[:8]}, set()),
        # far above by factor, but nobody would notice
        ({"a": [0.001] * 20, "b": [0.02] * 20}, set()),
        # one peer that is slow as well does not hide it
        ({"a": USUAL, "b": USUAL, "c": SLOW, "d": SLOW, "e": USUAL}, {"c", "d"}),
    ],
)
def test_who_is_slow(samples: dict[str, Sequence[float]], found: set[str]) -> None:
    assert slow(samples) == found
    assert slow(samples, 0.0) == set()


TIMES = st.lists(st.floats(0.001, 100), min_size=LEAST_SAMPLES, max_size=LEAST_SAMPLES)


@given(st.dictionaries(st.sampled_from("abcdef"), TIMES, min_size=2))
def test_the_fastest_is_never_slow(samples: dict[str, list[float]]) -> None:
    fastest = min(samples, key=lambda name: sorted(samples[name])[LEAST_SAMPLES // 2])
    assert fastest not in slow(samples)


@given(TIMES, st.integers(2, 6))
def test_equals_are_never_slow(times: list[float], count: int) -> None:
    assert slow({str(n): times for n in range(count)}) == set()


@given(st.dictionaries(st.sampled_from("abcdefgh"), TIMES, min_size=2))
def test_everyone_is_compared_with_all_others(samples: dict[str, list[float]]) -> None:
    named = {Incarnation(name): times for name, times in samples.items()}
    for name, slow_one in slowest(named, Measure.FIRST_TOKEN, 1.5).items():
        assert slow_one.peers_s == pytest.approx(peers_median(named, name))
    for name, times in named.items():
        peers = peers_median(named, name)
        assert peers is not None
        quartile = sorted(times)[len(times) // 4]
        assert (name in slow(samples, 1.5)) is is_slow(quartile, peers, Measure.FIRST_TOKEN, 1.5)


def test_samples_are_bounded_and_grow_old() -> None:
    vitals = Vitals()
    for number in range(10 * MOST):
        vitals.note(Measure.TOKEN, float(number), 1.0)
    end = 10.0 * MOST
    assert len(vitals.samples(Measure.TOKEN, end)) == MOST
    assert vitals.samples(Measure.FIRST_TOKEN, end) == []
    assert len(vitals.samples(Measure.TOKEN, end - 1 + WINDOW_S)) == 1
    assert vitals.samples(Measure.TOKEN, end + WINDOW_S) == []
    assert vitals.latest(Measure.TOKEN) == 1.0
    vitals.forget()
    assert vitals.latest(Measure.TOKEN) is None


# --- new ones


@given(st.floats(0, 1000), st.floats(0, 1000), st.floats(0.001, 600))
def test_a_share_grows_with_age_up_to_all_of_it(age: float, older: float, warmup: float) -> None:
    assert LEAST_SHARE <= share(age, warmup) <= share(age + older, warmup) <= 1.0
    assert share(warmup, warmup) == 1.0


@pytest.mark.parametrize(
    ("portion", "weight", "inflight", "weights", "most"),
    [(0.1, 1.0, 0, 2.0, 1), (0.5, 1.0, 40, 2.0, 10), (0.5, 2.0, 40, 2.0, 20), (1.0, 1.0, 0, 0.0, 1)],
)
def test_a_new_one_has_its_share_of_what_the_others_have(
    portion: float, weight: float, inflight: int, weights: float, most: int
) -> None:
    assert most_at_once(portion, weight, inflight, weights) == most


def accounts(count: int) -> list[Account]:
    ledger = Ledger()
    ledger.sync((routed(number), 0) for number in range(count))
    return list(ledger.accounts())


def names(found: Sequence[Account]) -> list[str]:
    return [account.instance.id for account in found]


def test_what_is_there_when_we_come_is_not_new() -> None:
    rotation = Rotation(30.0)
    rotation.refresh(accounts(3), Ejections(), 100.0)
    assert len(rotation.offered(100.0)) == 3
    assert rotation.shares(100.0) == {}


def test_a_new_instance_gets_more_and_more() -> None:
    old, *new = accounts(2)
    rotation = Rotation(30.0)
    rotation.refresh([old], Ejections(), 0.0)
    rotation.refresh([old, *new], Ejections(), 100.0)
    for _ in range(20):
        old.open(1, 1)

    def fills(now: float) -> int:
        while new[0] in rotation.offered(now):
            new[0].open(1, 1)
        return new[0].inflight

    assert fills(100.0) == 2
    assert rotation.shares(103.0) == {"d-1": 0.1}
    assert fills(115.0) == 10
    assert fills(129.0) == 19
    assert names(rotation.offered(130.0)) == ["d-0", "d-1"]
    assert rotation.shares(130.0) == {}


def test_new_ones_without_old_ones_get_all() -> None:
    rotation = Rotation(30.0)
    rotation.refresh([], Ejections(), 0.0)
    new = accounts(2)
    rotation.refresh(new, Ejections(), 100.0)
    for _ in range(50):
        new[0].open(1, 1)
    assert names(rotation.offered(100.0)) == ["d-0", "d-1"]


# --- rotation and trials


def test_one_request_at_a_time_tries_an_instance() -> None:
    good, bad = accounts(2)
    out, rotation = Ejections(), Rotation(0.0)
    out.eject(bad.incarnation, 0.0)
    rotation.refresh([good, bad], out, 0.0)
    assert names(rotation.offered(0.0)) == ["d-0"]
    out.try_out(bad.incarnation, 1.0)
    old = bad.open(1, 1)  # of the time before does not count
    rotation.refresh([good, bad], out, 1.0)
    assert names(rotation.offered(1.0)) == ["d-0", "d-1"]
    assert names(rotation.offered(1.0, may_try=False)) == ["d-0"]
    trial = bad.open(1, 1)
    assert names(rotation.offered(1.0)) == ["d-0"]
    old.close()
    assert names(rotation.offered(1.0)) == ["d-0"]
    trial.close()
    assert names(rotation.offered(1.0)) == ["d-0", "d-1"]


def test_when_nobody_is_in_rotation_those_on_trial_are_all_there_is() -> None:
    (only,) = accounts(1)
    out, rotation = Ejections(), Rotation(30.0)
    out.eject(only.incarnation, 0.0)
    out.try_out(only.incarnation, 1.0)
    rotation.refresh([only], out, 1.0)
    for _ in range(5):
        assert names(rotation.offered(1.0)) == ["d-0"]
        only.open(1, 1)
