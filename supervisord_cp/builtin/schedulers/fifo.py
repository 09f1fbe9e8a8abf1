"""Fifo: first come, first served."""

from supervisord_cp.policy import QueueContext, WaitingRequest, scheduler


@scheduler("fifo")
def fifo(waiting: WaitingRequest, context: QueueContext[None]) -> float:
    """In the order of arrival."""
    return waiting.arrived
