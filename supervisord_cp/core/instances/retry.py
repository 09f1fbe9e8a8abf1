"""What a failure means for the next start, and what ends the wait. Pure."""

from msgspec.structs import replace

from supervisord_cp.core.instances.backoff import backoff_s, retry_of
from supervisord_cp.core.instances.life import Ended, History, Launch
from supervisord_cp.model.launch import DesiredInstance


def failed(
    history: History,
    launch: Launch,
    ended: Ended,
    *,
    inputs: str,
    now: float,
    chance: float,
    forgive_after_s: float,
) -> History:
    """The history after nothing is left of a launch that ended unasked, or that never came up."""
    since = history.ready_since
    healthy = since is not None and ended.at - since >= forgive_after_s
    failures = 1 if healthy or launch != history.failed else history.failures + 1
    return replace(
        history,
        restarts=history.restarts + 1,
        failures=failures,
        retry_at=now + backoff_s(ended.cause, failures, chance, served=since is not None),
        last=ended,
        failed=launch,
        inputs=inputs,
        ready=None,
        ready_since=None,
    )


def must_wait(history: History, desired: DesiredInstance, now: float) -> bool:
    """Whether a failure still delays the next start. Asking for something else ends the wait."""
    if history.retry_at is None or now >= history.retry_at:
        return False
    return history.failed is None or history.failed.serves(desired)


def awaits_change(history: History) -> bool:
    """Whether another program, model or configuration of the node would end the wait."""
    return history.last is not None and retry_of(history.last.cause).mendable


def looked_at(history: History, inputs: str) -> History:
    """The history after a look at what the launch depends on: if that is not what failed, what failed
    says nothing any more."""
    if not inputs or not history.inputs or inputs == history.inputs or not awaits_change(history):
        return history
    return replace(history, retry_at=None, failures=0, inputs=inputs)
