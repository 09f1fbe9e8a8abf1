"""One connection to an engine: sends a request, follows the answer's framing, and is used again."""

import asyncio
from collections.abc import Callable
from typing import Final, cast

from supervisord_cp.model.base import Incarnation
from supervisord_cp.router.endpoint import Endpoint
from supervisord_cp.router.http1.body import BadBody, Body, ChunkedBody, LengthBody, OpenBody
from supervisord_cp.router.http1.fields import BadHead
from supervisord_cp.router.http1.head import MOST_HEAD_BYTES, ResponseHead
from supervisord_cp.router.http1.recurring import NO_LENGTH, HeadReader, RecurringHeads

STALE_WITHIN_S: Final = 1.0
_NO_BODY: Final = frozenset({204, 304})
_SWITCHED: Final = 101


class AnswerReader:
    """Who waits for an answer. As it is, it is somebody who does not want to know."""

    __slots__ = ()

    def answer_head(self, head: ResponseHead, length: int | None) -> bool:
        """The head is there, and the length of the body, None when it is chunked or ends with the connection.
        True: give the content of a chunked body; False: give it framed, as it comes."""
        return False

    def answer_data(self, data: bytes) -> None:
        """A piece of the body."""

    def answer_end(self) -> None:
        """The answer is complete."""

    def answer_lost(self, why: str, *, stale: bool) -> None:
        """The connection broke before that. `stale`: it had been kept idle and broke right away."""

    def answer_invalid(self, why: str) -> None:
        """What came is no HTTP."""

    def engine_slow(self) -> None:
        """The engine does not take bytes as fast as they are written."""

    def engine_ready(self) -> None:
        """It has caught up."""


class UpstreamConnection(asyncio.Protocol):
    """A connection to one incarnation. `idle` is called when it can be used again, `gone` when it cannot."""

    __slots__ = (
        "_bodiless",
        "_body",
        "_clock",
        "_decode",
        "_gone",
        "_head",
        "_heads",
        "_idle",
        "_keep",
        "_reader",
        "_reading_held",
        "_sent_at",
        "_used",
        "endpoint",
        "idle_since",
        "incarnation",
        "transport",
    )

    transport: asyncio.Transport

    def __init__(
        self,
        incarnation: Incarnation,
        endpoint: Endpoint,
        heads: RecurringHeads[ResponseHead],
        *,
        idle: "Callable[[UpstreamConnection], None]",
        gone: "Callable[[UpstreamConnection], None]",
        clock: Callable[[], float],
    ) -> None:
        self.incarnation = incarnation
        self.endpoint = endpoint
        self._heads: HeadReader[ResponseHead] = HeadReader(heads)
        self.idle_since = 0.0
        self._idle = idle
        self._gone = gone
        self._clock = clock
        self._reader: AnswerReader | None = None
        self._head = b""
        self._body: Body | None = None
        self._decode = False
        self._bodiless = False
        self._keep = True
        self._used = False
        self._reading_held = False
        self._sent_at = 0.0

    # --- the reader's calls

    def send(self, reader: AnswerReader, pieces: list[bytes | bytearray], now: float, bodiless: bool) -> None:
        """Send a request. `bodiless`: its answer has no body, whatever the answer's head says (HEAD)."""
        self._reader = reader
        self._bodiless = bodiless
        self._sent_at = now
        for piece in pieces:
            self.transport.write(piece)

    def write(self, data: bytes) -> None:
        """More bytes, after a switch of protocols."""
        self.transport.write(data)

    def hold_reading(self, held: bool) -> None:
        """Stop or resume reading."""
        if held is not self._reading_held and not self.transport.is_closing():
            self._reading_held = held
            if held:
                self.transport.pause_reading()
            else:
                self.transport.resume_reading()

    def leave(self) -> None:
        """Nobody wants the answer any more: close at once, which makes the engine stop."""
        self._reader = None
        self.transport.abort()

    def finish(self) -> None:
        """Nobody has anything more to send: close when all is written."""
        self._reader = None
        self.transport.close()

    def discard_answer(self) -> None:
        """The head was enough; what follows is read so that the connection can be used again."""
        self._reader = AnswerReader()

    # --- the transport's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._reader is None:  # nobody asked
            self.transport.abort()
            return
        if self._body is None and not (data := self._read_head(data)):
            return
        self._read_body(data)

    def connection_lost(self, exc: Exception | None) -> None:
        reader, self._reader = self._reader, None
        body, self._body = self._body, None
        self._gone(self)
        if reader is None:
            return
        if body is not None and body.open_ended and exc is None:
            reader.answer_end()
            return
        nothing_came = body is None and not self._head
        stale = self._used and nothing_came and self._clock() - self._sent_at < STALE_WITHIN_S
        reader.answer_lost(str(exc) if exc else "the engine closed the connection", stale=stale)

    def eof_received(self) -> None:
        """Nothing more comes: the transport closes."""

    def pause_writing(self) -> None:
        if self._reader is not None:
            self._reader.engine_slow()

    def resume_writing(self) -> None:
        if self._reader is not None:
            self._reader.engine_ready()

    # --- following the answer

    def _read_head(self, data: bytes) -> bytes:
        """Take the head. Returns what is left of the data: the beginning of the body."""
        data = self._head + data if self._head else data
        while True:
            try:
                head = self._heads.read(data)
            except BadHead as error:
                self._invalid(f"its head is refused: {error}")
                return b""
            if head is None:
                self._head = data
                if len(data) > MOST_HEAD_BYTES:
                    self._invalid("its head is too large")
                return b""
            data = data[self._heads.size :]
            if head.status >= 200 or head.status == _SWITCHED:
                break
        self._head = b""
        self._keep = head.keep_alive
        reader = self._reader
        assert reader is not None
        length = self._heads.length
        self._decode = reader.answer_head(head, None if length == NO_LENGTH else length) and head.chunked
        if self._bodiless or head.status in _NO_BODY:
            length = 0
        elif head.status == _SWITCHED:
            length = NO_LENGTH
        if length == len(data) or not length:  # all of it came with its head
            self._read_whole(data if length else b"", length == len(data))
            return b""
        if length != NO_LENGTH:
            self._body = LengthBody(length)
        else:
            self._body = ChunkedBody() if head.chunked else OpenBody()
        return data

    def _read_whole(self, data: bytes, clean: bool) -> None:
        reader = self._reader
        if reader is None:
            return
        if data:
            reader.answer_data(data)
        if self._reader is reader:
            self._complete(reader, clean)

    def _read_body(self, data: bytes) -> None:
        reader, body = self._reader, self._body
        if reader is None or body is None:
            return
        try:
            if self._decode:
                parts: list[bytes] = []
                end = body.feed(data, parts)
                content = b"".join(parts)
            elif (end := body.feed(data)) < 0:  # what costs, once for each piece of a stream
                reader.answer_data(data)
                return
            else:
                content = data[:end]
        except BadBody as error:
            self._invalid(str(error))
            return
        if content:
            reader.answer_data(content)
        if end >= 0 and self._reader is reader:
            self._complete(reader, end == len(data))

    def _complete(self, reader: AnswerReader, clean: bool) -> None:
        """The answer is whole. The connection is kept when the engine keeps it, has sent nothing beyond, and
        has taken all of the request."""
        self._reader = self._body = None
        self._used = True
        if self._reading_held:
            self.hold_reading(False)
        flushed = not self.transport.get_write_buffer_size()
        if self._keep and clean and flushed and not self.transport.is_closing():
            self._idle(self)
        else:
            self.transport.close()
        reader.answer_end()

    def _invalid(self, why: str) -> None:
        reader, self._reader = self._reader, None
        self.transport.abort()
        if reader is not None:
            reader.answer_invalid(why)
