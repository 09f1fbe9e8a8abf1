"""What a client that waits is told: its position and the time that it will still wait, as comments in its
event stream."""

import json
from typing import TYPE_CHECKING, Final

from supervisord_cp.router.answers import id_line
from supervisord_cp.router.exchange import Exchange
from supervisord_cp.router.http1.head import RequestHead

if TYPE_CHECKING:
    from supervisord_cp.router.flow import Flow

HEADER: Final = b"x-queue-updates"
MOST_KEPT: Final = 64 * 1024
_STREAM: Final = b"content-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
_OK: Final = 200


def wanted_s(head: RequestHead, default_s: float) -> float:
    """How often a request wants to hear something while it waits, in seconds; 0: never.

    Raises:
        ValueError: the header is there and no number of seconds from 0 to 3600.
    """
    given = head.values.get(HEADER)
    if given is None:
        return default_s
    seconds = float(given)
    if not 0 <= seconds <= 3600:
        raise ValueError("out of bounds")
    return seconds


class StreamBegun(Exchange):
    """An exchange whose event stream has begun with comments, before there was an answer.

    An event stream that comes as the answer follows them. Any other answer, an error most of all, can no
    longer have its status: it is passed on as one event, and `[DONE]`, as vLLM ends streams that fail.
    """

    def __init__(self, exchange: Exchange, request_id: str) -> None:
        self.head = exchange.head
        self.body, exchange.body = exchange.body, b""
        self.peer = exchange.peer
        self.key = exchange.key
        self.takes_chunks = False
        self.events = None
        self._exchange = exchange
        self._other: bytearray | None = None
        """An answer that is no event stream, as far as it has come."""
        self._status = _OK
        exchange.start(_OK, _STREAM + id_line(request_id), None)

    def comment(self, text: str) -> None:
        """Something that event stream readers skip."""
        self._exchange.write(f": {text}\n\n".encode())

    def start(self, status: int, fields: bytes, length: int | None, framed: bool = False) -> None:
        if status != _OK or b"content-type: text/event-stream" not in fields.lower():
            self._status = status
            self._other = bytearray()

    def write(self, data: bytes) -> None:
        if self._other is None:
            self._exchange.write(data)
        elif len(self._other) < MOST_KEPT:
            self._other += data

    def end(self) -> None:
        if self._other is not None:
            event = as_event(bytes(self._other), self._status)
            self._exchange.write(b"data: %b\n\ndata: [DONE]\n\n" % event)
        self._exchange.end()

    def abort(self) -> None:
        self._exchange.abort()

    def switch(self, fields: bytes) -> None:
        self._exchange.abort()  # nobody asks for a stream and for another protocol

    def hold_reading(self, held: bool) -> None:
        self._exchange.hold_reading(held)

    def release(self) -> None:
        super().release()
        self._exchange.release()


def as_event(body: bytes, status: int) -> bytes:
    """An answer as the data of one event: JSON on one line, an error in OpenAI's shape."""
    try:
        value = json.loads(body)
    except ValueError:
        value = body.decode("utf-8", "replace")
    if status >= 400 and not (isinstance(value, dict) and "error" in value):
        message = value if isinstance(value, str) else json.dumps(value)
        value = {"error": {"message": message, "type": "server_error", "param": None, "code": status}}
    return json.dumps(value).encode()


class QueueUpdates:
    """The requests that wait and want to hear of it."""

    def __init__(self, default_s: float) -> None:
        """`default_s`: how often, for streams that do not say; 0: never."""
        self._default_s = default_s
        self._next: dict[Flow, float] = {}

    def watch(self, flow: "Flow", now: float) -> None:
        """A request begins to wait."""
        if flow.request.stream and (every := wanted_s(flow.exchange.head, self._default_s)):
            self._next[flow] = now + every

    def tick(self, now: float) -> None:
        """To be called a few times a second."""
        for flow, at in tuple(self._next.items()):
            if flow not in flow.lane.line:
                del self._next[flow]
            elif now >= at:
                self._next[flow] = now + wanted_s(flow.exchange.head, self._default_s)
                self._tell(flow, now)

    def _tell(self, flow: "Flow", now: float) -> None:
        if not isinstance(flow.exchange, StreamBegun):
            flow.exchange = StreamBegun(flow.exchange, flow.request.id)
        place = flow.lane.place_of(flow, now)
        wait = "" if place.wait_s is None else f" wait_s={place.wait_s:.1f}"
        flow.exchange.comment(f"queued position={place.position}{wait}")
