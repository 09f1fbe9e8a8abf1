"""The seam between those who ask and the core that answers: one request, and the way back.

The listener makes an exchange of each request on a socket; `MemoryExchange` is one without a socket, for
the Python API and for tests. The core knows nothing else of its clients.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

from supervisord_cp.core.routing.rejection import Rejected, RejectReason
from supervisord_cp.router.http1.head import RequestHead, parse_request


class ExchangeEvents(Protocol):
    """What the core wants to be told; called on the event loop, never from within a call of the core's."""

    def client_gone(self) -> None:
        """Nobody waits for the answer any more."""
        ...

    def client_slow(self) -> None:
        """The client does not take the answer as fast as it is written: stop for now."""
        ...

    def client_ready(self) -> None:
        """The client has caught up."""
        ...

    def client_data(self, data: bytes) -> None:
        """Bytes of the client, after a switch of protocols."""
        ...


class Exchange:
    """One request whose body is complete. After `end`, `abort` or `client_gone` it is over, and what is
    written to it is dropped."""

    __slots__ = ("body", "events", "head", "key", "peer", "takes_chunks")

    head: RequestHead
    body: bytes | bytearray
    """Is let go of (set to empty) once it is not needed again."""
    peer: str
    """Address of the client, "" when it has none."""
    key: str
    """Name of the client's API key, "" without keys."""
    takes_chunks: bool
    """Whether an answer's chunked coding may be passed on as it is (`start` with `framed`)."""
    events: ExchangeEvents | None

    def start(self, status: int, fields: bytes, length: int | None, framed: bool = False) -> None:
        """Begin the answer. `fields` are whole lines with their CRLF, without framing and hop-by-hop ones.

        `length` is that of the body, None when it is not known. `framed`: what will be written is chunked
        coding, its last chunk included.
        """
        raise NotImplementedError

    def write(self, data: bytes) -> None:
        """Write a piece of the body."""
        raise NotImplementedError

    def end(self) -> None:
        """The answer is complete. A body shorter than promised aborts."""
        raise NotImplementedError

    def abort(self) -> None:
        """Break off, so that the client sees that the answer is not complete."""
        raise NotImplementedError

    def switch(self, fields: bytes) -> None:
        """Answer 101: from now on `write` and `client_data` carry bytes of the other protocol."""
        raise NotImplementedError

    def hold_reading(self, held: bool) -> None:
        """Stop or resume reading from the client, after a switch of protocols."""
        raise NotImplementedError

    def release(self) -> None:
        """Nobody asks for anything of it again. It and who listens point at each other: so both are freed at
        once, not by the collector."""
        self.body = b""
        self.events = None


def request_head(method: str, target: str, headers: Mapping[str, str] | None = None) -> RequestHead:
    """A request head made by a program.

    Raises:
        Rejected: it would not be valid HTTP.
    """
    fields = {"host": "localhost", **(headers or {})}
    if any(end in text for text in (method, target, *fields, *fields.values()) for end in "\r\n"):
        raise Rejected(RejectReason.BAD_REQUEST, "A part of the request's head has more than one line.")
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return parse_request(f"{method} {target} HTTP/1.1\r\n{lines}".encode("latin-1"))[0]


class MemoryExchange(Exchange):
    """An exchange without a socket: the answer is kept, and told piece by piece to whoever wants it."""

    def __init__(
        self,
        head: RequestHead,
        body: bytes = b"",
        *,
        key: str = "",
        on_data: Callable[[bytes], None] = lambda data: None,
        on_end: Callable[[bool], None] = lambda complete: None,
    ) -> None:
        """`on_end` is told whether the answer is complete."""
        self.head = head
        self.body = body
        self.peer = ""
        self.key = key
        self.takes_chunks = False
        self.events = None
        self.status = 0
        self.headers: dict[str, str] = {}
        self.answer = bytearray()
        self.over = False
        self.complete = False
        self._length: int | None = None
        self._on_data = on_data
        self._on_end = on_end

    def start(self, status: int, fields: bytes, length: int | None, framed: bool = False) -> None:
        assert not framed
        self.status = status
        self._length = None if self.head.method == b"HEAD" else length
        for line in fields.decode("latin-1").split("\r\n")[:-1]:
            name, _, value = line.partition(":")
            self.headers[name.lower()] = value.strip()

    def write(self, data: bytes) -> None:
        if not self.over:
            self.answer += data
            self._on_data(data)

    def end(self) -> None:
        self._finish(complete=self._length is None or len(self.answer) == self._length)

    def abort(self) -> None:
        self._finish(complete=False)

    def switch(self, fields: bytes) -> None:
        self.start(101, fields, None)

    def hold_reading(self, held: bool) -> None:
        pass

    def cancel(self) -> None:
        """The one who asked does not want the answer any more."""
        if not self.over:
            self.over = True
            if self.events is not None:
                self.events.client_gone()

    def _finish(self, *, complete: bool) -> None:
        if not self.over:
            self.over = True
            self.complete = complete
            self._on_end(complete)
