"""SLO aware: least slack first."""

from typing import Annotated, Any

from msgspec import Meta

from supervisord_cp.policy import QueueContext, Value, WaitingRequest, scheduler


class SloParams(Value, frozen=True, kw_only=True):
    """Parameters of `slo_aware`."""

    default_s: Annotated[float, Meta(gt=0)] = 30.0
    """When a request without a deadline should have its first token, where `slo.ttft_ms` does not say."""
    refuse: bool = True
    """Refuse requests whose deadline cannot be met any more."""


@scheduler("slo_aware", params=SloParams)
class SloAware:
    """Least slack first: the time that is left until a request must be begun to be in time.

    The client's deadline (header x-deadline-ms) counts for the whole answer, the deployment's objective for
    the first token. What cannot be done before the client's deadline any more is refused at once, so that
    the client can go elsewhere and the time is spent on others.
    """

    def __init__(self, params: SloParams) -> None:
        self._params = params

    def __call__(self, waiting: WaitingRequest, context: QueueContext[SloParams]) -> float:
        return must_begin_by(waiting, context, self._params.default_s)

    def hopeless(self, waiting: WaitingRequest, context: QueueContext[SloParams]) -> bool:
        return self._params.refuse and cannot_be_in_time(waiting, context)


def cannot_be_in_time(waiting: WaitingRequest, context: QueueContext[Any]) -> bool:
    """Whether the client's deadline would pass even if the request was begun now."""
    deadline = waiting.deadline
    return deadline is not None and context.now + context.expected_s(waiting.tokens) > deadline


def must_begin_by(waiting: WaitingRequest, context: QueueContext[Any], default_s: float) -> float:
    """The latest moment at which a request can be sent to an instance and still be in time."""
    if waiting.deadline is not None:
        return waiting.deadline - context.expected_s(waiting.tokens)
    goal_s = default_s if context.slo_ttft_s is None else context.slo_ttft_s
    return waiting.arrived + goal_s - context.expected_s(waiting.request.prompt_tokens)
