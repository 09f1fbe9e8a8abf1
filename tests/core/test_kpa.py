"""Conformance with Knative's pod autoscaler: windows, panic, rates, zero."""

import math

import pytest
from msgspec.structs import replace

from supervisord_cp.builtin.scalers.kpa import Activity, KpaMemory, KpaParams, kpa, scale, target_of, to_zero
from supervisord_cp.builtin.scalers.kpa_window import Window, average, bridged, put
from supervisord_cp.core.scaling.scalers import ask
from supervisord_cp.errors import UsageError
from supervisord_cp.model.reason import ReasonCode, render
from supervisord_cp.model.scaling import ScaleView
from supervisord_cp.model.signal import Signal
from tests.core.scaling_kit import START, at, demand, scaler, signal, view

WINDOW = [
    # (bucket, value) written, asked at, size, average
    ((), 0, 5, None),
    (((0, 5),), 0, 5, 5),
    (((0, 5), (1, 7)), 1, 5, 6),  # a young window is divided by what has passed
    (((0, 4), (4, 6)), 4, 5, 2),  # a gap is 0
    (((0, 4), (3, 6)), 3, 5, 2.5),
    (((0, 4), (5, 6)), 5, 5, 6),  # silence for a whole window starts anew
    (((0, 4), (4, 6), (5, 5)), 5, 5, 2.2),  # the oldest has fallen out
    (((0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 6), (6, 7)), 6, 5, 5),
    (((0, 6), (1, 6)), 3, 5, 6),  # what is not reported yet makes the divisor smaller
    (((0, 9), (1, 1), (2, 1), (3, 1), (4, 3)), 5, 5, 1.5),
    (((0, 9), (1, 1), (2, 1), (3, 1), (4, 3)), 8, 5, 3),
    (((0, 9), (1, 1), (2, 1), (3, 1), (4, 3)), 9, 5, None),
    (((0, 4), (1, 6)), 0, 5, 5),  # asked about a moment before the last value
    (((3, 4), (1, 6)), 3, 5, 10 / 3),  # a late value gets into its bucket, and the window is older
    (((9, 4), (4, 6)), 9, 5, 4),  # unless it is older than the window
    (((0, 4), (0, 9)), 0, 5, 9),  # the newest total of a bucket counts
    (((0, 1), (1, 1), (2, 0)), 2, 5, 0.666666),  # six digits, cut off
    (((0, 8), (1, 2)), 1, 1, 2),
    (((0, 8), (7, 2)), 7, 5, 2),
    (((0, 8), (3, 2)), 3, 3, 2),  # a narrow window sees silence where a wide one does not
    (((0, 8), (2, 2)), 2, 3, 10 / 3),
]


@pytest.mark.parametrize(("written", "bucket", "size", "mean"), WINDOW)
def test_windows(written: tuple, bucket: int, size: int, mean: float | None) -> None:
    window = Window()
    for where, value in written:
        window = put(window, where, value, size)
    got = average(window, bucket, size)
    assert got == (None if mean is None else pytest.approx(mean, abs=2e-6))


def test_one_row_of_buckets_serves_both_windows() -> None:
    """What the narrow window answers does not depend on how much the wide one keeps."""
    written = [(0, 8.0), (1, 3.0), (9, 5.0), (10, 1.0), (11, 4.0), (17, 2.0), (18, 6.0)]
    wide, narrow = Window(), Window()
    for where, value in written:
        wide, narrow = put(wide, where, value, 60), put(narrow, where, value, 6)
        for later in range(8):
            assert average(wide, where + later, 6) == average(narrow, where + later, 6)


def test_a_window_keeps_no_more_than_its_buckets() -> None:
    window = Window()
    for where in range(1000):
        window = put(window, where, 1.0, 60)
    assert len(window.buckets) == 60
    assert average(window, 999, 60) == 1.0


def test_buckets_that_nobody_measured_are_no_zeros() -> None:
    window = put(Window(), 0, 4.0, 10)
    assert average(put(bridged(window, 3, 10.0, 10), 3, 10.0, 10), 3, 10) == 8.5  # 4 10 10 10
    assert average(put(bridged(window, 3, 1.0, 10), 3, 1.0, 10), 3, 10) == 3.25  # 4 4 4 1
    assert bridged(window, 10, 1.0, 10) == window  # a whole window of silence is not bridged
    assert bridged(Window(), 10, 1.0, 10) == Window()


# Rates of 10 and a threshold of 200 %, unless a row says more.
CALM = {"max_scale_up_rate": 10.0, "max_scale_down_rate": 10.0}

STABLE = [
    # stable, panic, target, ready, parameters, wanted, panics
    (50, 10, 10, 1, {}, 5, False),
    (100, 10, 10, 1, {}, 10, False),
    (51, 10, 10, 1, {}, 6, False),
    (0, 0, 10, 1, {}, 0, False),
    (0, 0, 10, 0, {}, 0, False),
    (1, 0, 10, 1, {}, 1, False),
    (1, 0, 10, 0, {}, 1, False),
    (100, 100, 10, 8, {}, 10, False),
    (50, 50, 10, 8, {}, 5, False),
    (1000, 10, 10, 1, {}, 10, False),  # at most ten times as many
    (1000, 10, 10, 3, {}, 30, False),
    (1000, 10, 10, 0, {}, 10, False),  # none ready counts as one
    (3, 0, 1, 2, {"max_scale_up_rate": 1.1}, 3, False),  # 2.2 is 3: one more is always possible
    (10, 0, 1, 4, {"max_scale_up_rate": 1.3}, 6, False),
    (1, 0, 1, 100, {}, 10, False),  # at most a tenth of them
    (1, 0, 1, 11, {"max_scale_down_rate": 2.0}, 5, False),  # 5.5 is 5: one fewer is always possible
    (0, 0, 1, 3, {"max_scale_down_rate": 2.0}, 1, False),
    (0, 0, 1, 1, {"max_scale_down_rate": 2.0}, 0, False),
    (0, 0, 1, 9, {"max_scale_down_rate": 1000.0}, 0, False),
    (20, 21, 10, 1, {}, 3, True),  # 3 of 1 is over 200 %
    (20, 20, 10, 1, {}, 2, True),  # exactly 200 %
    (20, 19.9, 10, 1, {}, 2, True),  # rounded up first
    (20, 10, 10, 1, {}, 2, False),
    (20, 39, 10, 2, {}, 4, True),
    (20, 30, 10, 2, {}, 2, False),  # 3 of 2 is not over it
    (1, 40, 10, 1, {}, 4, True),
    (60, 40, 10, 2, {}, 6, True),  # the larger of both
    (1, 1000, 10, 3, {}, 30, True),  # the rate holds in panic too
    (1, 1000, 10, 3, {"panic_threshold_percent": 1000.0}, 30, True),
    (1, 29, 1, 3, {"panic_threshold_percent": 1000.0}, 1, False),
    (1, 30, 1, 3, {"panic_threshold_percent": 1000.0}, 30, True),
    (
        1,
        60,
        10,
        3,
        {"max_scale_up_rate": 1.5},
        5,
        True,
    ),  # the threshold looks at what is asked for, unlimited
    (0, 0, 10, 1, {"activation_scale": 3}, 0, False),
    (1, 0, 10, 1, {"activation_scale": 3}, 3, False),
    (1, 0, 10, 0, {"activation_scale": 20}, 20, False),  # beyond the rate
    (90, 0, 10, 5, {"activation_scale": 3}, 9, False),
    (1, 0, 10, 1, {"activation_scale": 1}, 1, False),
    (0, 20, 10, 1, {"activation_scale": 4}, 4, True),
]


@pytest.mark.parametrize(("stable", "panic", "target", "ready", "params", "wanted", "panics"), STABLE)
def test_one_decision(
    stable: float, panic: float, target: float, ready: int, params: dict, wanted: int, panics: bool
) -> None:
    got, memory = scale(stable, panic, target, ready, START, KpaParams(**{**CALM, **params}), KpaMemory())
    assert (got, memory.panic_since_s is not None) == (wanted, panics)


DELAYED = {"scale_down_delay_s": 300.0, "panic_threshold_percent": 1000.0}

EPISODES = [
    # parameters, then per step: seconds, stable, panic, ready, wanted, panics
    # more is asked for in panic, never less
    (
        {},
        [
            (0, 10, 100, 1, 10, True),
            (2, 10, 60, 10, 10, True),
            (4, 10, 10, 10, 10, True),
        ],
    ),
    (
        {},
        [
            (0, 10, 60, 1, 6, True),
            (2, 10, 120, 6, 12, True),
            (4, 20, 10, 12, 12, True),
        ],
    ),
    # it lasts one stable window after the last time over the threshold, and not exactly that long
    (
        {},
        [
            (0, 10, 100, 1, 10, True),
            (60, 10, 10, 10, 10, True),
            (60.1, 10, 10, 10, 1, False),
        ],
    ),
    (
        {},
        [
            (0, 10, 100, 1, 10, True),
            (30, 10, 200, 10, 20, True),
            (90, 10, 10, 20, 20, True),
            (91, 10, 10, 20, 2, False),
        ],
    ),
    (
        {},
        [
            (0, 10, 100, 1, 10, True),
            (59, 10, 100, 10, 10, True),
            (61, 80, 80, 10, 8, False),
        ],
    ),
    # what a panic reached is forgotten with it
    (
        {},
        [
            (0, 10, 100, 1, 10, True),
            (61, 50, 50, 10, 5, False),
            (63, 50, 110, 5, 11, True),
            (65, 10, 10, 5, 11, True),
        ],
    ),
    # other windows
    (
        {"stable_window_s": 30.0},
        [
            (0, 10, 100, 1, 10, True),
            (30, 10, 10, 10, 10, True),
            (31, 10, 10, 10, 1, False),
        ],
    ),
    # a delayed decrease: the most of the delay, without what is exactly as old as it
    (
        DELAYED,
        [
            (0, 40, 40, 4, 4, False),
            (100, 0, 0, 4, 4, False),
            (299, 0, 0, 4, 4, False),
            (300, 0, 0, 4, 0, False),
        ],
    ),
    (
        DELAYED,
        [
            (0, 40, 40, 4, 4, False),
            (60, 30, 30, 4, 4, False),
            (120, 0, 0, 4, 4, False),
            (300, 0, 0, 4, 3, False),
            (360, 0, 0, 3, 0, False),
        ],
    ),
    (
        DELAYED,
        [
            (0, 20, 20, 2, 2, False),
            (10, 50, 50, 2, 5, False),
            (309, 10, 10, 5, 5, False),
            (310, 10, 10, 5, 1, False),
        ],
    ),
    # without a delay the last number counts, however soon
    (
        {},
        [
            (0, 40, 10, 4, 4, False),
            (0.5, 20, 10, 4, 2, False),
        ],
    ),
]


@pytest.mark.parametrize(("params", "steps"), EPISODES)
def test_episodes(params: dict, steps: list) -> None:
    memory, settings = KpaMemory(), KpaParams(**{**CALM, **params})
    for seconds, stable, panic, ready, wanted, panics in steps:
        got, memory = scale(stable, panic, 10, ready, START + seconds, settings, memory)
        assert (got, memory.panic_since_s is not None) == (wanted, panics)


@pytest.mark.parametrize(
    ("params", "max_concurrency", "target"),
    [
        ({}, 0, 70),
        ({}, 64, 44.8),
        ({"target": 10.0}, 64, 7),
        ({"target": 10.0, "target_utilization_percent": 100.0}, 0, 10),
        ({"metric": "rps"}, 64, 140),
        ({"metric": "rps", "target": 5.0}, 0, 3.5),
    ],
)
def test_target(params: dict, max_concurrency: int, target: float) -> None:
    assert target_of(view(max_concurrency=max_concurrency), KpaParams(**params)) == pytest.approx(target)


ZERO = [
    # activity, for seconds, wish, ready, current, parameters, result, activity after
    (Activity.ACTIVE, 10, 3, 1, 1, {}, 3, Activity.ACTIVE),
    (Activity.ACTIVE, 59, 0, 2, 2, {}, 1, Activity.ACTIVE),  # not long enough: one stays
    (Activity.ACTIVE, 60, 0, 2, 2, {}, 2, Activity.INACTIVE),  # inactive now, and nothing changes yet
    (Activity.INACTIVE, 0, 0, 2, 2, {}, 2, Activity.INACTIVE),
    (Activity.INACTIVE, 29, 0, 2, 2, {}, 2, Activity.INACTIVE),
    (Activity.INACTIVE, 30, 0, 2, 2, {}, 0, Activity.INACTIVE),
    (Activity.INACTIVE, 300, 0, 0, 0, {}, 0, Activity.INACTIVE),
    (Activity.INACTIVE, 29, 1, 2, 2, {}, 1, Activity.ACTIVE),  # traffic came back in the grace
    (Activity.INACTIVE, 300, 1, 0, 0, {}, 1, Activity.ACTIVATING),
    (Activity.ACTIVATING, 100, 0, 0, 1, {}, 1, Activity.ACTIVATING),  # nobody waits, and it still starts
    (Activity.ACTIVATING, 629, 0, 0, 1, {}, 1, Activity.ACTIVATING),
    (Activity.ACTIVATING, 630, 0, 0, 1, {}, 0, Activity.ACTIVATING),
    (Activity.ACTIVATING, 630, 1, 0, 1, {}, 1, Activity.ACTIVATING),
    (Activity.ACTIVATING, 90, 0, 1, 1, {}, 1, Activity.ACTIVE),  # it has become ready
    (Activity.ACTIVE, 90, 0, 2, 2, {"scale_to_zero": False}, 1, Activity.ACTIVE),
    (Activity.INACTIVE, 90, 0, 2, 2, {"scale_to_zero": False}, 1, Activity.INACTIVE),
    (Activity.INACTIVE, 9, 0, 1, 1, {"scale_to_zero_grace_s": 10.0}, 1, Activity.INACTIVE),
    (Activity.INACTIVE, 10, 0, 1, 1, {"scale_to_zero_grace_s": 10.0}, 0, Activity.INACTIVE),
    (Activity.ACTIVE, 29, 0, 1, 1, {"stable_window_s": 30.0}, 1, Activity.ACTIVE),
    (Activity.ACTIVE, 30, 0, 1, 1, {"stable_window_s": 30.0}, 1, Activity.INACTIVE),
]


@pytest.mark.parametrize(("activity", "for_s", "wish", "ready", "current", "params", "result", "after"), ZERO)
def test_the_way_to_zero(
    activity: Activity,
    for_s: float,
    wish: int,
    ready: int,
    current: int,
    params: dict,
    result: int,
    after: Activity,
) -> None:
    memory = KpaMemory(activity=activity, activity_since_s=START - for_s)
    seen = view(low=0, wanted=current, ready=ready, starting=current - ready)
    got, memory = to_zero(wish, seen, KpaParams(**params), memory)
    assert (got, memory.activity) == (result, after)


# The whole scaler: concurrency is sampled once a second, the target is 10 for each replica.
TEN = KpaParams(target=10.0, target_utilization_percent=100.0, **CALM)


def concurrency(number: float | None, age: float = 0.0) -> dict[str, Signal]:
    return {"concurrency": signal(number, age)}


def run(samples: list[float | None], seen: ScaleView, params: KpaParams = TEN, every: float = 1.0) -> list:
    """What is proposed at each second for a number of requests at once."""
    memory, out = KpaMemory(), []
    for n, sample in enumerate(samples):
        now = at(seen, n * every, signals=concurrency(sample))
        made, memory = kpa(now, params, memory)
        out.append(made.replicas)
        assert "?" not in render(made.reason)
    return out


def test_a_steady_load_has_its_replicas() -> None:
    assert set(run([25.0] * 100, view(wanted=3, ready=3))) == {3}


def test_a_burst_is_seen_by_the_panic_window_first() -> None:
    got = run([10.0] * 60 + [60.0] * 6, view(wanted=1, ready=1))
    assert got[59] == 1
    assert got[60:] == [2, 3, 4, 5, 6, 6]  # (5 x 10 + 60) / 6 is 18.3, which is 2 of 1: panic


def test_after_a_burst_the_number_stays_for_a_stable_window() -> None:
    got = run([10.0] * 60 + [60.0] * 6 + [10.0] * 80, view(wanted=1, ready=1))
    over = 70  # the last second in which the panic window asks for two of one
    assert set(got[66 : over + 60]) == {6}
    assert got[over + 61] == 1


def test_requests_per_second() -> None:
    seen = view(wanted=2, ready=2, signals=demand(rps=90))
    made, _ = kpa(seen, KpaParams(metric="rps", target=20.0, target_utilization_percent=100.0), KpaMemory())
    assert made.replicas == 5


def test_concurrency_is_what_waits_and_what_is_in_flight() -> None:
    made, _ = kpa(view(wanted=1, ready=1, signals=demand(queued=15, inflight=10)), TEN, KpaMemory())
    assert made.replicas == 3


@pytest.mark.parametrize("sample", [signal(None), signal(5.0, age=16), signal(math.nan), signal(math.inf)])
def test_without_data_there_is_no_proposal_and_nothing_is_forgotten(sample: Signal) -> None:
    seen = view(wanted=3, ready=3)
    _, before = kpa(at(seen, 0, signals=concurrency(25.0)), TEN, KpaMemory())
    made, after = kpa(at(seen, 1, signals={"concurrency": sample}), TEN, before)
    assert made.replicas is None
    assert after == before


def test_a_gap_in_the_data_is_not_read_as_no_load() -> None:
    calm = KpaParams(target=10.0, target_utilization_percent=100.0, panic_threshold_percent=1000.0)
    got = run([25.0] * 30 + [None] * 20 + [25.0] * 30, view(wanted=3, ready=3), calm)
    assert [n for n in got if n is not None] == [3] * 60


def test_a_slow_loop_sees_the_same_load() -> None:
    assert set(run([25.0] * 20, view(wanted=3, ready=3), every=10.0)) == {3}


def test_a_late_sample_counts_when_it_was_taken() -> None:
    seen, memory = view(wanted=1, ready=1), KpaMemory()
    for n in range(10):
        made, memory = kpa(at(seen, n, signals=concurrency(20.0, age=3.0)), TEN, memory)
        assert made.replicas == 2
    assert [bucket for bucket, _ in memory.window.buckets][-1] == START + 6


@pytest.mark.parametrize(
    ("ready", "first", "panics"), [(5, 5, True), (2, 2, True), (1, 1, False), (0, 1, False)]
)
def test_a_new_one_that_finds_replicas_begins_in_panic(ready: int, first: int, panics: bool) -> None:
    made, memory = kpa(view(wanted=ready, ready=ready, signals=concurrency(1.0)), TEN, KpaMemory())
    assert (made.replicas, memory.panic_since_s is not None) == (first, panics)
    assert made.reason.code is (ReasonCode.PANIC_HOLDS if panics else ReasonCode.STABLE_WINDOW)


@pytest.mark.parametrize("later", [62.0, -500.0])
def test_a_long_silence_or_another_clock_is_a_new_beginning(later: float) -> None:
    """What is known of the load then is one sample: too little to give up replicas for."""
    seen = view(wanted=5, ready=5)
    memory = KpaMemory()
    for n in range(3):
        _, memory = kpa(at(seen, n, signals=concurrency(10.0)), TEN, memory)
    made, memory = kpa(at(seen, later, signals=concurrency(0.0)), TEN, memory)
    assert made.replicas == 5
    assert memory.panic_since_s == START + later


def test_no_traffic_leads_to_zero_after_window_and_grace() -> None:
    one = run([5.0] * 5 + [0.0] * 120, view(low=0, wanted=1, ready=1))
    assert one.index(0) == 64 + 30  # five seconds of load leave the window at 64
    assert set(one[:94]) == {1}
    assert set(one[94:]) == {0}


def test_waiting_for_zero_is_told() -> None:
    memory = KpaMemory(last_s=START, activity=Activity.ACTIVE, activity_since_s=START)
    memory = replace(memory, window=put(Window(), int(START), 0.0, 60))
    made, _ = kpa(view(low=0, wanted=1, ready=1, signals=concurrency(0.0)), TEN, memory)
    assert (made.replicas, made.reason.code) == (1, ReasonCode.ZERO_GRACE)
    assert render(made.reason) == "no traffic; zero replicas in 90 s if none comes"
    made, _ = kpa(view(low=0, wanted=0, signals=concurrency(0.0)), TEN, memory)
    assert (made.replicas, made.reason.code) == (0, ReasonCode.STABLE_WINDOW)


def test_its_memory_survives_being_stored() -> None:
    seen, memory, stored = view(wanted=1, ready=1), KpaMemory(), None
    one = scaler("kpa", target=10, target_utilization_percent=100, scale_down_delay_s=60)
    params = one.params
    assert isinstance(params, KpaParams)
    for n, sample in enumerate([5.0, 60.0, 30.0, 0.0, 12.0] * 20):
        now = at(seen, n, signals=concurrency(sample))
        made, memory = kpa(now, params, memory)
        answer = ask(one, now, stored)
        stored = answer.memory
        assert answer.proposal.replicas == made.replicas


@pytest.mark.parametrize(
    "params",
    [
        {"metric": "qps"},
        {"stable_window_s": 5},
        {"panic_window_percent": 0.5},
        {"panic_threshold_percent": 100},
        {"max_scale_up_rate": 1},
        {"max_scale_down_rate": 1.0},
        {"activation_scale": 0},
        {"target": 0},
        {"target_utilization_percent": 101},
        {"stable_window": 60},
    ],
)
def test_parameters_are_checked(params: dict) -> None:
    with pytest.raises(UsageError, match="kpa"):
        scaler("kpa", **params)


def test_a_young_window_is_as_long_as_it_was_watched_and_a_minimum_says_nothing_of_zero() -> None:
    memory, made = KpaMemory(), None
    for second in range(10):
        seen = view(low=1, wanted=1, ready=1, signals=concurrency(0.0), now_s=START + second)
        made, memory = kpa(seen, TEN, memory)
    assert made is not None
    assert render(made.reason) == "concurrency is 0 over 10 s, 10 per replica"


def test_a_panic_that_only_keeps_the_number_says_for_how_long() -> None:
    memory, told = KpaMemory(), []
    for second in range(30):
        seen = view(wanted=1, ready=1, signals=concurrency(30.0 if second < 5 else 0.0), now_s=START + second)
        made, memory = kpa(seen, TEN, memory)
        told.append(render(made.reason))
    assert told[4] == "panic: concurrency is 30 over 5 s, 10 per replica"
    assert told[29] == "panic: no fewer than 3 for 38 s more; concurrency is 0 over 6 s"
