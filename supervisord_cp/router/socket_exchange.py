"""The answer of one exchange, written to a client's socket."""

from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from supervisord_cp.router.exchange import Exchange
from supervisord_cp.router.http1.head import RequestHead

if TYPE_CHECKING:
    from supervisord_cp.router.connection import ClientConnection

_STATUS_LINES: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}
_BODILESS: Final = frozenset({204, 304})
_CLOSE: Final = b"connection: close\r\n"
_KEEP: Final = b"connection: keep-alive\r\n"
_SWITCH: Final = b"connection: upgrade\r\nupgrade: websocket\r\n"
_CHUNKED: Final = b"transfer-encoding: chunked\r\n"


# How the body is delimited on this connection. Plain numbers: members of an Enum are slow to look up.
_NONE: Final = 0
_LENGTH: Final = 1
_FRAMED: Final = 2
_CHUNKING: Final = 3
_UNTIL_CLOSE: Final = 4
_SWITCHED: Final = 5


class SocketExchange(Exchange):
    """One request of a client connection. The head is kept back until there is something to go with it."""

    __slots__ = ("_connection", "_framing", "_keep", "_left", "_pending", "over")

    def __init__(
        self,
        connection: "ClientConnection",
        head: RequestHead,
        body: bytes | bytearray,
        peer: str,
        key: str,
    ) -> None:
        self.head = head
        self.body = body
        self.peer = peer
        self.key = key
        self.takes_chunks = head.http11
        self.events = None
        self.over = False
        self._connection = connection
        self._framing = _NONE
        self._keep = head.keep_alive
        self._left = 0
        self._pending = b""

    @property
    def switched(self) -> bool:
        """Whether the connection speaks another protocol now."""
        return self._framing == _SWITCHED

    def start(self, status: int, fields: bytes, length: int | None, framed: bool = False) -> None:
        http11 = self.head.http11
        if status in _BODILESS or self.head.method == b"HEAD":
            self._framing = _NONE
            framing = b"" if length is None or status == 204 else b"content-length: %d\r\n" % length
        elif length is not None and not framed:
            self._framing = _LENGTH
            self._left = length
            framing = b"content-length: %d\r\n" % length
        elif framed or http11:
            self._framing = _FRAMED if framed else _CHUNKING
            framing = _CHUNKED
        else:
            self._framing = _UNTIL_CLOSE
            self._keep = False
            framing = b""
        if self._connection.closing:
            self._keep = False
        if self._keep is not http11:
            framing += _KEEP if self._keep else _CLOSE
        first = _STATUS_LINES.get(status) or f"HTTP/1.1 {status} \r\n".encode()
        self._pending = first + fields + framing + b"\r\n"

    def write(self, data: bytes) -> None:
        if self.over:
            return
        framing = self._framing
        if framing != _FRAMED:
            if framing == _LENGTH:
                self._left -= len(data)
            elif framing == _CHUNKING:
                data = b"%x\r\n%b\r\n" % (len(data), data)
            elif framing == _NONE:
                data = b""
        if self._pending:
            data = self._pending + data
            self._pending = b""
        self._connection.transport.write(data)

    def end(self) -> None:
        if self.over:
            return
        if self._framing == _LENGTH and self._left:
            self.abort()
            return
        last = b"0\r\n\r\n" if self._framing == _CHUNKING else b""
        if self._pending or last:
            self._connection.transport.write(self._pending + last)
            self._pending = b""
        self.over = True
        self._connection.answered(self._keep and self._framing != _SWITCHED)

    def abort(self) -> None:
        if not self.over:
            self.over = True
            self._connection.abort()

    def switch(self, fields: bytes) -> None:
        self._framing = _SWITCHED
        self._connection.transport.write(b"".join((_STATUS_LINES[101], fields, _SWITCH, b"\r\n")))
        self._connection.switched()

    def hold_reading(self, held: bool) -> None:
        if not self.over:
            self._connection.hold_reading(held)

    def close_after(self) -> None:
        """Let the connection end with this answer, whatever the client asked for."""
        self._keep = False

    def lost(self) -> None:
        """The client is gone."""
        if not self.over:
            self.over = True
            if self.events is not None:
                self.events.client_gone()
