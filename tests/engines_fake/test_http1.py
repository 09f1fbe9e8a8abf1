"""Requests are the same however their bytes are cut; what is not HTTP is refused."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisord_cp.engines.fake.http1 import BadRequest, Request, RequestParser, chunk, response_head

PLAIN = b"POST /v1/a%20b?x=1&y= HTTP/1.1\r\nHost: e\r\nContent-Length: 5\r\nX-Two:  b \r\n\r\nhello"
CHUNKED = b"POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
TRAILERS = b"POST /t HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx: y\r\nz: z\r\n\r\n"
BARE = b"GET / HTTP/1.0\r\n\r\n"


def parse(data: bytes, cuts: list[int]) -> list[Request]:
    parser = RequestParser()
    requests = []
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    for start, end in pairwise(places):
        parser.feed(data[start:end])
        while (request := parser.next()) is not None:
            requests.append(request)
    assert parser.idle
    return requests


@given(st.permutations([PLAIN, CHUNKED, TRAILERS, BARE]), st.lists(st.integers(0, 1000), max_size=30))
def test_cuts_do_not_matter(messages: list[bytes], cuts: list[int]) -> None:
    found = {request.path: request for request in parse(b"".join(messages), cuts)}
    assert {path: request.body for path, request in found.items()} == {
        "/v1/a b": b"hello",
        "/c": b"hello world",
        "/t": b"a",
        "/": b"",
    }
    plain = found["/v1/a b"]
    assert (plain.method, plain.query, plain.headers["x-two"]) == ("POST", {"x": "1", "y": ""}, "b")
    assert (plain.keep_alive, found["/"].keep_alive) == (True, False)


def test_every_single_cut_of_a_chunked_body() -> None:
    for cut in range(len(TRAILERS)):
        assert [request.body for request in parse(TRAILERS, [cut])] == [b"a"]


@pytest.mark.parametrize(
    "data",
    [
        b"GARBAGE\r\n",
        b"GET / HTTP/2.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nspace : x\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\ntransfer-encoding: gzip\r\n\r\n",
        b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nnot a size\r\n",
        b"GET /" + b"x" * 70_000,
    ],
)
def test_what_is_not_http_is_refused(data: bytes) -> None:
    parser = RequestParser()
    parser.feed(data)
    with pytest.raises(BadRequest):
        parser.next()


def test_continue_is_due_once() -> None:
    parser = RequestParser()
    parser.feed(b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
    assert parser.next() is None
    assert (parser.take_continue(), parser.take_continue()) == (True, False)
    parser.feed(b"abc")
    request = parser.next()
    assert request is not None
    assert (request.body, parser.take_continue()) == (b"abc", False)


def test_bytes_after_an_upgrade_are_kept() -> None:
    parser = RequestParser()
    parser.feed(b"GET /ws HTTP/1.1\r\nUpgrade: websocket\r\n\r\nframes")
    request = parser.next()
    assert request is not None
    assert request.wants_websocket
    assert parser.take_rest() == b"frames"
    assert parser.idle


def test_heads_and_chunks() -> None:
    head = response_head(404, {"content-length": "2"}).decode()
    assert head.startswith("HTTP/1.1 404 Not Found\r\ndate: ")
    assert head.endswith("GMT\r\nserver: uvicorn\r\ncontent-length: 2\r\n\r\n")
    assert chunk(b"x" * 17) == b"11\r\n" + b"x" * 17 + b"\r\n"
    assert chunk(b"") == b"0\r\n\r\n"
