"""What a look at something found."""

from enum import StrEnum

from supervisord_cp.model.base import Value


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


class Finding(Value, frozen=True, kw_only=True):
    """One line of the answer."""

    subject: str
    level: Level
    message: str
    remedy: str = ""
    """What to type or do; "" when all is well."""


def ok(subject: str, message: str) -> Finding:
    """All is well."""
    return Finding(subject=subject, level=Level.OK, message=message)


def warning(subject: str, message: str, remedy: str) -> Finding:
    """It works, but not as it might, or not for long."""
    return Finding(subject=subject, level=Level.WARNING, message=message, remedy=remedy)


def error(subject: str, message: str, remedy: str) -> Finding:
    """It does not work."""
    return Finding(subject=subject, level=Level.ERROR, message=message, remedy=remedy)
