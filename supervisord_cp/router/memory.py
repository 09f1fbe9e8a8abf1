"""The last view of the fleet, on disk: a restarted router serves before central answers."""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from supervisord_cp.model.base import Incarnation, Value
from supervisord_cp.model.fleet import FleetSnapshot

log = logging.getLogger(__name__)

BETWEEN_WRITES_S: Final = 2.0
OLDEST_S: Final = 3600.0
_MODE: Final = 0o600
_FOLDER_MODE: Final = 0o700


class Remembered(Value, frozen=True, kw_only=True):
    """What is kept. Engine keys are in it, so the file is ours alone."""

    snapshot: FleetSnapshot
    keys: dict[Incarnation, str] = {}


class Memory:
    """One file, written beside and moved into place, at most every few seconds."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._changed = asyncio.Event()
        self._written = b""

    def recall(self) -> Remembered | None:
        """What an earlier router has left, unless it is missing, unreadable or old."""
        try:
            if time.time() - self._path.stat().st_mtime > OLDEST_S:
                return None
            return msgspec.json.decode(self._path.read_bytes(), type=Remembered)
        except (OSError, msgspec.DecodeError) as error:
            if not isinstance(error, FileNotFoundError):
                log.warning("what was remembered in %s cannot be used: %s", self._path, error)
            return None

    def changed(self) -> None:
        """There is something new to remember."""
        self._changed.set()

    async def run(self, current: Callable[[], Remembered | None]) -> None:
        """Write whenever something has changed, until cancelled. Gives up when the folder is not ours."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            remembered = current()
            if remembered is not None:
                encoded = msgspec.json.encode(remembered)
                try:
                    await asyncio.to_thread(self._write, encoded)
                except OSError as error:
                    log.info("the fleet is not remembered over restarts: %s", error)
                    return
            await asyncio.sleep(BETWEEN_WRITES_S)

    def _write(self, encoded: bytes) -> None:
        if encoded == self._written:
            return
        temporary = self._path.with_name(f"{self._path.name}.{os.getpid()}.tmp")
        try:
            self._path.parent.mkdir(mode=_FOLDER_MODE, exist_ok=True)
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _MODE)
            with os.fdopen(handle, "wb") as file:
                file.write(encoded)
            temporary.replace(self._path)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        self._written = encoded
