"""What an agent keeps on disk besides the records of its back end: the book, histories, the lock."""

import contextlib
import fcntl
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
from msgspec.structs import replace

from supervisord_cp.core.instances.gpu_health import GpuRecord
from supervisord_cp.core.instances.intake import Book
from supervisord_cp.core.instances.life import History
from supervisord_cp.core.instances.startup import StartHistory
from supervisord_cp.errors import UsageError
from supervisord_cp.model.base import DeploymentName, DeviceId, InstanceId, Value

log = logging.getLogger(__name__)

BOOK: Final = "desired.json"
STARTS: Final = "starts.json"
HISTORIES: Final = "histories"
GPUS: Final = "gpus.json"
LOCK: Final = "agent.lock"


class _KeptHistory(Value, frozen=True, kw_only=True):
    """Monotonic times mean something within one boot only."""

    boot_id: str
    history: History


class _KeptGpus(Value, frozen=True, kw_only=True):
    """A reboot is what ill GPUs need: their records end with the boot."""

    boot_id: str
    gpus: dict[DeviceId, GpuRecord]


class StateDir:
    """A state directory. Files are replaced atomically and readable by their owner only."""

    def __init__(self, path: Path, *, boot_id: str) -> None:
        """Make the directory if need be.

        Raises:
            UsageError: it cannot be made or written.
        """
        self.path = path
        self._boot_id = boot_id
        try:
            (path / HISTORIES).mkdir(mode=0o700, parents=True, exist_ok=True)
            path.chmod(0o700)  # records hold engine keys
        except OSError as error:
            raise UsageError(f"the state directory {path} cannot be used: {error}") from error

    def lock(self) -> "AgentLock":
        """Take the directory for this process.

        Raises:
            UsageError: another agent has it.
        """
        return AgentLock(self.path / LOCK)

    def load_book(self) -> Book:
        """What was last taken over; an unreadable file counts as none, and is kept aside."""
        path = self.path / BOOK
        try:
            return msgspec.json.decode(path.read_bytes(), type=Book)
        except FileNotFoundError:
            return Book()
        except (OSError, msgspec.MsgspecError) as error:
            log.error("%s cannot be read: %s; running engines are kept as they are", path, error)
            with contextlib.suppress(OSError):
                path.replace(path.with_suffix(".bad"))
            return Book()

    def save_book(self, book: Book) -> None:
        """Blocks until it is on disk: it must survive a power cut.

        Raises:
            OSError: the disk is full, or worse.
        """
        _replace(self.path / BOOK, msgspec.json.encode(book), durable=True)

    def load_history(self, instance: InstanceId, now: float) -> History:
        """The history of an instance. Of an earlier boot no time is of use: starts are tried again at once,
        and when they fail the same way the waits go on to grow."""
        try:
            kept = msgspec.json.decode(self._history(instance).read_bytes(), type=_KeptHistory)
        except FileNotFoundError:
            return History()
        except (OSError, msgspec.MsgspecError) as error:
            log.warning("history of %s begins anew: %s", instance, error)
            return History()
        history = kept.history
        if kept.boot_id == self._boot_id:
            return history
        last = replace(history.last, at=now) if history.last is not None else None
        return replace(history, last=last, retry_at=None, ready=None, ready_since=None)

    def save_history(self, instance: InstanceId, history: History) -> None:
        """Quick; a power cut may lose it. A full disk costs the history, not the engine."""
        kept = _KeptHistory(boot_id=self._boot_id, history=history)
        try:
            _replace(self._history(instance), msgspec.json.encode(kept), durable=False)
        except OSError as error:
            log.warning("history of %s cannot be written: %s", instance, error)

    def load_gpus(self) -> dict[DeviceId, GpuRecord]:
        """What was known of the GPUs' health in this boot."""
        try:
            kept = msgspec.json.decode((self.path / GPUS).read_bytes(), type=_KeptGpus)
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.MsgspecError) as error:
            log.warning("what was known of GPUs begins anew: %s", error)
            return {}
        return kept.gpus if kept.boot_id == self._boot_id else {}

    def save_gpus(self, records: dict[DeviceId, GpuRecord]) -> None:
        """Quick; a power cut may lose it, and ends it anyway."""
        kept = _KeptGpus(boot_id=self._boot_id, gpus=records)
        try:
            _replace(self.path / GPUS, msgspec.json.encode(kept), durable=False)
        except OSError as error:
            log.warning("the health of GPUs cannot be written: %s", error)

    def load_starts(self) -> dict[DeploymentName, StartHistory]:
        """What starts have taken, by deployment; unreadable is unknown."""
        try:
            content = (self.path / STARTS).read_bytes()
            return msgspec.json.decode(content, type=dict[DeploymentName, StartHistory])
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.MsgspecError) as error:
            log.warning("what starts have taken begins anew: %s", error)
            return {}

    def save_starts(self, histories: Mapping[DeploymentName, StartHistory]) -> None:
        """Quick; a full disk costs the estimates only."""
        try:
            _replace(self.path / STARTS, msgspec.json.encode(histories), durable=False)
        except OSError as error:
            log.warning("what starts have taken cannot be written: %s", error)

    def forget(self, instance: InstanceId) -> None:
        """Remove what is kept of an instance."""
        with contextlib.suppress(OSError):
            self._history(instance).unlink(missing_ok=True)

    def _history(self, instance: InstanceId) -> Path:
        return self.path / HISTORIES / f"{instance}.json"


class AgentLock:
    """An exclusive lock that ends with the process, however it ends."""

    def __init__(self, path: Path) -> None:
        """Take it.

        Raises:
            UsageError: another process has it.
        """
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(self._descriptor, 32).decode(errors="replace").strip() or "?"
            os.close(self._descriptor)
            raise UsageError(
                f"another agent (pid {holder}) runs on the state directory {path.parent}; "
                "stop it, or give this one a state_dir of its own"
            ) from error
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let another agent have it."""
        os.close(self._descriptor)


def boot_id() -> str:
    """The kernel's random name of the present boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _replace(path: Path, content: bytes, *, durable: bool) -> None:
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:  # noqa: PTH123
        file.write(content)
        file.flush()
        if durable:
            os.fsync(file.fileno())
    temporary.replace(path)
    if durable:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
