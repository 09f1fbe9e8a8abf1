"""The daemons that `up` runs as its children."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

FIRST_DELAY_S: Final = 0.1
LONGEST_DELAY_S: Final = 30.0
FORGIVEN_AFTER_S: Final = 60.0
LOG_KEEP_BYTES: Final = 16 * 1024 * 1024
LAST_WORDS: Final = 200
"""Characters of a log's last line that are shown."""
USAGE_EXIT: Final = 2
"""Exit status of a daemon that cannot be run as it is configured."""


def restart_delay(failures: int) -> float:
    """Seconds before the next start after so many ends in a row."""
    return min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** min(failures - 1, 16))


class Child:
    """One daemon: its process, its log, and when to start it again."""

    def __init__(self, name: str, arguments: Sequence[str], log_path: Path, inherit: int) -> None:
        self.name = name
        self.log_path = log_path
        self._argv = [sys.executable, "-P", "-m", "supervisord_cp", name, *arguments]
        self._inherit = inherit
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._next_start: float | None = None
        self._failures = 0
        self.starts = 0

    @property
    def status(self) -> int | None:
        """How its last process ended; None while it runs."""
        return None if self._process is None else self._process.poll()

    @property
    def running(self) -> bool:
        """Whether its process lives."""
        return self._process is not None and self._process.poll() is None

    def start(self, now: float) -> None:
        """Start it; its output is appended to its log."""
        _rotate(self.log_path)
        with self.log_path.open("ab") as log:
            # A session of its own: the terminal's Ctrl-C is for us alone, who know the right order.
            self._process = subprocess.Popen(
                [*self._argv, "--with-parent", str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=(self._inherit,),
            )
        self._started, self._next_start = now, None
        self.starts += 1

    def watch(self, now: float, say: Callable[[str], None]) -> int | None:
        """Start it again when it is time. Returns the exit status of an end that was just seen."""
        if self._next_start is not None:
            if now >= self._next_start:
                self.start(now)
            return None
        if self._process is None or (status := self._process.poll()) is None:
            return None
        self._failures = 1 if now - self._started > FORGIVEN_AFTER_S else self._failures + 1
        delay = restart_delay(self._failures)
        self._next_start = now + delay
        if status != USAGE_EXIT:
            why = f": {self.last_words(1)[:LAST_WORDS]}" if status > 0 else ""
            say(f"{self.name} ended with {_how(status)}{why}; next start in {delay:g} s; see {self.log_path}")
        return status

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if it lives."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def last_words(self, lines: int = 5) -> str:
        """The end of its log."""
        with contextlib.suppress(OSError), self.log_path.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 4096))
            return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])
        return ""


def _how(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"status {status}"


def _rotate(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > LOG_KEEP_BYTES:
            path.replace(path.with_name(path.name + ".1"))
