"""Logins of the status page: a token is shown once, a cookie stands for it from then on."""

import secrets
from collections.abc import Callable
from typing import Final

from aiohttp import web

from supervisord_cp.model.base import Value

ROLE: Final = web.RequestKey("role", str)
"""Who asks; "" where no tokens are configured, or none are needed."""
COOKIE: Final = "supervisord_cp_session"
LASTS_S: Final = 12 * 3600.0
MOST: Final = 1000


class Session(Value, frozen=True, kw_only=True):
    """One login."""

    role: str
    proof: str
    """The `Authorization` header it was made with: a token that goes out of the file ends its sessions."""
    until: float


class Sessions:
    """Logins by the cookie's value. Kept in memory: a restart of central asks for the token again."""

    def __init__(self, clock: Callable[[], float], role_of: Callable[[str], str | None]) -> None:
        """`role_of`: of an `Authorization` header."""
        self._clock = clock
        self._role_of = role_of
        self._sessions: dict[str, Session] = {}

    def open(self, token: str) -> str | None:
        """The cookie for a token of an operator or viewer; None for anything else."""
        proof = f"Bearer {token}"
        role = self._role_of(proof)
        if role not in ("operator", "viewer"):
            return None
        self._forget_old()
        name = secrets.token_urlsafe(32)
        self._sessions[name] = Session(role=role, proof=proof, until=self._clock() + LASTS_S)
        return name

    def role(self, cookie: str) -> str | None:
        """Whose cookie it is."""
        session = self._sessions.get(cookie)
        if session is None or session.until < self._clock() or self._role_of(session.proof) != session.role:
            self._sessions.pop(cookie, None)
            return None
        return session.role

    def close(self, cookie: str) -> None:
        """Log out."""
        self._sessions.pop(cookie, None)

    def _forget_old(self) -> None:
        now = self._clock()
        for name in [name for name, one in self._sessions.items() if one.until < now]:
            del self._sessions[name]
        while len(self._sessions) >= MOST:
            del self._sessions[next(iter(self._sessions))]
