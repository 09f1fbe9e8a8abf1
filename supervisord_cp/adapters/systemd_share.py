"""`python -I -S …/systemd_share.py DIRECTORY`, run by an engine's unit after its start and at its end.

The keeper's files are for their owner only, the engine's user. This runs as that user too, and lets the
group of the directory at them: through the group the agent, a user of its own, talks to the keeper and
reads what it recorded.
"""

import contextlib
import os
import stat
import sys
import time
from pathlib import Path
from typing import Final

TOLD: Final = ("record.json", "failed.json")
"""What became of the start: one of them is there when that is known."""
FILE_MODE: Final = 0o640
SOCKET_MODE: Final = 0o660
WAIT_S: Final = 60.0
POLL_S: Final = 0.01


def main(directory: Path, keeper: str) -> None:
    """After a start: when it is known what became of it. At the end, with no keeper any more: at once."""
    deadline = time.monotonic() + WAIT_S
    while _runs(keeper) and not _is_told(directory) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    share(directory)


def share(directory: Path) -> None:
    """Everything there that is ours; what became of the start comes last, when the rest is ready."""
    for path in sorted(directory.iterdir(), key=lambda path: path.name in TOLD):
        with contextlib.suppress(FileNotFoundError):  # written anew at this moment
            status = path.lstat()
            if status.st_uid != os.geteuid():
                continue
            if stat.S_ISSOCK(status.st_mode):
                path.chmod(SOCKET_MODE)
            elif stat.S_ISREG(status.st_mode):
                path.chmod(FILE_MODE)


def _runs(pid: str) -> bool:
    return pid != "" and Path("/proc", pid).exists()


def _is_told(directory: Path) -> bool:
    return any((directory / name).exists() for name in TOLD)


if __name__ == "__main__":
    main(Path(sys.argv[1]), os.environ.get("MAINPID", ""))
