"""Things that happened, for people to read."""

from enum import StrEnum

from supervisord_cp.model.base import Value
from supervisord_cp.model.reason import NO_REASON, Reason


class Severity(StrEnum):
    """How loud."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Event(Value, frozen=True, kw_only=True):
    """One thing that happened. `age_ms` grows on each hop."""

    kind: str
    """Dotted, such as `instance.state`, `deployment.scaled`, `node.connected`."""
    subject: str
    """The id of what it happened to."""
    message: str = ""
    severity: Severity = Severity.INFO
    node: str = ""
    reason: Reason = NO_REASON
    data: dict[str, str | int | float | None] = {}
    age_ms: int = 0
