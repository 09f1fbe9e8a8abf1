"""Tokens in files: who may do what at a listener, and what we say to others."""

import hmac
import logging
import stat
from pathlib import Path
from typing import Final

from supervisord_cp.errors import UsageError
from supervisord_cp.model.base import Value

log = logging.getLogger(__name__)

ROLES: Final = ("agent", "operator", "viewer")


class _Entry(Value, frozen=True, kw_only=True):
    role: str
    token: bytes


class TokenFile:
    """Lines `role: token`; read again when the file changes. Blank lines and `#` comments are skipped.

    A role may have several tokens, so that one can be replaced while both are known.
    """

    def __init__(self, path: Path) -> None:
        """Read it.

        Raises:
            UsageError: it cannot be read, anybody may write it, or a line is not `role: token`.
        """
        self._path = path
        self._seen = _signature(path)
        self._entries = _parse(path)

    def role_of(self, header: str | None) -> str | None:
        """The role of an `Authorization` header (`Bearer TOKEN`), None when it has none."""
        scheme, _, token = (header or "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        offered = token.strip().encode()
        role: str | None = None
        self._refresh()
        for entry in self._entries:  # all of them: the time taken says nothing about which
            if hmac.compare_digest(entry.token, offered):
                role = entry.role
        return role

    def _refresh(self) -> None:
        """A file that has become bad changes nothing; that is said once."""
        seen = _signature(self._path)
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self._entries = _parse(self._path)
        except UsageError as error:
            log.error("tokens stay as they were: %s", error)
        else:
            log.info("tokens read again from %s", self._path)


def read_token(path: Path | None, *roles: str) -> str:
    """Our own token: the file's only line, or that of the first of `roles` in lines `role: token`.

    "" without a file.

    Raises:
        UsageError: it cannot be read, anybody may write it, or there is no such token in it.
    """
    if path is None:
        return ""
    lines = [line for _, line in secret_lines(path)]
    by_role = {role: token for role, token in map(_split, lines) if role in ROLES and token}
    for role in roles:
        if role in by_role:
            return by_role[role]
    if len(lines) == 1 and not by_role:
        return lines[0]
    raise UsageError(f"{path} holds no token: one line with the token, or `{(*roles, 'role')[0]}: TOKEN`")


def _parse(path: Path) -> tuple[_Entry, ...]:
    entries: list[_Entry] = []
    for number, line in secret_lines(path):
        role, token = _split(line)
        if role not in ROLES or not token:
            raise UsageError(f"{path}:{number}: not `role: token` with a role of {', '.join(ROLES)}")
        entries.append(_Entry(role=role, token=token.encode()))
    if not entries:
        raise UsageError(f"{path} holds no token; write lines such as `operator: TOKEN`")
    return tuple(entries)


def _split(line: str) -> tuple[str, str]:
    role, _, token = line.partition(":")
    return role.strip(), token.strip()


def secret_lines(path: Path) -> list[tuple[int, str]]:
    """The lines of a file with secrets that say something, with their numbers.

    Raises:
        UsageError: it cannot be read, or anybody may write it.
    """
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    if mode & stat.S_IWOTH:
        raise UsageError(f"{path} can be written by every user of this host; run: chmod o= {path}")
    if mode & stat.S_IROTH:
        log.warning("%s can be read by every user of this host; run: chmod o= %s", path, path)
    stripped = ((number, line.strip()) for number, line in enumerate(text.splitlines(), start=1))
    return [(number, line) for number, line in stripped if line and not line.startswith("#")]


def _signature(path: Path) -> tuple[int, int, int] | None:
    """What changes when the file is written or replaced; None: it is not there."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
