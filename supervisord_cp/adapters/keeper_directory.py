"""The directory of one incarnation, as the agent's side reads and writes it.

The documents are described in `keeper/protocol.py`; the keeper imports nothing of ours, so its side of
them is written there and this side here.
"""

import fcntl
import os
import shutil
import time
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from supervisord_cp.adapters.proctree import running_boot_id
from supervisord_cp.model.base import Value
from supervisord_cp.ports.process import ExitStatus, ProcessRecord, SpawnRequest, instances_directory

LAUNCH: Final = "launch.json"
RECORD: Final = "record.json"
FAILED: Final = "failed.json"
EXIT: Final = "exit.json"
LOCK: Final = "keeper.lock"
SOCKET: Final = "keeper.sock"
ERRORS: Final = "keeper.err"

T = TypeVar("T")


class ExitDocument(Value, frozen=True, kw_only=True):
    """How the main process ended, and whether anything of its tree is left."""

    code: int | None = None
    signal: int | None = None
    requested: bool = False
    keeper_lost: bool = False
    boot_id: str = ""
    boottime_s: float = 0.0
    time_s: float = 0.0
    gone: bool = False

    def status(self) -> ExitStatus:
        """The same, with the age that it has now."""
        if self.boot_id == running_boot_id():
            age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - self.boottime_s
        else:
            age_s = time.time() - self.time_s
        return ExitStatus(
            code=self.code,
            signal=self.signal,
            requested=self.requested,
            keeper_lost=self.keeper_lost,
            age_s=max(0.0, age_s),
        )


class StatusDocument(Value, frozen=True, kw_only=True):
    """What a keeper says of itself and its engine."""

    record: ProcessRecord | None = None
    exit: ExitDocument | None = None
    survivors: tuple[int, ...] = ()
    gone: bool = False
    log_dropped_bytes: int = 0


class AnswerDocument(Value, frozen=True, kw_only=True):
    """What a keeper answers when it was started."""

    answer: str
    record: ProcessRecord | None = None
    message: str = ""


class IncarnationDirectory:
    """Documents that are missing or not whole are None. One that is there and cannot be read (too many
    open files, a failing disk) raises OSError: unknown is not missing."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def create(self, request: SpawnRequest) -> None:
        """Make it, with the launch document in it.

        Raises:
            OSError: it exists, the disk is full, …
        """
        self.path.mkdir(mode=0o700, parents=True)
        document = msgspec.json.encode(msgspec.structs.asdict(request))
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with os.fdopen(os.open(self.path / LAUNCH, flags, 0o600), "wb") as file:
            file.write(document)

    def record(self) -> ProcessRecord | None:
        """Who the engine is. Of a start that was cut short: what was to be started, with pid 0."""
        if (record := self._read(RECORD, ProcessRecord)) is not None:
            return record
        if (launch := self._read(LAUNCH, SpawnRequest)) is None:
            return None
        return ProcessRecord(
            instance=launch.instance,
            incarnation=launch.incarnation,
            nonce=launch.nonce,
            boot_id="",
            pid=0,
            start_ticks=0,
            keeper_pid=0,
            keeper_start_ticks=0,
            meta=launch.meta,
        )

    def is_starting(self) -> bool:
        """Whether a keeper is at work that has not recorded its engine yet."""
        return not (self.path / RECORD).exists() and self.is_held()

    def exit(self) -> ExitDocument | None:
        """How it ended, as far as that is known yet."""
        return self._read(EXIT, ExitDocument)

    def is_over(self) -> bool:
        """Whether nothing of it can be alive."""
        if (ended := self.exit()) is not None and ended.gone:
            return True
        if (self.path / FAILED).exists():
            return True
        record = self.record()
        if record is None:
            return not self.is_held()
        return record.pid != 0 and record.boot_id != running_boot_id()

    def is_held(self) -> bool:
        """Whether a keeper or a sweeper has it."""
        try:
            lock = os.open(self.path / LOCK, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(lock)
        return False

    def errors(self) -> str:
        """The last line of what the keeper wrote to its standard error, "" when that is nothing."""
        try:
            lines = (self.path / ERRORS).read_text(encoding="utf-8", errors="replace").split("\n")
        except OSError:
            return ""
        return next((line for line in reversed(lines) if line.strip()), "")

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    def _read(self, name: str, kind: type[T]) -> T | None:
        try:
            return msgspec.json.decode((self.path / name).read_bytes(), type=kind)
        except (FileNotFoundError, NotADirectoryError, msgspec.MsgspecError):
            return None


def incarnations(home: Path) -> list[IncarnationDirectory]:
    """Those of one instance."""
    try:
        return [IncarnationDirectory(path) for path in sorted(home.iterdir()) if path.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return []


def all_incarnations(state_dir: Path) -> list[IncarnationDirectory]:
    """Those of every instance."""
    try:
        homes = sorted(instances_directory(state_dir).iterdir())
    except FileNotFoundError:
        return []
    return [directory for home in homes for directory in incarnations(home)]
