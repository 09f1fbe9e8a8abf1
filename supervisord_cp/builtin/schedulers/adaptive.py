"""Adaptive: the scheduler that fits the load and the mix of requests."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

from msgspec import Meta

from supervisord_cp.builtin.schedulers.cost_optimized import CostOptimized, CostParams
from supervisord_cp.builtin.schedulers.slo_aware import cannot_be_in_time, least_slack
from supervisord_cp.policy import Candidate, QueueContext, RequestPriority, Value, WaitingRequest, scheduler

REFRESH_S: Final = 0.5
FIFO: Final = "fifo"
PRIORITY: Final = "priority"
SLO: Final = "slo_aware"
COST: Final = "cost_optimized"


class AdaptiveParams(Value, frozen=True, kw_only=True):
    """Parameters of `adaptive`."""

    quiet: Annotated[float, Meta(ge=0, le=1)] = 0.5
    """Below this share of the slots in use, cost decides."""
    share: Annotated[float, Meta(gt=0, le=1)] = 0.1
    """Of the requests, that have a deadline or a priority, before that decides."""
    hold_s: Annotated[float, Meta(ge=0)] = 10.0
    """How long a choice stays at least; cost gives way at once when it gets busy."""
    memory_s: Annotated[float, Meta(gt=0)] = 60.0
    """Over which the mix of requests is looked at, about."""
    patience_s: Annotated[float, Meta(ge=0)] = 2.0
    """As in `cost_optimized`."""
    ageing_s: Annotated[float, Meta(gt=0)] = 20.0
    """As in `priority`."""
    default_s: Annotated[float, Meta(gt=0)] = 30.0
    """As in `slo_aware`."""


@dataclass(slots=True)
class _Mix:
    """Requests that were seen lately; what is older counts less."""

    requests: float = 0.0
    deadlines: float = 0.0
    prioritised: float = 0.0
    at: float = 0.0

    def see(self, waiting: WaitingRequest, now: float, memory_s: float) -> None:
        kept = 0.5 ** (max(0.0, now - self.at) / memory_s)
        self.at = now
        self.requests = self.requests * kept + 1.0
        self.deadlines = self.deadlines * kept + (waiting.deadline is not None)
        unusual = waiting.request.priority is not RequestPriority.NORMAL
        self.prioritised = self.prioritised * kept + unusual

    def shares(self) -> tuple[float, float]:
        """Of those with a deadline, and of those with a priority."""
        total = max(1.0, self.requests)
        return self.deadlines / total, self.prioritised / total


@scheduler("adaptive", params=AdaptiveParams, refresh_s=REFRESH_S)
class Adaptive:
    """Cost while there is plenty of room; else deadlines where requests have any, else priorities, else
    first come, first served. Says when it changes, and why.

    All ranks are times, so that a line in which some were given before a change is still a sensible one.
    """

    def __init__(self, params: AdaptiveParams) -> None:
        self._params = params
        self._cost = CostOptimized(CostParams(patience_s=params.patience_s, default_s=params.default_s))
        self._mix = _Mix()
        self._mode = FIFO
        self._why = "no request has come yet"
        self._changed_at = -math.inf

    def on_arrival(self, waiting: WaitingRequest, context: QueueContext[AdaptiveParams]) -> None:
        self._mix.see(waiting, context.now, self._params.memory_s)
        self._look(context)

    def __call__(self, waiting: WaitingRequest, context: QueueContext[AdaptiveParams]) -> float:
        self._look(context)
        if self._mode in (SLO, COST):
            return least_slack(waiting, context, self._params.default_s)
        if self._mode == PRIORITY:
            return waiting.arrived + self._params.ageing_s * waiting.request.priority
        return waiting.arrived

    def instances(
        self,
        waiting: WaitingRequest,
        candidates: Sequence[Candidate],
        context: QueueContext[AdaptiveParams],
    ) -> Sequence[Candidate]:
        return self._cost.instances(waiting, candidates, context) if self._mode == COST else candidates

    def hopeless(self, waiting: WaitingRequest, context: QueueContext[AdaptiveParams]) -> bool:
        return self._mode == SLO and cannot_be_in_time(waiting, context)

    def describe(self) -> str:
        return f"{self._mode}: {self._why}"

    def _look(self, context: QueueContext[AdaptiveParams]) -> None:
        held = context.now - self._changed_at < self._params.hold_s
        if held and self._mode != COST:
            return
        mode, why = self._fitting(context)
        if mode != self._mode:
            self._mode, self._why, self._changed_at = mode, why, context.now

    def _fitting(self, context: QueueContext[AdaptiveParams]) -> tuple[str, str]:
        params = self._params
        load = (context.inflight + context.queued) / context.slots if context.slots else 0.0
        if load < params.quiet:
            return COST, f"{load:.0%} of the slots are in use"
        deadlines, prioritised = self._mix.shares()
        if deadlines >= params.share:
            return SLO, f"{load:.0%} of the slots are in use, {deadlines:.0%} of the requests have a deadline"
        if prioritised >= params.share:
            return PRIORITY, f"{load:.0%} of the slots are in use, {prioritised:.0%} have a priority"
        return FIFO, f"{load:.0%} of the slots are in use, few have a deadline or a priority"
