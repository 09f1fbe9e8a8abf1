"""Log lines in vLLM's style."""

import contextlib
import sys
import time
from collections.abc import Iterable
from typing import TextIO


def log(process: str, pid: int, place: str, message: str, level: str = "INFO") -> None:
    """One line on stdout, such as `(EngineCore pid=7) INFO 11-22 13:06:28 [core.py:402] init took 1.83 s`."""
    _write(
        sys.stdout, f"({process} pid={pid}) {level} {time.strftime('%m-%d %H:%M:%S')} [{place}] {message}\n"
    )


def log_http(message: str) -> None:
    """One line on stderr, as uvicorn writes about its server."""
    _write(sys.stderr, f"INFO:     {message}\n")


def log_access(line: str) -> None:
    """One line on stdout for an answered request."""
    _write(sys.stdout, f"INFO:     {line}\n")


def log_lines(lines: Iterable[str]) -> None:
    """Lines on stderr as they are."""
    for line in lines:
        _write(sys.stderr, f"{line}\n")


def _write(stream: TextIO, text: str) -> None:
    """Write a line; a log that nobody reads any more is no reason to fail."""
    with contextlib.suppress(OSError):
        stream.write(text)
        stream.flush()
