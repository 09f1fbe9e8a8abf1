"""Heads that are known again are read as if they were new."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisord_cp.core.routing.rejection import Rejected
from supervisord_cp.router.http1.fields import BadHead
from supervisord_cp.router.http1.head import RequestHead, ResponseHead, parse_request, parse_response
from supervisord_cp.router.http1.recurring import (
    MOST_BYTES,
    MOST_KNOWN,
    NO_LENGTH,
    HeadReader,
    RecurringHeads,
)

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
                requests.read(request + b"\r\nrest")
        else:
            known = requests.read(request + b"\r\nrest")
            assert known is not None
            assert (told(known), requests.length, requests.size) == (told(head), length, len(request) + 2)
        response = b"HTTP/1.1 200 OK\r\n" + fields
        try:
            answer, size = parse_response(response)
        except BadHead:
            with pytest.raises(BadHead):
                responses.read(response + b"\r\n")
        else:
            met = responses.read(response + b"\r\n")
            assert met is not None
            as_large = NO_LENGTH if size is None else size
            assert (told(met), responses.length, responses.size) == (
                told(answer),
                as_large,
                len(response) + 2,
            )


def request(length: int, name: str = "x") -> bytes:
    return f"POST /v1/{name} HTTP/1.1\r\nhost: t\r\nContent-Length: {length}\r\n\r\n".encode()


def get(name: str) -> bytes:
    return f"GET /{name} HTTP/1.1\r\nhost: t\r\n\r\n".encode()


def test_heads_that_differ_in_the_length_are_read_once() -> None:
    heads = HeadReader(RecurringHeads(parse_request))
    first = heads.read(request(5))
    assert (first is not None, heads.length) == (True, 5)
    assert heads.read(request(66) + b"more") is first
    assert (heads.length, heads.size) == (66, len(request(66)))
    assert heads.read(request(5, "y")) is not first


@pytest.mark.parametrize("known", [False, True], ids=["new", "as the one before"])
def test_a_head_is_there_when_all_of_it_is(known: bool) -> None:
    heads = HeadReader(RecurringHeads(parse_request))
    if known:
        heads.read(request(123))
    whole = request(124)
    for end in range(len(whole)):
        assert heads.read(whole[:end]) is None
    assert heads.read(whole) is not None


def test_what_is_remembered_is_bounded() -> None:
    known = RecurringHeads(parse_request)
    heads = HeadReader(known)
    first = heads.read(request(1))
    assert HeadReader(known).read(request(1)) is first
    for number in range(MOST_KNOWN):
        heads.read(request(1, f"name-{number}"))
    assert heads.read(request(1)) is not first
    long = "x" * MOST_BYTES
    assert heads.read(request(1, long)) is not heads.read(request(1, long))
    other = [heads.read(get(str(number))) for number in range(2)]
    assert [heads.read(get(str(number))) for number in range(2)] == other
    for number in range(MOST_KNOWN):
        heads.read(get(f"n{number}"))
    assert heads.read(get("0")) is not other[0]
