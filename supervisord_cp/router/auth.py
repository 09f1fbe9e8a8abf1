"""Clients' API keys: `name: key` lines of a file, read again when it changes."""

import hashlib
import hmac
import logging
import os
from pathlib import Path
from typing import Final

from supervisord_cp.adapters.tokens import secret_lines
from supervisord_cp.errors import UsageError

log = logging.getLogger(__name__)

_DIGEST_BYTES: Final = 16


class ApiKeys:
    """Looks keys up by a keyed digest, so that the time a look-up takes tells nothing about the keys."""

    def __init__(self, path: Path | None) -> None:
        """
        Raises:
            UsageError: the file cannot be read, anybody may write it, or a line of it is no `name: key`.
        """
        self._path = path
        self._secret = os.urandom(_DIGEST_BYTES)
        self._names: dict[bytes, str] = {}
        self._version: tuple[int, int, int] | None = None
        if path is not None:
            try:
                self._version = _version(path)
                self._names = self._read(path)
            except OSError as error:
                raise UsageError(f"router.api_keys_file: {path}: {error.strerror}") from error

    @property
    def required(self) -> bool:
        """Whether clients need one."""
        return self._path is not None

    def name_of(self, authorization: bytes, api_key: bytes) -> str | None:
        """The name of the key that a client has sent, as `Authorization: Bearer` or `x-api-key`; None when it
        is not among ours."""
        scheme, _, token = authorization.partition(b" ")
        key = token.strip() if scheme.lower() == b"bearer" else api_key
        if not key:
            return None
        digest = self._digest(key)
        name = self._names.get(digest)
        return name if name is not None and hmac.compare_digest(digest, self._digest(key)) else None

    def refresh(self) -> bool:
        """Read the file again if it has changed. What cannot be read leaves the keys as they are.

        Returns whether the keys may be other ones now."""
        if self._path is None:
            return False
        try:
            version = _version(self._path)
            if version == self._version:
                return False
            self._version = version
            self._names = self._read(self._path)
            log.info("read %d API keys again from %s", len(self._names), self._path)
            return True
        except (OSError, UsageError) as error:
            if self._version is not None:
                log.error("API keys are kept as they were: %s", error)
            self._version = None
        return False

    def _read(self, path: Path) -> dict[bytes, str]:
        names: dict[bytes, str] = {}
        for number, line in secret_lines(path):
            name, colon, key = line.partition(":")
            if not colon or not name.strip() or not key.strip():
                raise UsageError(f"{path}:{number}: a line is `name: key`")
            names[self._digest(key.strip().encode())] = name.strip()
        return names

    def _digest(self, key: bytes) -> bytes:
        return hashlib.blake2b(key, key=self._secret, digest_size=_DIGEST_BYTES).digest()


def _version(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size, status.st_ino
