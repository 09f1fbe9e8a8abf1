"""The line of a log that says best why a process ended."""

import re
from collections.abc import Iterable
from typing import Final

LONGEST: Final = 240
_ERROR: Final = re.compile(
    r"(?<![\w.])(?:[\w.]*(?:Error|Exception)\b\s*:|[Ee]rror:|ERROR\b|FATAL\b|CRITICAL\b|fatal:)"
)
_TOKEN: Final = re.compile(r"\b(?:hf|sk)[_-][A-Za-z0-9_-]{8,}|(?<=Bearer )\S+")
HIDDEN: Final = "***"


def last_error(text: str, *, secrets: Iterable[str] = ()) -> str:
    """The last line that looks like an error, shortened, without `secrets` and what looks like a token."""
    for line in reversed(text.splitlines()):
        if _ERROR.search(line):
            return redacted(line.strip(), secrets)[:LONGEST]
    return ""


def redacted(text: str, secrets: Iterable[str]) -> str:
    """The text with secrets blotted out."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, HIDDEN)
    return _TOKEN.sub(HIDDEN, text)
