"""What goes out to engines, and what of their heads goes back to clients."""

from collections.abc import Mapping
from typing import Final

from supervisord_cp.model.base import Incarnation
from supervisord_cp.router.endpoint import Endpoint
from supervisord_cp.router.exchange import Exchange
from supervisord_cp.router.http1.head import RequestHead

SMALL: Final = 16 * 1024
"""Bodies up to here are copied behind their head: one write costs less than two."""

_WITH_BODY: Final = frozenset({b"POST", b"PUT", b"PATCH"})
_SWITCH: Final = b"connection: upgrade\r\nupgrade: websocket\r\n"


class Credentials:
    """Which Authorization an engine gets: its own key, the client's, or none.

    The client's is passed on only where we asked for none ourselves.
    """

    __slots__ = ("_lines", "ours")

    def __init__(self) -> None:
        self.ours = False
        """Whether clients authenticate to us."""
        self._lines: dict[Incarnation, bytes] = {}

    def replace(self, keys: Mapping[Incarnation, str]) -> None:
        """Take over the keys of all engines."""
        self._lines = {
            incarnation: f"authorization: Bearer {key}\r\n".encode()
            for incarnation, key in keys.items()
            if key
        }

    def lines(self, head: RequestHead, incarnation: Incarnation) -> bytes:
        """The header lines that go to an incarnation."""
        line = self._lines.get(incarnation)
        if line is not None:
            return line
        if self.ours:
            return b""
        values = head.values
        passed = [name for name in (b"authorization", b"x-api-key") if name in values]
        return b"".join([b"%b: %b\r\n" % (name, values[name]) for name in passed])


def asks_to_switch(exchange: Exchange) -> bool:
    """Whether a websocket is asked for. A body with that is none of the protocol's: then it is a request like
    any other, as an engine that does not switch would read an unframed body as its next request."""
    return exchange.head.upgrade and not exchange.body


def upstream_message(
    exchange: Exchange, endpoint: Endpoint, lines: bytes, left_ms: int | None = None
) -> list[bytes | bytearray]:
    """The request as it is written to an engine, in one piece or, when its body is large, in two.

    `lines` are header lines of our own; `left_ms` is what is left of the client's deadline.
    """
    head, body = exchange.head, exchange.body
    end = b"\r\n"
    if asks_to_switch(exchange):
        end = _SWITCH + end
    elif body or head.method in _WITH_BODY:
        end = b"content-length: %d\r\n\r\n" % len(body)
    if left_ms is not None:
        end = b"x-deadline-ms: %d\r\n%b" % (left_ms, end)
    whole = len(body) <= SMALL
    first = b"".join(
        (
            head.method,
            b" ",
            endpoint.prefix,
            head.target,
            b" HTTP/1.1\r\n",
            endpoint.host_line,
            head.fields,
            lines,
            end,
            body if whole else b"",
        )
    )
    return [first] if whole else [first, body]
