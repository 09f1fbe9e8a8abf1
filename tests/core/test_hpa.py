"""The hpa scaler: where its numbers come from, and what it makes of those that are none."""

import math

import pytest

from supervisord_cp.core.scaling.scalers import ask
from supervisord_cp.errors import UsageError
from supervisord_cp.model.reason import ReasonCode, render
from supervisord_cp.model.scaling import ScaleView, Tolerance
from supervisord_cp.model.signal import MISSING, ReplicaView, Signal, SignalState
from tests.core.scaling_kit import BUSY, IDLE, demand, replicas, scaler, signal, view

QUEUE = {"query": "q", "target_average_value": 4}


def proposed(seen: ScaleView, **params: object) -> float | None:
    return ask(scaler("hpa", **params), seen).proposal.replicas


def why(seen: ScaleView, **params: object) -> ReasonCode:
    reason = ask(scaler("hpa", **params), seen).proposal.reason
    assert "?" not in render(reason)
    return reason.code


@pytest.mark.parametrize(
    ("params", "number"),
    [
        ({"query": "q", "target_average_value": 4}, 5),  # 20 / 4
        ({"query": "q", "target_value": 10}, 4),  # 20 / 10 x 2 ready
        ({"query": "q", "target_average_value": 4, "per_replica": True}, 6),  # 8 / 4 x 3
        ({"query": "q", "target_utilization": 50}, 48),  # 800 % of 50 % x 3
        ({"signal": "running", "target_average_value": 6}, 5),  # 30 / 6
        ({"signal": "running", "target_average_value": 5, "per_replica": True}, 6),  # 10 / 5 x 3
        ({"signal": "running", "target_utilization": 50}, 4),  # 10 of 16 are 62 %
        ({"signal": "kv_cache_usage", "target_utilization": 40}, 4),  # 45 %
        ({"signal": "concurrency", "target_average_value": 8}, 5),  # (15 + 25) / 8
    ],
)
def test_queries_and_signals(params: dict, number: int) -> None:
    each = tuple(
        ReplicaView(
            id=f"chat-{n}",
            age_s=3600,
            changed_s=3500,
            signals={"running": signal(10), "kv_cache_usage": signal(0.45)},
            queries={"q": signal(8)},
        )
        for n in range(3)
    )
    signals = {**demand(queued=15, inflight=25, generated=9), "running": signal(30)}
    seen = view(
        wanted=3,
        ready=2,
        starting=1,
        replicas=each,
        signals=signals,
        queries={"q": signal(20)},
        max_concurrency=16,
    )
    assert proposed(seen, **params) == number
    assert why(seen, **params) is ReasonCode.TARGET


@pytest.mark.parametrize(
    ("broken", "code"),
    [
        (MISSING, ReasonCode.SIGNAL_MISSING),
        (signal(None, detail="timed out after 5 s"), ReasonCode.SIGNAL_MISSING),
        (signal(8.0, age=16), ReasonCode.SIGNAL_STALE),
        (signal(math.nan), ReasonCode.SIGNAL_NAN),
        (signal(math.inf), ReasonCode.SIGNAL_NAN),
        (signal(-math.inf), ReasonCode.SIGNAL_NAN),
    ],
)
def test_what_is_not_known_is_no_proposal(broken: Signal, code: ReasonCode) -> None:
    seen = view(wanted=3, ready=3, queries={"q": broken}, signals=BUSY)
    assert proposed(seen, **QUEUE) is None
    assert why(seen, **QUEUE) is code


def test_zero_is_a_number() -> None:
    seen = view(wanted=3, ready=3, queries={"q": signal(0.0)}, signals=BUSY)
    assert proposed(seen, **QUEUE) == 0


def test_a_query_that_nobody_configured_is_missing() -> None:
    assert why(view(wanted=3, ready=3, signals=IDLE), **QUEUE) is ReasonCode.SIGNAL_MISSING


@pytest.mark.parametrize(
    ("state", "signals", "number"),
    [
        (signal(math.nan), IDLE, 0),  # 0 / 0: routers count no request, so it is no load
        (signal(math.nan), BUSY, None),
        (signal(math.nan), demand(queued=1), None),
        (signal(math.nan), demand(inflight=1), None),
        (signal(math.nan), demand(rps=0.1), None),
        (signal(math.nan), demand(queued=None), None),  # unknown is not zero
        (signal(math.nan), {}, None),
        (signal(math.nan), demand(generated=5), None),  # somebody uses the engines past the routers
        (signal(math.nan), demand(generated=None), 0),
        (signal(None), IDLE, None),  # missing stays missing
        (signal(8.0, age=60), IDLE, None),
        (signal(8.0), IDLE, 2),  # a query is believed unless it is said to be a gauge
    ],
)
def test_a_ratio_without_traffic(state: Signal, signals: dict, number: float | None) -> None:
    seen = view(wanted=3, ready=3, queries={"q": state}, signals=signals)
    assert proposed(seen, **QUEUE) == number


@pytest.mark.parametrize(
    ("gauge", "signals", "number"),
    [
        (signal(40), IDLE, 0),  # left over from aborted requests
        (signal(40, age=60), IDLE, 0),
        (signal(None), IDLE, None),
        (signal(40), BUSY, 10),
        (signal(40), demand(generated=None), 10),  # without counters there is no evidence
        (signal(40), demand(generated=3), 10),
        (signal(40), demand(inflight=None), 10),
    ],
)
def test_a_gauge_that_stayed_where_it_was(gauge: Signal, signals: dict, number: float | None) -> None:
    seen = view(wanted=10, ready=10, signals={**signals, "waiting": gauge}, queries={"q": gauge})
    assert proposed(seen, signal="waiting", target_average_value=4) == number
    assert proposed(seen, **QUEUE, gauge=True) == number


def test_idle_replicas_with_frozen_gauges_use_nothing() -> None:
    each = replicas("RRR", [0.9, 0.9, math.nan], "kv_cache_usage")
    params = {"signal": "kv_cache_usage", "target_utilization": 50}
    assert proposed(view(wanted=3, ready=3, replicas=each, signals=IDLE), **params) == 0
    assert proposed(view(wanted=3, ready=3, replicas=each, signals=BUSY), **params) == 4


@pytest.mark.parametrize(
    ("phases", "number"), [("RRR", 6), ("RRS", 4), ("RSS", 3), ("SSS", None), ("RRF", 4), ("", None)]
)
def test_replicas_that_do_not_report_make_the_change_smaller(phases: str, number: float | None) -> None:
    each = replicas(phases, [1.0] * len(phases), "kv_cache_usage")
    seen = view(wanted=3, ready=phases.count("R"), replicas=each, signals=BUSY)
    assert proposed(seen, signal="kv_cache_usage", target_utilization=50) == number


def test_warm_up_is_left_out_of_percentages_alone() -> None:
    used = {"kv_cache_usage": signal(1.0, age=5)}
    each = tuple(
        ReplicaView(id=f"chat-{n}", age_s=age, changed_s=changed, signals=used)
        for n, (age, changed) in enumerate([(3600, 3000), (60, 0), (60, 0)])
    )
    seen = view(wanted=3, ready=3, replicas=each, signals=BUSY)
    assert proposed(seen, signal="kv_cache_usage", target_utilization=50) == 3  # 100 + 0 + 0
    assert proposed(seen, signal="kv_cache_usage", target_average_value=0.5, per_replica=True) == 6
    assert proposed(seen, signal="kv_cache_usage", target_utilization=50, initialization_s=0) == 6


def test_percent_of_requests_needs_to_know_how_many_a_replica_takes() -> None:
    each = replicas("RR", [8, 8], "running")
    params = {"signal": "running", "target_utilization": 50}
    without = view(wanted=2, ready=2, replicas=each, signals=BUSY)
    assert proposed(without, **params) is None
    assert why(without, **params) is ReasonCode.SIGNAL_MISSING
    assert proposed(view(wanted=2, ready=2, replicas=each, signals=BUSY, max_concurrency=10), **params) == 4


def test_percent_of_what_has_no_whole_is_no_proposal() -> None:
    each = replicas("RR", [8, 8], "ttft_s")
    assert proposed(view(wanted=2, ready=2, replicas=each), signal="ttft_s", target_utilization=50) is None


def test_the_tolerance_is_the_deployments() -> None:
    seen = view(wanted=2, ready=2, queries={"q": signal(9.6)}, signals=BUSY)
    assert proposed(seen, **QUEUE) == 3
    calm = view(wanted=2, ready=2, queries={"q": signal(9.6)}, signals=BUSY, tolerance=Tolerance(up=0.2))
    assert proposed(calm, **QUEUE) == 2
    assert why(calm, **QUEUE) is ReasonCode.WITHIN_TOLERANCE


@pytest.mark.parametrize(
    ("running", "signals", "code"),
    [
        (0, IDLE, ReasonCode.NO_TRAFFIC),
        (0, BUSY, ReasonCode.TARGET),
        (30, BUSY, ReasonCode.TARGET),
        (8, BUSY, ReasonCode.WITHIN_TOLERANCE),
    ],
)
def test_what_a_proposal_says(running: float, signals: dict, code: ReasonCode) -> None:
    seen = view(wanted=2, ready=2, signals={**signals, "running": signal(running)})
    assert why(seen, signal="running", target_average_value=4) is code


@pytest.mark.parametrize(
    ("params", "shown"),
    [
        ({"target_utilization": 50}, 75.0),
        ({"target_average_value": 6, "per_replica": True}, 6.0),
    ],
)
@pytest.mark.parametrize(
    ("phases", "code"),
    [("RR", None), ("RRS", ReasonCode.UNREADY_REPLICAS), ("RRU", ReasonCode.UNREADY_REPLICAS)],
)
def test_what_a_proposal_over_replicas_says(
    params: dict, shown: float, phases: str, code: ReasonCode
) -> None:
    each = replicas(phases, [4, 8, None][: len(phases)], "running")
    seen = view(wanted=len(phases), ready=2, replicas=each, signals=BUSY, max_concurrency=8)
    reason = ask(scaler("hpa", signal="running", **params), seen).proposal.reason
    assert reason.params["value"] == shown
    if code is not None:
        assert reason.code is code


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"target_value": 1}, "query or signal"),
        ({"query": "q", "signal": "running", "target_value": 1}, "query or signal"),
        ({"query": "q"}, "one of target_value"),
        ({"query": "q", "target_value": 1, "target_average_value": 1}, "one of target_value"),
        ({"query": "q", "target_value": 1, "per_replica": True}, "per_replica"),
        ({"query": "q", "target_value": 0}, "target_value"),
        ({"query": "q", "target_average_value": "4"}, "target_average_value"),
        ({"query": "q", "target_utilization": 0.5}, "target_utilization"),
        ({"signal": "runing", "target_value": 1}, "runing"),
        ({"query": "q", "target_avarage_value": 4}, 'did you mean "target_average_value"?'),
    ],
)
def test_parameters_are_checked(params: dict, says: str) -> None:
    with pytest.raises(UsageError, match="hpa") as caught:
        scaler("hpa", **params)
    assert says in str(caught.value)


def test_states_of_signals_are_four_different_things() -> None:
    states = [signal(0.0), signal(None), signal(0.0, age=99), signal(math.nan)]
    assert [s.state for s in states] == [
        SignalState.VALUE,
        SignalState.MISSING,
        SignalState.STALE,
        SignalState.NAN,
    ]
