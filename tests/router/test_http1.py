"""Framing, byte by byte, without sockets."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisord_cp.core.routing.rejection import Rejected
from supervisord_cp.router.http1.body import BadBody, Body, ChunkedBody, LengthBody, OpenBody
from supervisord_cp.router.http1.fields import MOST_FIELDS, BadHead
from supervisord_cp.router.http1.head import parse_request, parse_response

PIECES = st.lists(st.integers(1, 40), max_size=60)
CONTENT = st.lists(st.binary(min_size=1, max_size=60), max_size=8)


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    """The data in pieces of these sizes, the rest in one."""
    pieces, at = [], 0
    for size in sizes:
        if at + size < len(data):
            pieces.append(data[at : at + size])
            at += size
    return [*pieces, data[at:]]


def read(body: Body, pieces: list[bytes]) -> tuple[bytes, bytes | None]:
    """The content, and what lies behind the body in the piece that ended it (None: it did not end)."""
    parts: list[bytes] = []
    for number, piece in enumerate(pieces):
        end = body.feed(piece, parts)
        if end >= 0:
            return b"".join(parts), piece[end:] + b"".join(pieces[number + 1 :])
    return b"".join(parts), None


def chunked(content: list[bytes], extensions: bool, trailers: bool) -> bytes:
    extension = b';a="b";c' if extensions else b""
    chunks = b"".join(b"%X%b\r\n%b\r\n" % (len(part), extension, part) for part in content)
    return chunks + b"0" + extension + b"\r\n" + (b"x-a: 1\r\nx-b:\r\n" if trailers else b"") + b"\r\n"


@given(CONTENT, st.booleans(), st.booleans(), PIECES, st.binary(max_size=20))
def test_chunked_coding_in_any_pieces(
    content: list[bytes], extensions: bool, trailers: bool, sizes: list[int], behind: bytes
) -> None:
    whole = chunked(content, extensions, trailers)
    assert read(ChunkedBody(), cut(whole + behind, sizes)) == (b"".join(content), behind)
    follower = ChunkedBody()  # without taking the content
    fed = 0
    for piece in cut(whole + behind, sizes):
        end = follower.feed(piece)
        if end >= 0:
            assert fed + end == len(whole)
            break
        fed += len(piece)
    else:
        pytest.fail("the end was not seen")


@given(CONTENT, st.data())
def test_chunked_coding_with_a_byte_missing_or_changed_is_never_read_as_it_was(
    content: list[bytes], data: st.DataObject
) -> None:
    whole = chunked(content, extensions=False, trailers=False)
    at = data.draw(st.integers(0, len(whole) - 1))
    broken = whole[:at] + whole[at + 1 :]
    try:
        got, behind = read(ChunkedBody(), cut(broken, data.draw(PIECES)))
    except BadBody:
        return
    assert behind is None or got != b"".join(content)


@given(st.binary(max_size=200), PIECES)
def test_garbage_never_does_more_than_be_refused(garbage: bytes, sizes: list[int]) -> None:
    body = ChunkedBody()
    try:
        for piece in cut(garbage, sizes):
            if piece and body.feed(piece, []) >= 0:
                break
    except BadBody:
        pass


@given(st.binary(min_size=1, max_size=200), PIECES, st.data())
def test_a_length_in_any_pieces(data: bytes, sizes: list[int], more: st.DataObject) -> None:
    length = more.draw(st.integers(1, len(data)))
    assert read(LengthBody(length), cut(data, sizes)) == (data[:length], data[length:])
    assert read(LengthBody(len(data) + 1), cut(data, sizes)) == (data, None)
    assert read(OpenBody(), cut(data, sizes)) == (data, None)


@pytest.mark.parametrize(
    "bad",
    [
        b"\r\n",
        b"g\r\n",
        b"-1\r\n",
        b" 1\r\n",
        b"1;\x00\r\n",
        b"1\r\nab",
        b"1\r\na\n",
        b"1\r\na\r\r",
        b"0\r\n x\r\n",
        b"0\r\na b: c\r\n",
        b"0\r\n" + b"a: b\r\n" * 4000,
        b"1" * 5000,
        b"1;" + b"x" * 5000,
    ],
)
def test_bad_chunked_coding_wherever_it_is_cut(bad: bytes) -> None:
    for at in range(1, min(len(bad), 200)):
        with pytest.raises(BadBody):
            read(ChunkedBody(), [bad[:at], bad[at:]])


# --- heads

NAMES = st.text("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789-_!#$%&'*+.^`|~", min_size=1, max_size=20)
VALUES = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=30
)
SPECIAL = set("host connection content-length transfer-encoding expect te trailer upgrade keep-alive".split())


@given(st.lists(st.tuples(NAMES, VALUES), max_size=10))
def test_fields_that_we_do_not_read_pass_as_they_are(fields: list[tuple[str, str]]) -> None:
    fields = [(name, value) for name, value in fields if name.lower() not in SPECIAL | {"authorization"}]
    fields = [(n, v) for n, v in fields if not n.lower().startswith(("proxy-", "x-"))]
    lines = [f"{name}: {value}\r\n".encode("latin-1") for name, value in fields]
    head, _ = parse_request(b"GET /v1/x HTTP/1.1\r\nHost: t\r\n" + b"".join(lines))
    assert head.fields == b"".join(lines)
    answer, _ = parse_response(b"HTTP/1.1 200 OK\r\n" + b"".join(lines))
    assert answer.fields == b"".join(lines)


@given(st.binary(max_size=100))
def test_any_head_is_read_or_refused(garbage: bytes) -> None:
    for head in (
        garbage,
        b"GET / HTTP/1.1\r\n" + garbage,
        b"GET / HTTP/1.1\r\nhost: t\r\n" + garbage + b"\r\n",
    ):
        with contextlib.suppress(Rejected):
            parse_request(head)
    for head in (garbage, b"HTTP/1.1 200 OK\r\n" + garbage):
        with contextlib.suppress(BadHead):
            parse_response(head)


def test_what_a_request_head_says() -> None:
    head, length = parse_request(
        b"post /v1/x?model=a&b HTTP/1.1\r\nHOST:t:80\r\nContent-Length:\t7 \r\nX-Request-ID: r\r\nX-O: 1\r\n"
        b"Content-Type: application/json\r\n"
    )
    assert (head.method, head.path, head.query, head.target) == (
        b"post",
        "/v1/x",
        "model=a&b",
        b"/v1/x?model=a&b",
    )
    assert (length, head.chunked, head.keep_alive, head.upgrade, head.http11) == (
        7,
        False,
        True,
        False,
        True,
    )
    assert head.value(b"x-request-id") == "r"
    assert head.value(b"authorization") == ""
    assert head.fields == b"X-O: 1\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    ("fields", "upgrade"),
    [
        (b"connection: upgrade\r\nupgrade: websocket\r\n", True),
        (b"connection: keep-alive, Upgrade\r\nupgrade: WebSocket\r\n", True),
        (b"upgrade: websocket\r\n", False),
        (b"connection: upgrade\r\nupgrade: h2c\r\n", False),
        (b"connection: upgrade\r\nupgrade: h2c, websocket\r\n", False),
    ],
)
def test_which_upgrades_are_websockets(fields: bytes, upgrade: bool) -> None:
    assert parse_request(b"GET / HTTP/1.1\r\nhost: t\r\n" + fields)[0].upgrade is upgrade
    assert parse_request(b"POST / HTTP/1.1\r\nhost: t\r\n" + fields)[0].upgrade is False


def test_too_many_fields_are_refused() -> None:
    fields = b"a: b\r\n" * (MOST_FIELDS - 1)
    parse_request(b"GET / HTTP/1.1\r\nhost: t\r\n" + fields)
    with pytest.raises(Rejected) as caught:
        parse_request(b"GET / HTTP/1.1\r\nhost: t\r\na: b\r\n" + fields)
    assert caught.value.rejection.status == 431


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200\r\n",
        b"HTTP/1.0 200 OK\r\ncontent-length: 4\r\n",
        b"HTTP/1.1 404 Not Found At All\r\n",
        b"HTTP/1.1 200 \r\nconnection: close\r\n",
    ],
)
def test_answers_that_are_fine(head: bytes) -> None:
    parse_response(head)


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"HTTP/1.1 20 OK\r\n",
        b"HTTP/1.1 600 X\r\n",
        b"HTTP/2 200 OK\r\n",
        b"HTTP/1.1  200 OK\r\n",
        b"HTTP/1.1 200 OK\r\na b: c\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 1\r\n",
        b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: identity\r\n",
    ],
)
def test_answers_that_are_none(head: bytes) -> None:
    with pytest.raises(BadHead):
        parse_response(head)
