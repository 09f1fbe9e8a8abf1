"""What a request asks for: the few fields of its body that a decision needs."""

import re
from typing import Final
from urllib.parse import parse_qs

import msgspec

from supervisord_cp.core.routing.asked import MOST_CHOICES, AnyBody, Asked
from supervisord_cp.core.routing.rejection import Rejected, RejectReason

_BOUNDARY: Final = re.compile(rb'(?i)(?:^|;)\s*boundary=(?:"([^"]{1,200})"|([^\s;"]{1,200}))')
_PART_NAME: Final = re.compile(
    rb'(?i)^content-disposition:[ \t]*form-data;(?:[^\r\n]*;)?[ \t]*name="?model"?[ \t]*(?:;|$)', re.MULTILINE
)
_MOST_PARTS: Final = 64
_MOST_NAME: Final = 512
_JSON: Final = b"application/json"


_NOTHING: Final = Asked()
_decoder: Final = msgspec.json.Decoder(Asked)
_any_decoder: Final = msgspec.json.Decoder(AnyBody)


def read_body(content_type: bytes, body: bytes | bytearray) -> Asked:
    """The fields of a JSON or multipart body; nothing for other types and for an empty body.

    Raises:
        Rejected: the content type says JSON and the body is none, or no object.
    """
    if not body:
        return _NOTHING
    if content_type == _JSON:
        return _read_json(body, True)
    kind = content_type.partition(b";")[0].strip().lower()
    if kind == _JSON or not kind or kind.endswith(b"+json"):
        return _read_json(body, bool(kind))
    if kind == b"multipart/form-data":
        return Asked(model=_read_multipart(content_type, body))
    return _NOTHING


def read_query(query: str) -> str:
    """`model` of a query string."""
    if "model" not in query:
        return ""
    try:
        return parse_qs(query, max_num_fields=100).get("model", [""])[0]
    except ValueError:
        return ""


def _read_json(body: bytes | bytearray, strict: bool) -> Asked:
    try:
        return _decoder.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        pass  # a type that is not right, or no JSON at all
    try:
        found = _any_decoder.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        if not strict:
            return _NOTHING
        raise Rejected(RejectReason.INVALID_JSON, f"The request body is not a JSON object: {error}") from None
    limit = found.max_completion_tokens or found.max_tokens or found.max_output_tokens
    return Asked(
        model=found.model if isinstance(found.model, str) else "",
        stream=found.stream is True,
        max_tokens=limit if type(limit) is int and limit >= 0 else None,
        choices=found.n if type(found.n) is int and 0 < found.n <= MOST_CHOICES else 1,
        user=found.user if isinstance(found.user, str) else "",
        previous=found.previous_response_id if isinstance(found.previous_response_id, str) else "",
    )


def _read_multipart(content_type: bytes, body: bytes | bytearray) -> str:
    """The value of the form field `model`, "" when there is none."""
    match = _BOUNDARY.search(content_type)
    if match is None:
        return ""
    delimiter = b"--" + (match[1] or match[2])
    at = 0 if body.startswith(delimiter) else body.find(b"\r\n" + delimiter)
    for _ in range(_MOST_PARTS):
        if at < 0:
            break
        start = body.find(delimiter, at) + len(delimiter)
        end_of_head = body.find(b"\r\n\r\n", start)
        if end_of_head < 0:
            break
        end = body.find(b"\r\n" + delimiter, end_of_head)
        if _PART_NAME.search(body[start:end_of_head]):
            value = body[end_of_head + 4 : end]
            return value.decode("utf-8", "replace").strip() if end >= 0 and len(value) <= _MOST_NAME else ""
        at = end
    return ""
