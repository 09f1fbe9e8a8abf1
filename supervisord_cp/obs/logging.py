"""Log lines of the daemons on standard error, one event a line: `key=value` for people, or JSON."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Final, TextIO

LEVELS: Final = ("debug", "info", "warning", "error")
FORMATS: Final = ("text", "json")
LEVEL_VARIABLE: Final = "SUPERVISORD_CP_LOG"
FORMAT_VARIABLE: Final = "SUPERVISORD_CP_LOG_FORMAT"
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_QUIET: Final = ("aiohttp.access", "asyncio", "urllib3")
"""Loggers of libraries that are of no use below a warning."""


class KeyValueFormatter(logging.Formatter):
    """`time=… level=… logger=… msg="…"`, then the record's `extra` fields; a traceback follows indented."""

    def format(self, record: logging.LogRecord) -> str:
        line = " ".join(f"{key}={_quoted(str(value))}" for key, value in _fields(record).items())
        if record.exc_info:
            line += "\n" + _indented(self.formatException(record.exc_info))
        return line


class JsonFormatter(logging.Formatter):
    """The same fields as an object in one line; numbers stay numbers, a traceback is a field."""

    def format(self, record: logging.LogRecord) -> str:
        fields = _fields(record)
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields, default=str)


def configure(level: str, form: str = "text", stream: TextIO | None = None) -> None:
    """Send everything from `level` up to `stream` (standard error), written as `form` (one of FORMATS).

    Replaces an earlier configuration.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else KeyValueFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


def _fields(record: logging.LogRecord) -> dict[str, object]:
    moment = datetime.fromtimestamp(record.created, UTC)
    return {
        "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": record.levelname.lower(),
        "logger": record.name.removeprefix("supervisord_cp."),
        "msg": record.getMessage(),
    } | {key: value for key, value in vars(record).items() if key not in _STANDARD}


def _quoted(text: str) -> str:
    if text and not any(character in text for character in ' "=\n\r\t'):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{escaped}"'


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
