"""Where a message body ends, and what is in it."""

import re
from typing import Final, Protocol

_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(?:;[^\x00-\x08\x0a-\x1f\x7f]*+)?\r\n")
_TRAILER: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++:[^\x00-\x08\x0a-\x1f\x7f]*+\r\n")
_MOST_LINE: Final = 4096
_MOST_TRAILERS: Final = 16 * 1024


class BadBody(Exception):
    """Chunked coding that is malformed."""


class Body(Protocol):
    """Follows one message body."""

    def feed(self, data: bytes, parts: list[bytes] | None = None) -> int:
        """Take the bytes that came next; never empty.

        Content is appended to `parts` when that is given. Returns how many of `data`'s bytes belong to the
        body once it is complete, and -1 before (then all do).

        Raises:
            BadBody: the framing is malformed.
        """
        ...

    @property
    def open_ended(self) -> bool:
        """Whether the end of the connection is the end of the body."""
        ...


class LengthBody:
    """So many bytes."""

    __slots__ = ("_left",)
    open_ended: Final = False

    def __init__(self, length: int) -> None:
        self._left = length

    def feed(self, data: bytes, parts: list[bytes] | None = None) -> int:
        size, left = len(data), self._left
        if size < left:
            self._left = left - size
            if parts is not None:
                parts.append(data)
            return -1
        self._left = 0
        if parts is not None and left:
            parts.append(data if size == left else data[:left])
        return left


class OpenBody:
    """Everything until the connection ends."""

    __slots__ = ()
    open_ended: Final = True

    def feed(self, data: bytes, parts: list[bytes] | None = None) -> int:
        if parts is not None:
            parts.append(data)
        return -1


class ChunkedBody:
    """Chunked coding, strictly: sizes are bare hexadecimal digits, lines end with CRLF, trailers are fields
    (and are dropped)."""

    __slots__ = ("_ended", "_held", "_left", "_trailer_bytes")
    open_ended: Final = False

    def __init__(self) -> None:
        self._left = 0
        """Bytes of the present chunk that are still to come, its CRLF included."""
        self._held = b""
        """The beginning of a line."""
        self._trailer_bytes = -1
        """-1 before the last chunk."""
        self._ended = False

    def feed(self, data: bytes, parts: list[bytes] | None = None) -> int:
        held = len(self._held)
        if held:
            data = self._held + data
            self._held = b""
        at, size = 0, len(data)
        while at < size:
            if self._left:
                at = self._content(data, at, parts)
                continue
            if self._trailer_bytes >= 0:
                at = self._trailer(data, at)
                if self._ended:
                    return at - held
                continue
            line = _SIZE.match(data, at)
            if line is None:
                self._hold(data, at)
                break
            at, length = line.end(), int(line[1], 16)
            stop = at + length
            if not length:
                self._trailer_bytes = 0
            elif data.startswith(b"\r\n", stop):  # the whole chunk is here: by far the most common case
                if parts is not None:
                    parts.append(data[at:stop])
                at = stop + 2
            else:
                self._left = length + 2
        return -1

    def _content(self, data: bytes, at: int, parts: list[bytes] | None) -> int:
        """Step over content of a chunk, or over the CRLF behind it."""
        content = self._left - 2
        if content > 0:
            stop = min(at + content, len(data))
            if parts is not None:
                parts.append(data[at:stop])
        else:
            stop = min(at + self._left, len(data))
            if not b"\r\n"[-self._left :].startswith(data[at:stop]):
                raise BadBody("a chunk is longer than its size")
        self._left -= stop - at
        return stop

    def _trailer(self, data: bytes, at: int) -> int:
        """Step over a trailer, or over the empty line that ends the body."""
        end = data.find(b"\n", at) + 1
        if not end:
            self._hold(data, at)
            return len(data)
        if data[at:end] == b"\r\n":
            self._ended = True
            return end
        self._trailer_bytes += end - at
        if self._trailer_bytes > _MOST_TRAILERS or not _TRAILER.fullmatch(data, at, end):
            raise BadBody("a trailer is malformed or too long")
        return end

    def _hold(self, data: bytes, at: int) -> None:
        """Keep the beginning of a line until the rest comes."""
        if len(data) - at > _MOST_LINE or data.find(b"\n", at) >= 0:
            raise BadBody("a line of the chunked coding is malformed or too long")
        self._held = data[at:]
