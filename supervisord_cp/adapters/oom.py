"""The kernel's OOM killer, by its counter: who it killed is written in the kernel's log alone."""

from collections import deque
from pathlib import Path
from typing import Final

from supervisord_cp.clock import Clock

VMSTAT: Final = Path("/proc/vmstat")
WINDOW_S: Final = 20.0
"""An engine can outlive its killed part by some seconds: vLLM's server looks after its core every 5 s."""
APART_S: Final = 1.0


class OomWatch:
    """Counts recent kills. Wants to be looked at about once a second."""

    def __init__(self, clock: Clock, path: Path = VMSTAT) -> None:
        self._clock = clock
        self._path = path
        self._counts: deque[tuple[float, int]] = deque()

    def look(self) -> None:
        """Note how many there have been; quick, and often means nothing."""
        now = self._clock.now()
        if not self._counts or now - self._counts[-1][0] >= APART_S:
            self._note(now)

    def recent(self) -> int:
        """Processes of this host that were killed for want of memory within the last seconds."""
        self._note(self._clock.now())
        return self._counts[-1][1] - self._counts[0][1] if self._counts else 0

    def _note(self, now: float) -> None:
        count = kills(self._path)
        if count is None:
            return
        self._counts.append((now, count))
        while len(self._counts) > 1 and self._counts[1][0] <= now - WINDOW_S:
            self._counts.popleft()


def kills(path: Path = VMSTAT) -> int | None:
    """Kills since the host was started; None: the kernel does not count them."""
    try:
        text = path.read_text(encoding="ascii")
    except OSError:
        return None
    for line in text.splitlines():
        name, _, number = line.partition(" ")
        if name == "oom_kill" and number.isdigit():
            return int(number)
    return None
