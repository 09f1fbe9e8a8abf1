"""Answers that the router makes itself."""

from typing import Final

from supervisord_cp.core.routing.rejection import Rejection, RejectReason, body_of
from supervisord_cp.router.exchange import Exchange

MESSAGES: Final = "/v1/messages"
"""Anthropic's API."""
CLIENT_GONE: Final = 499
"""Counted for clients that left before the answer was complete."""
JSON: Final = b"content-type: application/json\r\n"


def answer(exchange: Exchange, status: int, body: bytes, fields: bytes) -> None:
    """A whole answer at once."""
    exchange.start(status, fields, len(body))
    if body:
        exchange.write(body)
    exchange.end()


def id_line(request_id: str) -> bytes:
    """The header field that names the request."""
    return b"x-request-id: %b\r\n" % request_id.encode("latin-1")


def messages_line(request_id: str) -> bytes:
    """The same, as Anthropic's clients look for it."""
    return b"request-id: %b\r\n" % request_id.encode("latin-1")


def reject(exchange: Exchange, rejection: Rejection, request_id: str) -> None:
    """An error of ours: OpenAI-shaped, with its reason in a header."""
    fields = JSON + id_line(request_id) + f"x-supervisord-cp-reason: {rejection.reason}\r\n".encode()
    if rejection.retry_after_s is not None:
        fields += f"retry-after: {rejection.retry_after_s}\r\n".encode()
    if rejection.place is not None:
        fields += b"x-supervisord-cp-queue-position: %d\r\n" % rejection.place.position
        if rejection.place.wait_s is not None:
            fields += b"x-supervisord-cp-queue-wait-s: %.1f\r\n" % rejection.place.wait_s
    if rejection.reason is RejectReason.BAD_API_KEY:
        fields += b"www-authenticate: Bearer\r\n"
    messages = exchange.head.path.startswith(MESSAGES)
    if messages:
        fields += messages_line(request_id)
    answer(exchange, rejection.status, body_of(rejection, messages=messages), fields)
