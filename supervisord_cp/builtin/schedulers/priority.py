"""Priority: the more urgent first, and nobody for ever last."""

from typing import Annotated

from msgspec import Meta

from supervisord_cp.policy import QueueContext, Value, WaitingRequest, scheduler


class PriorityParams(Value, frozen=True, kw_only=True):
    """Parameters of `priority`."""

    ageing_s: Annotated[float, Meta(gt=0)] = 20.0
    """Waiting this long counts as much as one class of priority."""


@scheduler("priority", params=PriorityParams)
def priority(waiting: WaitingRequest, context: QueueContext[PriorityParams]) -> float:
    """By priority (header x-priority), and by the time that they have waited.

    A request goes before those of a class above it that arrived `ageing_s` later. As all grow old at the
    same pace, the order of two requests never changes, and no rank has to be worked out twice.
    """
    return waiting.arrived + context.params.ageing_s * waiting.request.priority
