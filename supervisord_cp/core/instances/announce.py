"""Transitions told to people."""

from collections.abc import Iterator, Mapping
from typing import Final

from supervisord_cp.core.instances.life import Life, Stage
from supervisord_cp.core.instances.show import how, shown
from supervisord_cp.model.event import Event, Severity
from supervisord_cp.model.instance import InstanceState
from supervisord_cp.model.reason import ReasonCode, render

_LOUD: Final[Mapping[InstanceState, Severity]] = {
    InstanceState.DEGRADED: Severity.WARNING,
    InstanceState.BACKOFF: Severity.WARNING,
}


def announcements(before: Life, after: Life, now: float) -> Iterator[Event]:
    """One event for a change of state; of an unrequested end only the one that tells its cause, which is
    known when its tree is gone."""
    if after.history.restarts > before.history.restarts and (last := after.history.last) is not None:
        yield Event(
            kind="instance.failed",
            subject=after.desired.id,
            message=f"ended unasked: {how(last)}",
            severity=Severity.ERROR,
            data={
                "deployment": after.desired.deployment,
                "incarnation": after.run.incarnation if after.run is not None else "",
                "code": last.code,
                "signal": last.signal,
                "cause": last.cause.value,
                "detail": last.detail,
                "restarts": after.history.restarts,
            },
        )
    (old, old_reason), (new, reason) = shown(before, now), shown(after, now)
    if new is InstanceState.GATED:
        # Every start passes the gate; only what holds it up there is worth a word.
        if reason.code is ReasonCode.NONE or (new is old and reason.code is old_reason.code):
            return
    elif new is InstanceState.CRASHED or (new is old and after.stage is not Stage.ABSENT):
        return
    words = render(reason)
    state = "removed" if after.stage is Stage.ABSENT else new.value
    yield Event(
        kind="instance.state",
        subject=after.desired.id,
        message=f"{state}: {words}" if words else state,
        severity=Severity.ERROR if reason.code is ReasonCode.UNKILLABLE else _LOUD.get(new, Severity.INFO),
        reason=reason,
        data={
            "deployment": after.desired.deployment,
            "from": old.value,
            "to": state,
            "incarnation": after.run.incarnation if after.run is not None else "",
        },
    )
