"""What `get_metrics` tells."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisord_cp.sdk.figures import MOST_KEPT, WINDOW_S, Figures, percentile
from supervisord_cp.sdk.types import RequestStatus


def over(
    figures: Figures,
    now: float,
    status: RequestStatus = RequestStatus.COMPLETED,
    *,
    latency_ms: float = 100.0,
    tokens: int = 10,
    slo_ms: float | None = None,
) -> None:
    figures.over(status, now, latency_ms=latency_ms, completion_tokens=tokens, slo_deadline_ms=slo_ms)


def test_nothing_has_happened() -> None:
    metrics = Figures(0.0).metrics(0.0, queued=0, active=0)
    assert (metrics.total_requests, metrics.p99_latency_ms, metrics.requests_per_second) == (0, 0.0, 0.0)


def test_counts() -> None:
    figures = Figures(0.0)
    for status in (RequestStatus.COMPLETED, RequestStatus.FAILED, RequestStatus.CANCELLED):
        over(figures, 1.0, status)
    metrics = figures.metrics(1.0, queued=2, active=3)
    assert (metrics.completed_requests, metrics.failed_requests, metrics.cancelled_requests) == (1, 1, 1)
    assert (metrics.total_requests, metrics.queued_requests, metrics.active_requests) == (8, 2, 3)


def test_latencies_are_those_of_completed_requests() -> None:
    figures = Figures(0.0)
    for number in range(1, 101):
        over(figures, 1.0, latency_ms=float(number))
    over(figures, 1.0, RequestStatus.FAILED, latency_ms=9999.0)
    metrics = figures.metrics(1.0, queued=0, active=0)
    assert (metrics.avg_latency_ms, metrics.p50_latency_ms) == (50.5, 50.0)
    assert (metrics.p95_latency_ms, metrics.p99_latency_ms) == (95.0, 99.0)


def test_rates_are_over_the_last_minute() -> None:
    figures = Figures(0.0)
    over(figures, 1.0, tokens=1000)
    for _ in range(30):
        over(figures, 100.0, tokens=20)
    metrics = figures.metrics(100.0 + WINDOW_S / 2, queued=0, active=0)
    assert (metrics.requests_per_second, metrics.tokens_per_second) == (0.5, 10.0)
    assert figures.metrics(101.0 + WINDOW_S, queued=0, active=0).requests_per_second == 0.0


def test_rates_of_a_short_life() -> None:
    figures = Figures(50.0)
    for _ in range(20):
        over(figures, 55.0)
    assert figures.metrics(60.0, queued=0, active=0).requests_per_second == 2.0


def test_rates_when_more_ends_than_is_kept() -> None:
    figures = Figures(0.0)
    for number in range(2 * MOST_KEPT):
        over(figures, 100.0 + number / 1000)
    now = 100.0 + 2 * MOST_KEPT / 1000
    assert figures.metrics(now, queued=0, active=0).requests_per_second == pytest.approx(1000, rel=0.01)


def test_kept_and_missed_deadlines() -> None:
    figures = Figures(0.0)
    over(figures, 1.0, latency_ms=100.0, slo_ms=100)
    over(figures, 1.0, latency_ms=100.1, slo_ms=100)
    over(figures, 1.0, RequestStatus.FAILED, latency_ms=1.0, slo_ms=100)
    over(figures, 1.0, RequestStatus.CANCELLED, latency_ms=1.0, slo_ms=100)
    over(figures, 1.0, latency_ms=9999.0)
    metrics = figures.metrics(1.0, queued=0, active=0)
    assert (metrics.slo_requests, metrics.slo_violations) == (3, 2)


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0, 1))
def test_a_percentile_is_the_least_value_that_enough_do_not_exceed(values: list[float], share: float) -> None:
    ordered = sorted(values)
    found = percentile(ordered, share)
    assert found in ordered
    assert sum(value <= found for value in ordered) >= share * len(ordered)
    assert sum(value < found for value in ordered) < max(share * len(ordered), 1)
