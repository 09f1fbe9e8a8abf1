"""Log lines of the daemons: `key=value` on standard error, one event a line."""

import logging
import sys
from datetime import UTC, datetime
from typing import Final, TextIO

LEVELS: Final = ("debug", "info", "warning", "error")
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_QUIET: Final = ("aiohttp.access", "asyncio")
"""Loggers of libraries that are of no use below a warning."""


class KeyValueFormatter(logging.Formatter):
    """`time=… level=… logger=… msg="…"`, then the record's `extra` fields; a traceback follows indented."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC)
        fields: dict[str, object] = {
            "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name.removeprefix("supervisord_cp."),
            "msg": record.getMessage(),
        }
        fields |= {key: value for key, value in vars(record).items() if key not in _STANDARD}
        line = " ".join(f"{key}={_quoted(str(value))}" for key, value in fields.items())
        if record.exc_info:
            line += "\n" + _indented(self.formatException(record.exc_info))
        return line


def configure(level: str, stream: TextIO | None = None) -> None:
    """Send everything from `level` up to `stream` (standard error). Replaces an earlier configuration."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(KeyValueFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


def _quoted(text: str) -> str:
    if text and not any(character in text for character in ' "=\n\r\t'):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{escaped}"'


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
