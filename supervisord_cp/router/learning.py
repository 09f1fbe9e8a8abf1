"""What an answer teaches about the work of its deployment."""

from typing import TYPE_CHECKING

from supervisord_cp.core.routing.usage import Usage

if TYPE_CHECKING:
    from supervisord_cp.router.flow import Flow


def learned(flow: "Flow", now: float) -> Usage:
    """What the engine counted for an answer that is complete, taken into account."""
    tail = flow.tail
    usage = tail.usage()
    if usage is None:  # a stream that was not asked for it: an event is a token, all but a few
        usage = Usage(completion_tokens=max(0, flow.events - 2))
    work = flow.lane.work
    work.learn(flow.body_bytes, usage, flow.choices)
    work.learn_duration(now - flow.dispatched_at)
    if flow.events > 1 and flow.choices == 1 and flow.first_byte_at:
        work.learn_pace(
            prompt_tokens=flow.prompt_tokens,
            first_s=flow.first_byte_at - flow.dispatched_at,
            answer_tokens=usage.completion_tokens,
            rest_s=now - flow.first_byte_at,
        )
    return usage
