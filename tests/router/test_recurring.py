"""Heads that are known again are read as if they were new."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisord_cp.core.routing.rejection import Rejected
from supervisord_cp.router.http1.fields import BadHead
from supervisord_cp.router.http1.head import RequestHead, ResponseHead, parse_request, parse_response
from supervisord_cp.router.http1.recurring import MOST_BYTES, MOST_KNOWN, HeadReader, RecurringHeads

LINES = st.lists(
    st.sampled_from(
        [
            b"host: t",
            b"Content-Length: 7",
            b"Content-Length: 70",
            b"content-length: 7",
            b"content-length: 007",
            b"content-length: 7 ",
            b"content-length:7",
            b"content-length: ",
            b"content-length: +7",
            b"content-length: 1234567890123456789",
            b"CONTENT-LENGTH: 8",
            b":",
            b"x: content-length: 9",
            b"x-content-length: 9",
            b"transfer-encoding: chunked",
            b"connection: content-length",
            b"x-request-id: r",
            b"malformed",
            b" folded",
        ]
    ),
    max_size=4,
)


def told(head: RequestHead | ResponseHead) -> list[Any]:
    return [getattr(head, name) for name in head.__slots__]


@given(st.lists(LINES, min_size=2, max_size=12))
def test_a_head_is_read_the_same_whatever_was_read_before(sections: list[list[bytes]]) -> None:
    requests, responses = (
        HeadReader(RecurringHeads(parse_request)),
        HeadReader(RecurringHeads(parse_response)),
    )
    for lines in sections:
        fields = b"".join(line + b"\r\n" for line in lines)
        request = b"POST /v1/x HTTP/1.1\r\nhost: t\r\n" + fields
        try:
            head, length = parse_request(request)
        except Rejected:
            with pytest.raises(Rejected):
                requests.read(request[:-2])
        else:
            known, as_long = requests.read(request[:-2])
            assert (told(known), as_long) == (told(head), length)
        response = b"HTTP/1.1 200 OK\r\n" + fields
        try:
            answer, size = parse_response(response)
        except BadHead:
            with pytest.raises(BadHead):
                responses.read(response[:-2])
        else:
            met, as_large = responses.read(response[:-2])
            assert (told(met), as_large) == (told(answer), size)


def request(length: int, name: str = "x") -> bytes:
    return f"POST /v1/{name} HTTP/1.1\r\nhost: t\r\nContent-Length: {length}".encode()


def test_heads_that_differ_in_the_length_are_read_once() -> None:
    heads = HeadReader(RecurringHeads(parse_request))
    (first, one), (second, other) = heads.read(request(5)), heads.read(request(6))
    assert first is second
    assert (one, other) == (5, 6)
    assert heads.read(request(5, "y"))[0] is not first


def test_what_is_remembered_is_bounded() -> None:
    known = RecurringHeads(parse_request)
    heads = HeadReader(known)
    first, _ = heads.read(request(1))
    assert HeadReader(known).read(request(1))[0] is first
    for number in range(MOST_KNOWN):
        heads.read(request(1, f"name-{number}"))
    assert heads.read(request(1))[0] is not first
    long = "x" * MOST_BYTES
    assert heads.read(request(1, long))[0] is not heads.read(request(1, long))[0]
    other = [heads.read(b"GET /%d HTTP/1.1\r\nhost: t" % number)[0] for number in range(2)]
    assert [heads.read(b"GET /%d HTTP/1.1\r\nhost: t" % number)[0] for number in range(2)] == other
    for number in range(MOST_KNOWN):
        heads.read(b"GET /n%d HTTP/1.1\r\nhost: t" % number)
    assert heads.read(b"GET /0 HTTP/1.1\r\nhost: t")[0] is not other[0]
