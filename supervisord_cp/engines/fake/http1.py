"""HTTP/1.1 messages: an incremental request parser, and responses framed as uvicorn frames them."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qsl, unquote

MAX_HEAD: Final = 65_536


class BadRequest(Exception):
    """Not HTTP, or nothing that we would answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A whole request. Header names are lower-case; of repeated headers the last counts."""

    method: str
    path: str
    """Decoded, without the query."""
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    version: str = "1.1"
    peer: str = ""
    target: str = ""
    """As received, for the log."""

    @property
    def keep_alive(self) -> bool:
        connection = self.headers.get("connection", "").lower()
        return "close" not in connection if self.version == "1.1" else "keep-alive" in connection

    @property
    def wants_websocket(self) -> bool:
        return self.headers.get("upgrade", "").lower() == "websocket"


class RequestParser:
    """Bytes in, requests out."""

    def __init__(self, peer: str = "") -> None:
        self._peer = peer
        self._buffer = bytearray()
        self._head: Request | None = None
        self._length: int | None = 0
        """Length of the body; None when it is chunked."""
        self._body = bytearray()
        self._continue_due = False

    def feed(self, data: bytes) -> None:
        self._buffer += data

    @property
    def idle(self) -> bool:
        """True between requests."""
        return self._head is None and not self._buffer

    def take_continue(self) -> bool:
        """Whether `100 Continue` is due: once for a request that expects it and whose body is awaited."""
        due, self._continue_due = self._continue_due, False
        return due

    def take_rest(self) -> bytes:
        """What came after the last request: the first bytes of an upgraded connection."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest

    def next(self) -> Request | None:
        """The next request, None while it is not complete.

        Raises:
            BadRequest: it never will be.
        """
        if self._head is None and not self._parse_head():
            return None
        if not (self._take_chunks() if self._length is None else self._take_body(self._length)):
            return None
        head, body = self._head, bytes(self._body)
        assert head is not None
        self._head, self._body, self._continue_due = None, bytearray(), False
        return replace(head, body=body)

    def _parse_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            first, newline, _ = self._buffer.partition(b"\r\n")
            if len(self._buffer) > MAX_HEAD or (newline and first.count(b" ") != 2):
                raise BadRequest("Invalid HTTP request received.")
            return False
        lines = bytes(self._buffer[:end]).decode("latin-1").split("\r\n")
        del self._buffer[: end + 4]
        self._head = _parse_lines(lines, self._peer)
        self._length = _body_length(self._head.headers)
        self._continue_due = self._head.headers.get("expect", "").lower() == "100-continue"
        return True

    def _take_body(self, length: int) -> bool:
        if len(self._buffer) < length:
            return False
        self._body += self._buffer[:length]
        del self._buffer[:length]
        return True

    def _take_chunks(self) -> bool:
        while (end := self._buffer.find(b"\r\n")) >= 0:
            try:
                size = int(self._buffer[:end].split(b";")[0], 16)
            except ValueError:
                raise BadRequest("Invalid HTTP request received.") from None
            start = end + 2
            if size == 0:
                done = self._buffer.find(b"\r\n", start)
                if done != start:
                    done = self._buffer.find(b"\r\n\r\n", start) + 2  # trailers
                if done < start:
                    return False
                del self._buffer[: done + 2]
                return True
            if len(self._buffer) < start + size + 2:
                return False
            self._body += self._buffer[start : start + size]
            del self._buffer[: start + size + 2]
        return False


def _parse_lines(lines: list[str], peer: str) -> Request:
    parts = lines[0].split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
        raise BadRequest("Invalid HTTP request received.")
    method, target, version = parts
    headers = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise BadRequest("Invalid HTTP request received.")
        headers[name.lower()] = value.strip()
    path, _, query = target.partition("?")
    return Request(
        method=method,
        path=unquote(path),
        query=dict(parse_qsl(query, keep_blank_values=True)),
        headers=headers,
        version=version.removeprefix("HTTP/"),
        peer=peer,
        target=target,
    )


def _body_length(headers: Mapping[str, str]) -> int | None:
    coding, length = headers.get("transfer-encoding"), headers.get("content-length")
    if coding is not None:
        if length is not None or coding.lower() != "chunked":
            raise BadRequest("Invalid HTTP request received.")
        return None
    if length is None:
        return 0
    if not length.isdecimal():
        raise BadRequest("Invalid HTTP request received.")
    return int(length)


def response_head(status: int, headers: Mapping[str, str]) -> bytes:
    """The head of a response, with date and server first."""
    date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime())
    lines = [f"HTTP/1.1 {status} {phrase(status)}", f"date: {date}", "server: uvicorn"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join((*lines, "", "")).encode("latin-1", "replace")


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body; of no data, the last one."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def phrase(status: int) -> str:
    """The reason phrase of a status."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
