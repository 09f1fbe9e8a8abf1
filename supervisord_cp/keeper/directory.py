"""The incarnation's directory. A keeper works inside it, so every name here is relative to that."""

import contextlib
import fcntl
import json
import os
from collections.abc import Mapping
from typing import Any

from supervisord_cp.keeper.protocol import LOCK


def hold_lock() -> int | None:
    """Take the directory for as long as this process lives. None: another keeper or sweeper has it."""
    lock = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def read_document(name: str) -> Any | None:
    """A JSON document, None when it is missing or not whole."""
    try:
        with open(name, "rb") as file:
            return json.loads(file.read())
    except (OSError, ValueError):
        return None


def write_document(name: str, document: Mapping[str, object]) -> None:
    """Replace a document: after a crash there is the old one or the new one, never a torn one.

    Raises:
        OSError: the disk is full, the directory was removed, …
    """
    temporary = name + ".tmp"
    file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        data = json.dumps(document).encode()
        while data:
            data = data[os.write(file, data) :]
        os.fsync(file)
    finally:
        os.close(file)
    os.rename(temporary, name)
    _sync_directory()


def remove(name: str) -> None:
    """Remove a file that may be gone already."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name)


def complain(text: str) -> None:
    """A line for keeper.err, which lies on the same disk that may be full."""
    with contextlib.suppress(OSError):
        os.write(2, f"{text}\n".encode(errors="backslashreplace"))


def exists(name: str) -> bool:
    return os.path.exists(name)


def _sync_directory() -> None:
    directory = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
