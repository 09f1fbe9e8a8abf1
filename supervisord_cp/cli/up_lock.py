"""One `up` per state directory: a locked file that says who it is and where."""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from supervisord_cp.errors import SupervisordError

POLL_S: Final = 0.1
ENDING_S: Final = 60.0
"""How long the engines of a killed `up` may take to be stopped."""


class AlreadyRunning(SupervisordError):
    """Another `up` has the state directory."""

    def __init__(self, state_dir: Path, owner: Mapping[str, object]) -> None:
        super().__init__(
            f"already running in {state_dir}: pid {owner.get('pid', '?')},"
            f" API {owner.get('api', '?')}, control {owner.get('control', '?')}"
            " (--state-dir DIR with --api and --control starts another one)"
        )


class UpLock:
    """The lock of a state directory, held.

    Children inherit the descriptor: as long as one of them lives the lock is held, also when `up`
    itself was killed.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self.descriptor = descriptor

    def write(self, owner: Mapping[str, object]) -> None:
        """Say who holds it: `pid`, `api`, `control`, `config`."""
        os.ftruncate(self.descriptor, 0)
        os.pwrite(self.descriptor, json.dumps(owner).encode(), 0)

    def release(self) -> None:
        """Remove the file, then let go."""
        with contextlib.suppress(OSError):
            self._path.unlink()
        os.close(self.descriptor)


def acquire(state_dir: Path, *, say: Callable[[str], None], ending_s: float = ENDING_S) -> UpLock:
    """Lock a state directory, waiting for what a killed `up` left behind to end.

    Raises:
        AlreadyRunning: an `up` runs there, or its children did not end in time.
    """
    path = state_dir / "up.lock"
    deadline = time.monotonic() + ending_s
    said = False
    while (lock := _try(path)) is None:
        owner = _owner(path)
        if _alive(owner.get("pid")) or time.monotonic() > deadline:
            raise AlreadyRunning(state_dir, owner)
        if not said:
            say(
                f"the `up` with pid {owner.get('pid', '?')} was killed; waiting for its engines to be stopped"
            )
            said = True
        time.sleep(POLL_S)
    return lock


def running_config(state_dir: Path) -> Path | None:
    """The configuration of the `up` that runs in a state directory; None: none runs there."""
    owner = _owner(state_dir / "up.lock")
    config = owner.get("config")
    return Path(config) if isinstance(config, str) and _alive(owner.get("pid")) else None


def _try(path: Path) -> UpLock | None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), path.stat()):
            return UpLock(path, descriptor)
    except (BlockingIOError, FileNotFoundError):
        pass  # held, or removed by its holder between our two steps
    os.close(descriptor)
    return None


def _owner(path: Path) -> Mapping[str, object]:
    try:
        owner = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return owner if isinstance(owner, dict) else {}


def _alive(pid: object) -> bool:
    if not isinstance(pid, int):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
