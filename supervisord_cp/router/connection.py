"""One connection of a client: reads requests one after the other, and makes an exchange of each."""

import asyncio
from collections.abc import Callable
from typing import Final, Protocol, cast

from supervisord_cp.core.routing.rejection import Rejected, Rejection, RejectReason
from supervisord_cp.router.exchange import Exchange, request_head
from supervisord_cp.router.http1.body import BadBody, Body, ChunkedBody, LengthBody
from supervisord_cp.router.http1.head import MOST_HEAD_BYTES, RequestHead
from supervisord_cp.router.http1.recurring import HeadReader, RecurringHeads
from supervisord_cp.router.limits import Limits
from supervisord_cp.router.socket_exchange import SocketExchange

MOST_PIPELINED: Final = 64 * 1024
LINGER_S: Final = 5.0
LINGER_BYTES: Final = 16 * 1024 * 1024
STALL_S: Final = 300.0
LEAST_RATE: Final = 1024
"""Bytes per second of a body, on the mean, that a client must manage after `header_timeout_s`."""
BEYOND: Final = 64
"""Connections above the bound that are told so; the next ones are closed without a word."""
_NEVER: Final = float("inf")


class Core(Protocol):
    """Who answers."""

    def admit(self, head: RequestHead, peer: str) -> str:
        """Asked when the head is there and before the body is read: the name of the client's key.

        Raises:
            Rejected: the request is refused, and its body not wanted.
        """
        ...

    def serve(self, exchange: Exchange) -> None:
        """Answer a request whose body is complete, now or later."""
        ...

    def refuse(self, exchange: Exchange, rejection: Rejection) -> None:
        """Refuse a request that did not get as far as to be served."""
        ...


class ClientConnection(asyncio.Protocol):
    """Reads strictly one request at a time: while one is being answered, what the client sends is kept up
    to a bound, then not read."""

    __slots__ = (
        "_body",
        "_body_begun",
        "_buffer",
        "_clock",
        "_connections",
        "_content",
        "_core",
        "_deadline",
        "_exchange",
        "_grace_s",
        "_head",
        "_heads",
        "_key",
        "_limits",
        "_lingered",
        "_peer",
        "_reading_held",
        "_slow_since",
        "_working",
        "closing",
        "transport",
    )

    transport: asyncio.Transport

    def __init__(
        self,
        core: Core,
        limits: Limits,
        heads: RecurringHeads[RequestHead],
        connections: "set[ClientConnection]",
        clock: Callable[[], float],
    ) -> None:
        self._core = core
        self._limits = limits
        self._heads: HeadReader[RequestHead] = HeadReader(heads)
        self._connections = connections
        self._clock = clock
        self._peer = ""
        self._buffer = b""
        self._head: RequestHead | None = None
        self._key = ""
        self._body: Body | None = None
        self._content: bytes | bytearray = b""
        """What has come of the body; put together in place, so that there is never a second copy."""
        self._body_begun = 0.0
        self._exchange: SocketExchange | None = None
        self._deadline = _NEVER
        self._slow_since = _NEVER
        self._reading_held = False
        self._working = False
        self._lingered = -1
        """Bytes thrown away since we said goodbye; -1 before."""
        self.closing = False
        """Whether the next answer is the last one."""
        self._grace_s = 0.0

    # --- the transport's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        peername = transport.get_extra_info("peername")
        self._peer = str(peername[0]) if peername else ""
        self._connections.add(self)
        self._deadline = self._clock() + self._limits.idle_timeout_s
        if len(self._connections) > self._limits.max_connections:
            self._turn_away()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        self._deadline = _NEVER
        self._content = b""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.lost()

    def data_received(self, data: bytes) -> None:
        if self._exchange is not None:
            self._data_while_busy(self._exchange, data)
        elif self._lingered >= 0:
            self._lingered += len(data)
            if self._lingered > LINGER_BYTES:
                self.transport.abort()
        elif self._body is not None:
            self._read_body(data)
            self._work()
        else:
            begins = not self._buffer
            self._buffer = data if begins else self._buffer + data
            self._work()
            if begins and self._awaits_head():
                self._deadline = self._clock() + self._limits.header_timeout_s
            if self._slow and len(self._buffer) > MOST_PIPELINED:
                self.hold_reading(True)

    def eof_received(self) -> None:
        """Nothing more comes: the transport closes, and nobody is left to answer."""

    def pause_writing(self) -> None:
        self._slow_since = self._clock()
        if self._exchange is not None and self._exchange.events is not None:
            self._exchange.events.client_slow()

    def resume_writing(self) -> None:
        self._slow_since = _NEVER
        if self._exchange is None:
            self.hold_reading(False)
            self._work()
        elif self._exchange.events is not None:
            self._exchange.events.client_ready()

    # --- the exchange's calls

    def answered(self, keep: bool) -> None:
        """The exchange is over and its answer written."""
        self._exchange = None
        # An answer that began before we drain has promised that one more request may come.
        keep = keep and (not self.closing or self._grace_s > 0)
        if self._lingered >= 0 or (self._buffer and not keep):
            self._linger()
            return
        if not keep:
            self.transport.close()
            return
        self._deadline = self._clock() + (self._grace_s if self.closing else self._limits.idle_timeout_s)
        if self._reading_held:
            self.hold_reading(False)
        if self._buffer:
            self._deadline = self._clock() + self._limits.header_timeout_s
            self._work()

    def switched(self) -> None:
        """The connection carries another protocol now; what the client has sent already belongs to it."""
        data, self._buffer = self._buffer, b""
        if data and self._exchange is not None and self._exchange.events is not None:
            self._exchange.events.client_data(data)

    def abort(self) -> None:
        """Break the connection off."""
        self._exchange = None
        self.transport.abort()

    def hold_reading(self, held: bool) -> None:
        """Stop or resume reading."""
        if held is not self._reading_held and not self.transport.is_closing():
            self._reading_held = held
            if held:
                self.transport.pause_reading()
            else:
                self.transport.resume_reading()

    # --- the listener's calls

    def tick(self, now: float) -> None:
        """Look at the deadlines."""
        if now - self._slow_since > STALL_S:
            self.transport.abort()
        elif self._exchange is not None or self._slow or now < self._deadline:
            return
        elif self._lingered >= 0 or not (self._buffer or self._head):
            self.transport.abort()
        else:
            message = "The request did not arrive in time."
            self._refuse(Rejection(reason=RejectReason.REQUEST_TIMEOUT, message=message))

    def drain(self, grace_s: float) -> None:
        """Answer what has been asked, then close. One that is idle, or was promised to be kept, is closed
        after `grace_s` seconds: a request may be on its way."""
        self.closing = True
        self._grace_s = grace_s
        if self._exchange is None and not self._buffer and self._head is None and self._lingered < 0:
            if grace_s:
                self._deadline = min(self._deadline, self._clock() + grace_s)
            else:
                self.transport.close()

    # --- reading

    @property
    def kept_bytes(self) -> int:
        """What has come of requests that nobody has read yet."""
        return len(self._buffer)

    @property
    def _slow(self) -> bool:
        """Whether the client does not take what has been written."""
        return self._slow_since != _NEVER

    def _work(self) -> None:
        """Read and hand over requests as long as there are whole ones, none is being answered, and the client
        has taken the answers to those before."""
        if self._working:  # an answer that came at once has called us back
            return
        self._working = True
        try:
            while self._exchange is None and not (self._slow or self._lingered >= 0):
                if self.transport.is_closing():
                    break
                if self._head is None:
                    if not self._read_head():
                        break
                elif self._body is not None:
                    break
                if self._is_whole():
                    self._hand_over()
        except Rejected as error:
            self._refuse(error.rejection)
        finally:
            self._working = False

    def _awaits_head(self) -> bool:
        """Whether a head has begun to come."""
        return bool(self._buffer) and self._exchange is None and self._head is None

    def _is_whole(self) -> bool:
        return self._head is not None and self._body is None

    def _read_head(self) -> bool:
        buffer = self._buffer
        if buffer.startswith(b"\r\n"):  # left over from an old client's previous request
            buffer = self._buffer = buffer[2:]
        head = self._heads.read(buffer)
        if head is None:
            if len(buffer) > MOST_HEAD_BYTES:
                raise Rejected(
                    RejectReason.HEADERS_TOO_LARGE,
                    f"The request's head is larger than {MOST_HEAD_BYTES} bytes.",
                )
            return False
        at, length = self._heads.size, self._heads.length
        self._buffer = b""
        try:
            self._key = self._core.admit(head, self._peer)
            if length > self._limits.max_body:
                raise self._too_large()
        except Rejected as error:
            if head.chunked or at + length > len(buffer):
                self._head = head
                raise
            self._buffer = buffer[at + length :]
            self._answer_refusal(head, error.rejection)
            return True
        self._head = head
        if head.chunked or at + length > len(buffer):
            self._begin_body(head, length, buffer[at:])
        else:
            self._content = buffer[at : at + length]
            self._buffer = buffer[at + length :]
        return True

    def _begin_body(self, head: RequestHead, length: int, rest: bytes) -> None:
        self._body = ChunkedBody() if head.chunked else LengthBody(length)
        self._content = bytearray()
        self._body_begun = self._clock()
        self._deadline = self._body_begun + self._limits.header_timeout_s
        if rest:
            self._read_body(rest)
        elif head.expects_continue:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _read_body(self, data: bytes) -> None:
        assert self._body is not None
        parts: list[bytes] = []
        try:
            end = self._body.feed(data, parts)
        except BadBody as error:
            self._refuse(Rejection(reason=RejectReason.BAD_REQUEST, message=f"The body is refused: {error}."))
            return
        for part in parts:
            self._content += part
        if len(self._content) > self._limits.max_body:
            self._refuse(self._too_large().rejection)
        elif end >= 0:
            self._body = None
            self._buffer = data[end:]
        else:
            whole = self._body_begun + len(self._content) / LEAST_RATE
            self._deadline = min(self._clock(), whole) + self._limits.header_timeout_s

    def _hand_over(self) -> None:
        head, body = self._head, self._content
        assert head is not None
        self._head = None
        self._content = b""
        self._deadline = _NEVER
        self._exchange = exchange = SocketExchange(self, head, body, self._peer, self._key)
        self._core.serve(exchange)

    def _data_while_busy(self, exchange: SocketExchange, data: bytes) -> None:
        if exchange.switched and exchange.events is not None:
            exchange.events.client_data(data)
            return
        self._buffer = self._buffer + data if self._buffer else data
        if len(self._buffer) > MOST_PIPELINED:
            self.hold_reading(True)

    # --- refusing

    def _turn_away(self) -> None:
        """There are too many connections already."""
        if len(self._connections) > self._limits.max_connections + BEYOND:
            self.transport.abort()
        else:
            message = f"The router has {self._limits.max_connections} connections, the most it may have."
            self._refuse(Rejection(reason=RejectReason.NO_CAPACITY, message=message, retry_after_s=1))

    def _linger(self) -> None:
        """Throw away what the client still sends, for a while: closing at once would make its kernel drop
        our answer before it is read."""
        self._buffer = b""
        self._lingered = max(0, self._lingered)
        self._deadline = self._clock() + LINGER_S
        self.hold_reading(False)
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def _too_large(self) -> Rejected:
        return Rejected(
            RejectReason.BODY_TOO_LARGE, f"The request's body is larger than {self._limits.max_body} bytes."
        )

    def _answer_refusal(self, head: RequestHead, rejection: Rejection) -> None:
        """Refuse one request and go on with the next."""
        self._exchange = exchange = SocketExchange(self, head, b"", self._peer, "")
        self._core.refuse(exchange, rejection)

    def _refuse(self, rejection: Rejection) -> None:
        """Refuse, and end the connection: where the next request begins is not known, or not waited for."""
        head = self._head or request_head("GET", "/")
        self._head = self._body = None
        self._buffer = self._content = b""
        self._lingered = 0
        exchange = SocketExchange(self, head, b"", self._peer, "")
        exchange.close_after()
        self._exchange = exchange
        self._core.refuse(exchange, rejection)
