"""The directory of an incarnation whose keeper is another user: group and modes, and patience."""

import logging
import os
import secrets
import time
from typing import Final, TypeVar

import msgspec

from supervisord_cp.adapters.keeper_directory import (
    EXIT,
    FAILED,
    LAUNCH,
    LOCK,
    ExitDocument,
    IncarnationDirectory,
)
from supervisord_cp.adapters.proctree import running_boot_id
from supervisord_cp.model.base import Value
from supervisord_cp.ports.process import ExitStatus, ProcessRecord

log = logging.getLogger(__name__)

SHARED_WAIT_S: Final = 10.0
SHARED_POLL_S: Final = 0.01

T = TypeVar("T")


class FailedDocument(Value, frozen=True, kw_only=True):
    """Why an engine could not be started."""

    message: str = ""


class SharedDirectory(IncarnationDirectory):
    """The group comes from the folder of all instances, which has the set-group-ID bit.

    What the keeper has just written is for its own user until its unit has shared it, so it is waited for.
    What is never shared, because that was killed too or the unit has another user by now, is missing.
    """

    def share(self) -> None:
        """Let the keeper at what was made for it.

        Raises:
            OSError: that is not possible.
        """
        lock = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(lock, 0o660)
        finally:
            os.close(lock)
        (self.path / LAUNCH).chmod(0o640)
        self.path.chmod(0o770)  # no set-group-ID bit: the agent's unit may not set it

    def started(self) -> ProcessRecord | None:
        """Who the engine is, None as long as it was not started."""
        record = self.record()
        return record if record is not None and record.pid != 0 else None

    def failure(self) -> str | None:
        """Why it could not be started, in the keeper's words; None when it did not say."""
        failed = self._read(FAILED, FailedDocument)
        return None if failed is None else failed.message

    def hides_its_end(self) -> bool:
        """Whether there is a record of its end that was never shared.

        Raises:
            OSError: it cannot be told.
        """
        try:
            super()._read(EXIT, ExitDocument)
        except PermissionError:
            return True
        return False

    def settle(self, seen: ExitStatus) -> None:
        """Record that nothing is left of it. How it ended stays as recorded, where that can be read; else
        it is as `seen`.

        Raises:
            OSError: the disk is full, or worse.
        """
        try:
            ended = super()._read(EXIT, ExitDocument)
        except PermissionError:
            ended = None
        if ended is None:
            ended = ExitDocument(
                code=seen.code,
                signal=seen.signal,
                requested=seen.requested,
                keeper_lost=seen.keeper_lost,
                boot_id=running_boot_id(),
                boottime_s=time.clock_gettime(time.CLOCK_BOOTTIME) - seen.age_s,
                time_s=time.time() - seen.age_s,
            )
        # A name that nobody foresees: what was the engine's may have left links here.
        new = self.path / f".{EXIT}.{secrets.token_hex(8)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with os.fdopen(os.open(new, flags, 0o640), "wb") as file:
            file.write(msgspec.json.encode(msgspec.structs.replace(ended, gone=True)))
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.path / EXIT)

    def _read(self, name: str, kind: type[T]) -> T | None:
        deadline = time.monotonic() + SHARED_WAIT_S
        while True:
            try:
                return super()._read(name, kind)
            except PermissionError as error:
                if time.monotonic() > deadline:
                    log.warning("%s cannot be read: %s", self.path / name, error.strerror)
                    return None
                time.sleep(SHARED_POLL_S)
