"""Heads of requests and responses."""

import re
from typing import TYPE_CHECKING, Final

from supervisord_cp.core.routing.rejection import Rejected, RejectReason
from supervisord_cp.router.http1.fields import (
    REQUEST_NAMED,
    REQUEST_WITHHELD,
    RESPONSE_NAMED,
    RESPONSE_WITHHELD,
    BadHead,
    TooManyFields,
    connection_options,
    end_to_end,
)

if TYPE_CHECKING:
    from supervisord_cp.router.traits import Traits

MOST_HEAD_BYTES: Final = 64 * 1024

_REQUEST_LINE: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}) ([!-~]++) HTTP/1\.([01])\r\n")
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: [^\x00-\x08\x0a-\x1f\x7f]*+)?\r\n")
_ABSOLUTE: Final = re.compile(rb"(?i)https?://[^/?#]+")
_HOST: Final = re.compile(rb"[A-Za-z0-9._~\-:\[\]%!$&'()*+;=]*")
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")


class RequestHead:
    """The head of a request whose framing is beyond doubt: all but the length of its body, in which the
    requests of a client differ."""

    __slots__ = (
        "admitted",
        "chunked",
        "expects_continue",
        "fields",
        "http11",
        "keep_alive",
        "method",
        "path",
        "query",
        "target",
        "traits",
        "upgrade",
        "values",
    )

    method: bytes
    target: bytes
    """Origin form: path and query as they were sent."""
    path: str
    query: str
    http11: bool
    values: dict[bytes, bytes]
    """The fields that we read, under lower-case names, Content-Length left out."""
    fields: bytes
    """The fields that go on, as lines with their CRLF."""
    chunked: bool
    keep_alive: bool
    expects_continue: bool
    upgrade: bool
    """A websocket is asked for (which it is not when there is a body). Any other upgrade is ignored."""
    admitted: tuple[object, str] | None
    """A note of the core's: when it has let a head like this one in, and as whose."""
    traits: "Traits | None"
    """Another one: what the head says of its request."""

    def value(self, name: bytes) -> str:
        """A field that we read, "" when it is absent."""
        return self.values.get(name, b"").decode("latin-1")


class ResponseHead:
    """The head of a final response, or of a switch of protocols."""

    __slots__ = ("chunked", "fields", "http11", "is_json", "keep_alive", "status", "values")

    status: int
    http11: bool
    values: dict[bytes, bytes]
    fields: bytes
    chunked: bool
    keep_alive: bool
    is_json: bool
    """Whether the body is one JSON document: then it is no event stream."""


def parse_request(block: bytes) -> tuple[RequestHead, int]:
    """The head in `block`, which ends with the CRLF of its last field (without the empty line), and the
    length of the body, 0 when it is chunked.

    Raises:
        Rejected: it is malformed, or what follows it could be read in two ways.
    """
    line = _REQUEST_LINE.match(block)
    if line is None:
        raise Rejected(RejectReason.BAD_REQUEST, "The request line is malformed.")
    head = RequestHead()
    head.method, target, minor = line.groups()
    head.http11 = minor == b"1"
    try:
        head.values, head.fields = end_to_end(block, line.end(), REQUEST_NAMED, REQUEST_WITHHELD)
    except TooManyFields as error:
        raise Rejected(RejectReason.HEADERS_TOO_LARGE, f"The request has {error}.") from None
    except BadHead as error:
        raise Rejected(RejectReason.BAD_REQUEST, f"The request's head is refused: {error}.") from None
    values = head.values
    if b"connection" in values:
        options = connection_options(values)
        head.keep_alive = b"close" not in options if head.http11 else b"keep-alive" in options
        upgrade = b"upgrade" in options and values.get(b"upgrade", b"").lower() == b"websocket"
        head.upgrade = upgrade and head.http11 and head.method == b"GET"
    else:
        head.keep_alive = head.http11
        head.upgrade = False
    _set_target(head, target)
    _check_host(head)
    head.chunked = b"transfer-encoding" in values
    head.expects_continue = head.http11 and values.get(b"expect", b"").lower() == b"100-continue"
    head.admitted = None
    head.traits = None
    return head, _body_length(head)


def parse_response(block: bytes) -> tuple[ResponseHead, int | None]:
    """The head in `block`, and the length of the body, None when it is chunked or ends with the connection.

    Raises:
        BadHead: it is malformed, or its framing could be read in two ways.
    """
    line = _STATUS_LINE.match(block)
    if line is None:
        raise BadHead("malformed status line")
    head = ResponseHead()
    head.http11 = line[1] == b"1"
    head.status = int(line[2])
    head.values, head.fields = end_to_end(block, line.end(), RESPONSE_NAMED, RESPONSE_WITHHELD)
    values = head.values
    head.keep_alive = head.http11
    if b"connection" in values:
        options = connection_options(values)
        head.keep_alive = b"close" not in options if head.http11 else b"keep-alive" in options
    head.is_json = values.get(b"content-type", b"").startswith(b"application/json")
    head.chunked = b"transfer-encoding" in values
    if head.chunked:
        strange = values[b"transfer-encoding"].lower() != b"chunked"
        if strange or b"content-length" in values or not head.http11:
            raise BadHead("ambiguous framing")
    elif b"content-length" in values:
        length = values.pop(b"content-length")
        if not _LENGTH.fullmatch(length):
            raise BadHead("malformed length")
        return head, int(length)
    return head, None


def _set_target(head: RequestHead, target: bytes) -> None:
    if not target.startswith(b"/"):
        absolute = _ABSOLUTE.match(target)
        if absolute is None:
            raise Rejected(RejectReason.BAD_REQUEST, "The request target is no path.")
        target = target[absolute.end() :]
        target = target if target.startswith(b"/") else b"/" + target
    if b"#" in target:
        raise Rejected(RejectReason.BAD_REQUEST, "The request target has a fragment.")
    head.target = target
    head.path, _, head.query = target.decode("ascii").partition("?")


def _check_host(head: RequestHead) -> None:
    host = head.values.get(b"host")
    if host is None:
        if head.http11:
            raise Rejected(RejectReason.BAD_REQUEST, "The Host header is missing.")
    elif not _HOST.fullmatch(host):
        raise Rejected(RejectReason.BAD_REQUEST, "The Host header is malformed or occurs twice.")


def _body_length(head: RequestHead) -> int:
    length = head.values.pop(b"content-length", None)
    coding = head.values.get(b"transfer-encoding")
    if coding is not None:
        if length is not None:
            raise Rejected(
                RejectReason.BAD_REQUEST, "Content-Length and Transfer-Encoding exclude each other."
            )
        if coding.lower() != b"chunked" or not head.http11:
            raise Rejected(RejectReason.BAD_REQUEST, "The only Transfer-Encoding understood is chunked.")
    elif length is not None:
        if not _LENGTH.fullmatch(length):
            raise Rejected(RejectReason.BAD_REQUEST, "Content-Length is no number or occurs twice.")
        return int(length)
    return 0
