"""Cost optimized: the cheapest instances that are still in time."""

from collections.abc import Sequence
from typing import Annotated, Any, Final

from msgspec import Meta

from supervisord_cp.builtin.schedulers.slo_aware import REFRESH_S, least_slack, must_begin_by
from supervisord_cp.policy import Candidate, QueueContext, Value, WaitingRequest, scheduler

SPENT: Final = 0.5
"""How much of its slack a request may spend on waiting for a cheaper instance: times are estimates."""


class CostParams(Value, frozen=True, kw_only=True):
    """Parameters of `cost_optimized`."""

    patience_s: Annotated[float, Meta(ge=0)] = 2.0
    """How long a request without a deadline waits for a cheaper instance before a dearer one may have it,
    where `slo.ttft_ms` leaves that much time."""
    unknown_cost: Annotated[float, Meta(ge=0)] = 0.0
    """Cost of a GPU for an hour where the configuration says none: 0, it is paid for already."""
    default_s: Annotated[float, Meta(gt=0)] = 30.0
    """When a request without a deadline should have its first token, where `slo.ttft_ms` does not say."""


@scheduler("cost_optimized", params=CostParams, refresh_s=REFRESH_S)
class CostOptimized:
    """Each request goes to the cheapest instances that still meet its deadline and its budget.

    While those are full it waits for them, for half of the time that it has; then dearer ones may have it as
    well. Those that wait go in the order in which they must be begun to be in time.
    """

    def __init__(self, params: CostParams) -> None:
        self._params = params

    def __call__(self, waiting: WaitingRequest, context: QueueContext[Any]) -> float:
        return least_slack(waiting, context, self._params.default_s)

    def instances(
        self,
        waiting: WaitingRequest,
        candidates: Sequence[Candidate],
        context: QueueContext[Any],
    ) -> Sequence[Candidate]:
        affordable = self._within_budget(waiting, candidates, context) or candidates
        costs = [self._cost_per_hour(candidate) for candidate in affordable]
        for limit in sorted(set(costs)):
            allowed = [c for c, cost in zip(affordable, costs, strict=True) if cost <= limit]
            if not all(candidate.full for candidate in allowed) or self._may_wait(waiting, context):
                return allowed
        return affordable

    def _may_wait(self, waiting: WaitingRequest, context: QueueContext[Any]) -> bool:
        """Whether there is time to wait until one of the busy instances has room."""
        slack = must_begin_by(waiting, context, self._params.default_s) - waiting.arrived
        most = SPENT * slack
        if waiting.deadline is None:
            most = min(most, self._params.patience_s)
        return context.now - waiting.arrived < most

    def _within_budget(
        self, waiting: WaitingRequest, candidates: Sequence[Candidate], context: QueueContext[Any]
    ) -> Sequence[Candidate]:
        budget = waiting.request.cost_budget
        if budget is None:
            return candidates
        hours = context.answer_s(waiting.request.prompt_tokens, waiting.decode_tokens) / 3600
        return [c for c in candidates if hours * self._cost_per_hour(c) / (c.inflight + 1) <= budget]

    def _cost_per_hour(self, candidate: Candidate) -> float:
        instance = candidate.instance
        known = instance.cost_per_hour
        return self._params.unknown_cost * instance.gpus if known is None else known
