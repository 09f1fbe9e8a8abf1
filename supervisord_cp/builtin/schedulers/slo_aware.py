"""SLO aware: least slack first, of those that can still be in time."""

from typing import Annotated, Any, Final

from msgspec import Meta

from supervisord_cp.policy import QueueContext, Value, WaitingRequest, scheduler

REFRESH_S: Final = 0.5
"""What has become too late is put back after so long."""


class SloParams(Value, frozen=True, kw_only=True):
    """Parameters of `slo_aware`."""

    default_s: Annotated[float, Meta(gt=0)] = 30.0
    """When a request without a deadline should have its first token, where `slo.ttft_ms` does not say; and
    when one that has missed what it should have had is to go at the latest, about."""
    refuse: bool = True
    """Refuse requests whose deadline cannot be met any more."""


@scheduler("slo_aware", params=SloParams, refresh_s=REFRESH_S)
class SloAware:
    """Least slack first: the time that is left until a request must be begun to be in time.

    The client's deadline (header x-deadline-ms) counts for the whole answer, the deployment's objective for
    the first token. What cannot be done before the client's deadline any more is refused at once, so that
    the client can go elsewhere and the time is spent on others. What has missed the deployment's objective
    goes behind those that can still keep theirs: least slack alone would have one late request make the next
    one late.
    """

    def __init__(self, params: SloParams) -> None:
        self._params = params

    def __call__(self, waiting: WaitingRequest, context: QueueContext[SloParams]) -> float:
        return least_slack(waiting, context, self._params.default_s)

    def hopeless(self, waiting: WaitingRequest, context: QueueContext[SloParams]) -> bool:
        return self._params.refuse and cannot_be_in_time(waiting, context)


def cannot_be_in_time(waiting: WaitingRequest, context: QueueContext[Any]) -> bool:
    """Whether the client's deadline would pass even if the request was begun now."""
    deadline = waiting.deadline
    return deadline is not None and context.now + _answer_s(waiting, context) > deadline


def least_slack(waiting: WaitingRequest, context: QueueContext[Any], default_s: float) -> float:
    """A rank: when it must be begun to be in time; of what is too late already, a time well after that."""
    latest = must_begin_by(waiting, context, default_s)
    return latest if latest >= context.now else max(latest, waiting.arrived + default_s)


def must_begin_by(waiting: WaitingRequest, context: QueueContext[Any], default_s: float) -> float:
    """The latest moment at which a request can be sent to an instance and still be in time."""
    if waiting.deadline is not None:
        return waiting.deadline - _answer_s(waiting, context)
    goal_s = default_s if context.slo_ttft_s is None else context.slo_ttft_s
    return waiting.arrived + goal_s - context.first_token_s(waiting.request.prompt_tokens)


def _answer_s(waiting: WaitingRequest, context: QueueContext[Any]) -> float:
    return context.answer_s(waiting.request.prompt_tokens, waiting.decode_tokens)
