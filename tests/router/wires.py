"""Connections without sockets: a transport that keeps what is written, and a core that answers at once."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from supervisord_cp.core.routing.rejection import Rejection
from supervisord_cp.router.connection import ClientConnection
from supervisord_cp.router.exchange import Exchange
from supervisord_cp.router.http1.head import RequestHead, parse_request
from supervisord_cp.router.http1.recurring import RecurringHeads
from supervisord_cp.router.limits import Limits

LIMITS = Limits(max_body=1_000_000, header_timeout_s=30.0, idle_timeout_s=75.0, max_connections=100)


class Wire(asyncio.Transport):
    """Nothing is ever slow here, and what is closed is closed at once."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False
        self.held = False
        """Whether it is not read from."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def can_write_eof(self) -> bool:
        return False

    def pause_reading(self) -> None:
        self.held = True

    def resume_reading(self) -> None:
        self.held = False

    def get_write_buffer_size(self) -> int:
        return 0


class Served(NamedTuple):
    """A request as the core was given it."""

    exchange: Exchange
    head: RequestHead
    body: bytes

    @property
    def told(self) -> tuple[bytes, bytes, bytes, bytes]:
        return self.head.method, self.head.target, self.head.fields, self.body


class Answerer:
    """A core that notes what it gets."""

    def __init__(self) -> None:
        self.served: list[Served] = []
        self.refused: list[str] = []

    def admit(self, head: RequestHead, peer: str) -> str:
        return ""

    def serve(self, exchange: Exchange) -> None:
        self.served.append(Served(exchange, exchange.head, exchange.body))
        exchange.start(200, b"", 0)
        exchange.end()

    def refuse(self, exchange: Exchange, rejection: Rejection) -> None:
        self.refused.append(rejection.reason)
        exchange.start(rejection.status, b"", 0)
        exchange.end()


class Wired:
    """A client's connection, for which time passes when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self.core = Answerer()
        self.wire = Wire()
        heads: RecurringHeads[RequestHead] = RecurringHeads(parse_request)
        self.connection = ClientConnection(self.core, LIMITS, heads, set(), lambda: self.now)
        self.connection.connection_made(self.wire)

    def send(self, data: bytes) -> None:
        if data and not self.wire.closed:
            self.connection.data_received(data)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.connection.tick(self.now)


def received(pieces: Sequence[bytes]) -> Answerer:
    """What comes of bytes that a client sends in these pieces."""
    client = Wired()
    for piece in pieces:
        client.send(piece)
    return client.core


def cut(data: bytes, places: Sequence[int]) -> Iterator[bytes]:
    """The data in pieces, cut at these places."""
    at = 0
    for place in (*sorted(set(places)), len(data)):
        yield data[at:place]
        at = place
