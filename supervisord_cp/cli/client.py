"""Talking to central's control listener."""

import getpass
import http.client
import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Final
from urllib.parse import SplitResult, quote, urlencode, urlsplit

from supervisord_cp.errors import SupervisordError, Unreachable, UsageError

TOKEN_VARIABLE: Final = "SUPERVISORD_CP_TOKEN"  # noqa: S105 the name of a variable
DEFAULT_ADDRESS: Final = "http://127.0.0.1:9001"
TIMEOUT_S: Final = 10.0


class NotFound(SupervisordError):
    """Central knows no such thing."""


class ControlClient:
    """The control API, one connection per request: commands ask once or follow one stream."""

    def __init__(self, address: str, token: str = "", *, timeout_s: float = TIMEOUT_S) -> None:
        parts = _parts(address)
        self.address = f"{parts.scheme}://{parts.netloc}"
        self._host = parts.hostname or ""
        self._tls = parts.scheme == "https"
        self._port = parts.port or (443 if self._tls else 80)
        self._token = token
        self._timeout_s = timeout_s

    def get(self, *path: str, **query: object) -> Any:
        """The JSON value at `/api/v1/` and `path`, whose parts are quoted here."""
        return self._json("GET", path, query)

    def post(self, *path: str, body: Mapping[str, object], timeout_s: float | None = None) -> Any:
        """The JSON answer to a request for action, which may take longer than others."""
        return self._json("POST", path, {}, json.dumps(body).encode(), timeout_s)

    def stream(self, *path: str, **query: object) -> Iterator[bytes]:
        """The pieces of an answer as they come; ends when central ends it."""
        connection, response = self._send("GET", path, query, None, read_timeout_s=None)
        try:
            while piece := response.read1(65536):
                yield piece
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from error
        finally:
            connection.close()

    def _json(
        self,
        method: str,
        path: tuple[str, ...],
        query: Mapping[str, object],
        body: bytes | None = None,
        timeout_s: float | None = None,
    ) -> Any:
        connection, response = self._send(
            method, path, query, body, read_timeout_s=timeout_s or self._timeout_s
        )
        try:
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from error
        finally:
            connection.close()
        try:
            return json.loads(content or b"null")
        except ValueError as error:
            raise SupervisordError(f"{self.address} does not answer like a central: no JSON") from error

    def _send(
        self,
        method: str,
        path: tuple[str, ...],
        query: Mapping[str, object],
        body: bytes | None,
        *,
        read_timeout_s: float | None,
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        target = "/api/v1/" + "/".join(quote(part, safe="") for part in path)
        if query:
            target += "?" + urlencode(query)
        headers = {"Accept": "application/json"}
        if body is not None:
            headers |= {"Content-Type": "application/json", "X-Supervisord-Cp-Actor": _actor()}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        kind = http.client.HTTPSConnection if self._tls else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=max(self._timeout_s, read_timeout_s or 0.0))
        try:
            connection.request(method, target, body, headers)
            response = connection.getresponse()
            if response.status >= 300:
                raise self._failure(response.status, response.read())
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise self._unreachable(error) from error
        except SupervisordError:
            connection.close()
            raise
        if connection.sock is not None:
            connection.sock.settimeout(read_timeout_s)
        return connection, response

    def _unreachable(self, error: Exception) -> Unreachable:
        return Unreachable(
            f"central does not answer at {self.address}: {_why(error)}"
            " (start one with `supervisord-cp up`, or name another with --address)"
        )

    def _failure(self, status: int, content: bytes) -> SupervisordError:
        message = _message(content)
        if status in (401, 403):
            return SupervisordError(
                f"{self.address} refuses: {message or 'a token is needed'}"
                f" (--token-file FILE, or ${TOKEN_VARIABLE}; see central's tokens_file)"
            )
        text = message or f"{self.address} answers with status {status}"
        return NotFound(text) if status == 404 else SupervisordError(text)


def _actor() -> str:
    """Who types, for central's events: a name without a login is the number of the user."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}".encode("ascii", "replace").decode()


def _parts(address: str) -> SplitResult:
    with suppress(ValueError):
        parts = urlsplit(address if "://" in address else f"http://{address}")
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return parts
    raise UsageError(f"{address!r} is not the address of a central; write it like {DEFAULT_ADDRESS}")


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer in {TIMEOUT_S:g} s"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__


def _message(content: bytes) -> str:
    """The message of an error's body: `{"error": "…"}` or `{"error": {"message": "…"}}`."""
    try:
        error = json.loads(content)["error"]
    except (ValueError, TypeError, KeyError):
        return ""
    return str(error.get("message", "")) if isinstance(error, dict) else str(error)
