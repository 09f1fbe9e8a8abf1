"""What is read does not depend on how it is cut, and what goes on means the same to everybody.

Requests and answers are cut at every byte and at drawn places; what we accept and write to an engine is read
again by h11, another strict reader, and has to be one request with the same body.
"""

from typing import Any

import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from supervisord_cp.model.base import Incarnation
from supervisord_cp.router.exchange import MemoryExchange
from supervisord_cp.router.http1.head import ResponseHead, parse_response
from supervisord_cp.router.http1.recurring import RecurringHeads
from supervisord_cp.router.outgoing import Credentials, upstream_message
from supervisord_cp.router.pools import endpoint_of
from supervisord_cp.router.upstream import AnswerReader, UpstreamConnection
from tests.router.test_connection import REFUSED
from tests.router.wires import Served, Wire, cut, received

GET = b"GET /v1/a HTTP/1.1\r\nhost: t\r\n\r\n"
SMUGGLED = b"GET /v1/smuggled HTTP/1.1\r\nhost: t\r\n\r\n"
UPGRADE = b"GET /v1/realtime HTTP/1.1\r\nhost: t\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
CHUNKED = b"POST /v1/b HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n"

REQUESTS = {
    "get": GET,
    "length": b"POST /v1/b HTTP/1.1\r\nhost: t\r\ncontent-length: 5\r\n\r\nhello",
    "chunks": CHUNKED + b"5\r\nhello\r\n1;a=b\r\n!\r\n0\r\n\r\n",
    "trailers": CHUNKED + b"1\r\nx\r\n0\r\nx-priority: none\r\ncontent-length: 9\r\nhost: u\r\n\r\n",
    "a request as a body": b"POST /v1/b HTTP/1.1\r\nhost: t\r\ncontent-length: %d\r\n\r\n%b"
    % (len(SMUGGLED), SMUGGLED),
    "h2c, as Java asks for it": b"POST /v1/b HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\n"
    b"Content-Length: 4\r\nHost: t\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk\r\nUpgrade: h2c\r\n\r\nbody",
    "nominated fields": b"GET /v1/a HTTP/1.1\r\nhost: t\r\nconnection: x-a, content-length\r\nx-a: 1\r\n\r\n",
    "http/1.0": b"POST /v1/b HTTP/1.0\r\ncontent-length: 2\r\nconnection: keep-alive\r\n\r\nok",
    "absolute": b"GET http://u/v1/a?b=c HTTP/1.1\r\nhost: t\r\n\r\n",
    "expectation": b"POST /v1/b HTTP/1.1\r\nhost: t\r\nexpect: 100-continue\r\ncontent-length: 1\r\n\r\nx",
}


def outcome(pieces: list[bytes]) -> tuple[list[Any], list[str]]:
    core = received(pieces)
    return [served.told for served in core.served], core.refused


@pytest.mark.parametrize("what", REQUESTS)
def test_requests_are_the_same_wherever_they_are_cut(what: str) -> None:
    data = REQUESTS[what] + GET
    whole = outcome([data])
    assert len(whole[0]) == 2
    assert whole[1] == []
    for at in range(1, len(data)):
        assert outcome([data[:at], data[at:]]) == whole
    assert outcome([data[at : at + 1] for at in range(len(data))]) == whole


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused_is_refused_wherever_it_is_cut(what: str) -> None:
    data = REFUSED[what] + SMUGGLED
    assert outcome([data]) == ([], ["bad_request"])
    for at in range(1, len(data)):
        assert outcome([data[:at], data[at:]]) == ([], ["bad_request"])


LINES = st.sampled_from(
    [
        b"content-length: 5",
        b"Content-Length: 5",
        b"content-length: 0",
        b"content-length : 5",
        b"content-length: 5, 5",
        b"content-length:\x0b5",
        b"transfer-encoding: chunked",
        b"Transfer-Encoding: Chunked",
        b"transfer-encoding: chunked, identity",
        b"transfer-encoding: identity",
        b"transfer-encoding:\tchunked",
        b" transfer-encoding: chunked",
        b"transfer_encoding: chunked",
        b"connection: transfer-encoding",
        b"connection: content-length, close",
        b"connection: upgrade",
        b"upgrade: websocket",
        b"upgrade: h2c",
        b"te: trailers",
        b"trailer: content-length",
        b"expect: 100-continue",
        b"host: u",
        b"x-a: 1\r\n 2",
        b"x-a: 1\n2",
        b"x-a: \xff",
        b"x-deadline-ms: 5",
    ]
)
BODIES = st.sampled_from(
    [
        b"",
        b"hello",
        b"5\r\nhello\r\n0\r\n\r\n",
        b"0\r\n\r\n",
        b"0\r\n\r\n" + SMUGGLED,
        b"5;\r\nhello\r\n0\r\nx: y\r\n\r\n",
    ]
)
EDITS = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 2), st.binary(max_size=2)), max_size=2)


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """One to three requests, sound or not so sound, with bytes changed here and there."""
    data = b""
    for _ in range(draw(st.integers(1, 3))):
        lines = [b"host: t", *draw(st.lists(LINES, max_size=3))]
        method = draw(st.sampled_from([b"POST", b"GET"]))
        data += method + b" /v1/x HTTP/1.1\r\n" + b"\r\n".join(lines) + b"\r\n\r\n" + draw(BODIES)
    for at, dropped, put in draw(EDITS):
        data = data[:at] + put + data[at + dropped :]
    return data


@given(messages(), st.lists(st.integers(0, 600), max_size=6))
def test_any_bytes_mean_the_same_wherever_they_are_cut(data: bytes, places: list[int]) -> None:
    assert outcome(list(cut(data, [min(place, len(data)) for place in places]))) == outcome([data])


def forwarded(served: Served) -> bytes:
    exchange = MemoryExchange(served.head, served.body)
    endpoint = endpoint_of("http://engine:8000/p", "d-0")
    lines = b"x-request-id: r\r\n" + Credentials().lines(exchange.head, Incarnation("i"))
    return b"".join(upstream_message(exchange, endpoint, lines))


def read_by_another(message: bytes) -> tuple[bytes, bytes, list[tuple[bytes, bytes]], bytes, bytes]:
    reader = h11.Connection(h11.SERVER, max_incomplete_event_size=100_000)
    reader.receive_data(message)
    request = reader.next_event()
    assert isinstance(request, h11.Request), request
    body = b""
    while isinstance(event := reader.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage), event
    assert list(event.headers) == []
    return request.method, request.target, list(request.headers), body, reader.trailing_data[0]


@given(messages())
@example(UPGRADE + b"content-length: %d\r\n\r\n%b" % (len(SMUGGLED), SMUGGLED))
@example(UPGRADE + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
def test_what_goes_on_is_one_request_with_the_same_body(data: bytes) -> None:
    for served in received([data]).served:
        message = forwarded(served)
        method, target, fields, body, rest = read_by_another(message)
        assert (method, target, body) == (served.head.method, b"/p" + served.head.target, served.body)
        names = [name for name, _ in fields]
        assert b"transfer-encoding" not in names
        assert names.count(b"host") == 1
        assert names.count(b"content-length") <= 1
        assert rest == b""
        assert not {b"te", b"trailer", b"expect"} & set(names)
        assert (b"upgrade" in names) is (b"connection" in names) is (served.head.upgrade and not body)


@pytest.mark.parametrize("what", REQUESTS)
def test_nothing_of_this_hop_goes_on(what: str) -> None:
    for served in received([REQUESTS[what]]).served:
        _, _, fields, body, rest = read_by_another(forwarded(served))
        assert rest == b""
        assert body == served.body
        assert not {b"http2-settings", b"upgrade", b"x-a", b"x-priority"} & {name for name, _ in fields}


# --- answers


class Reader(AnswerReader):
    """Who waits for an answer, and notes it."""

    def __init__(self, *, decode: bool) -> None:
        self.decode = decode
        self.head: tuple[int, bytes, int | None] | None = None
        self.body = b""
        self.end = ""

    def answer_head(self, head: ResponseHead, length: int | None) -> bool:
        assert self.head is None
        self.head = head.status, head.fields, length
        return self.decode

    def answer_data(self, data: bytes) -> None:
        assert data
        assert not self.end
        self.body += data

    def answer_end(self) -> None:
        assert not self.end
        self.end = "complete"

    def answer_lost(self, why: str, *, stale: bool) -> None:
        assert not self.end
        self.end = "lost"

    def answer_invalid(self, why: str) -> None:
        assert not self.end
        self.end = "invalid"

    def engine_slow(self) -> None: ...

    def engine_ready(self) -> None: ...


def answered(pieces: list[bytes], *, decode: bool, bodiless: bool = False) -> tuple[Any, ...]:
    """What a reader is told, and whether the connection may be used again."""
    kept: list[object] = []
    heads: RecurringHeads[ResponseHead] = RecurringHeads(parse_response)
    connection = UpstreamConnection(
        Incarnation("i"),
        endpoint_of("http://e", "d-0"),
        heads,
        idle=kept.append,
        gone=lambda connection: None,
        clock=lambda: 0.0,
    )
    wire, reader = Wire(), Reader(decode=decode)
    connection.connection_made(wire)
    connection.send(reader, [b"GET / HTTP/1.1\r\n\r\n"], 0.0, bodiless)
    for piece in pieces:
        if piece and not wire.closed:
            connection.data_received(piece)
    reusable = bool(kept) and not wire.closed
    connection.connection_lost(None)
    return reader.head, reader.body, reader.end, reusable


OK_2 = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
EVENT = b'data: {"a":1}\n\n'
ANSWERS = {
    "length": (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nx: y\r\n\r\nhello", "complete", True),
    "no body": (b"HTTP/1.1 204 No Content\r\n\r\n", "complete", True),
    "empty": (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", "complete", True),
    "close": (b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 1\r\n\r\nx", "complete", False),
    "chunks": (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
        + b"%x\r\n%b\r\n" % (len(EVENT), EVENT) * 3
        + b"0\r\nx-trailer: 1\r\n\r\n",
        "complete",
        True,
    ),
    "interim": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n" + OK_2,
        "complete",
        True,
    ),
    "until the end": (b"HTTP/1.0 200 OK\r\n\r\nall of it", "complete", False),
    "less than promised": (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello", "lost", False),
    "chunks without an end": (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n",
        "lost",
        False,
    ),
    "half a head": (b"HTTP/1.1 200 OK\r\ncontent-le", "lost", False),
    "two lengths": (b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxy", "invalid", False),
    "length and coding": (
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "invalid",
        False,
    ),
    "obs-fold": (b"HTTP/1.1 200 OK\r\nx: a\r\n b\r\ncontent-length: 0\r\n\r\n", "invalid", False),
    "bad chunk": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n", "invalid", False),
}


@pytest.mark.parametrize("decode", [False, True])
@pytest.mark.parametrize("what", ANSWERS)
def test_answers_are_the_same_wherever_they_are_cut(what: str, decode: bool) -> None:
    data, end, reusable = ANSWERS[what]
    whole = answered([data], decode=decode)
    assert whole[2:] == (end, reusable)
    ways = [[data[:at], data[at:]] for at in range(1, len(data))]
    for pieces in (*ways, [data[at : at + 1] for at in range(len(data))]):
        head, body, *rest = answered(pieces, decode=decode)
        assert (head, *rest) == (whole[0], *whole[2:])
        assert body == whole[1] or end == "invalid"  # what came before is on its way


@pytest.mark.parametrize("what", [what for what, (_, end, reusable) in ANSWERS.items() if reusable])
def test_what_an_engine_sends_beyond_its_answer_is_nobodys(what: str) -> None:
    data, _end, _ = ANSWERS[what]
    whole = answered([data], decode=True)
    beyond = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison"
    assert answered([data + beyond], decode=True) == (*whole[:3], False)


@given(
    st.lists(st.binary(min_size=1, max_size=30), max_size=8),
    st.lists(st.integers(0, 400), max_size=8),
    st.booleans(),
)
def test_streams_are_the_same_wherever_they_are_cut(
    events: list[bytes], places: list[int], decode: bool
) -> None:
    framed = b"".join(b"%X\r\n%b\r\n" % (len(event), event) for event in events) + b"0\r\n\r\n"
    data = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + framed
    pieces = list(cut(data, [min(place, len(data)) for place in places]))
    told = answered(pieces, decode=decode)
    assert told == ((200, b"", None), b"".join(events) if decode else framed, "complete", True)
