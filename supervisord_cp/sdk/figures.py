"""What `get_metrics` tells, from requests as they end."""

from collections import deque
from collections.abc import Sequence
from typing import Final

from supervisord_cp.sdk.types import PerformanceMetrics, RequestStatus

WINDOW_S: Final = 60.0
MOST_KEPT: Final = 4096
"""Completed requests that rates and latencies are made of."""


class Figures:
    """Totals, and the latest completed requests. Times are monotonic seconds."""

    def __init__(self, now: float) -> None:
        self._since = now
        self._ended = dict.fromkeys(RequestStatus, 0)
        self._slo_requests = 0
        self._slo_violations = 0
        self._completed: deque[tuple[float, float, int]] = deque(maxlen=MOST_KEPT)

    def over(
        self,
        status: RequestStatus,
        now: float,
        *,
        latency_ms: float,
        completion_tokens: int,
        slo_deadline_ms: float | None,
    ) -> None:
        """A request has ended."""
        self._ended[status] += 1
        completed = status is RequestStatus.COMPLETED
        if completed:
            self._completed.append((now, latency_ms, completion_tokens))
        if slo_deadline_ms is not None and status is not RequestStatus.CANCELLED:
            self._slo_requests += 1
            self._slo_violations += not completed or latency_ms > slo_deadline_ms

    def metrics(self, now: float, *, queued: int, active: int) -> PerformanceMetrics:
        """The figures as they stand; `queued` and `active` count requests that have not ended."""
        latencies = sorted(latency for _, latency, _ in self._completed)
        window_s, recent = self._recent(now)
        return PerformanceMetrics(
            total_requests=sum(self._ended.values()) + queued + active,
            completed_requests=self._ended[RequestStatus.COMPLETED],
            failed_requests=self._ended[RequestStatus.FAILED],
            cancelled_requests=self._ended[RequestStatus.CANCELLED],
            active_requests=active,
            queued_requests=queued,
            avg_latency_ms=sum(latencies) / len(latencies) if latencies else 0.0,
            p50_latency_ms=percentile(latencies, 0.50),
            p95_latency_ms=percentile(latencies, 0.95),
            p99_latency_ms=percentile(latencies, 0.99),
            requests_per_second=len(recent) / window_s,
            tokens_per_second=sum(recent) / window_s,
            slo_requests=self._slo_requests,
            slo_violations=self._slo_violations,
        )

    def _recent(self, now: float) -> tuple[float, list[int]]:
        """The window's length in seconds and the answers' tokens in it. The window is shorter while there
        is no whole one, and when more requests have ended in it than are kept."""
        begin = max(self._since, now - WINDOW_S)
        if len(self._completed) == MOST_KEPT:
            begin = max(begin, self._completed[0][0])
        recent = [tokens for at, _, tokens in self._completed if at >= begin]
        return max(1.0, now - begin), recent


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that so large a share of them does not exceed; 0.0 of none."""
    if not ordered:
        return 0.0
    whole = len(ordered) * share
    rank = int(whole) + (whole > int(whole))
    return ordered[max(0, rank - 1)]
