"""Answers that the router gives by itself: a closed set of reasons, one status each."""

import json
from enum import StrEnum
from typing import Final

from supervisord_cp.model.base import Value


class RejectReason(StrEnum):
    """Why a request is not answered by an engine; clients read it in `x-supervisord-cp-reason`."""

    INVALID_JSON = "invalid_json"
    MODEL_MISSING = "model_missing"
    BAD_REQUEST = "bad_request"
    BAD_API_KEY = "bad_api_key"
    ENGINE_ROUTE_DENIED = "engine_route_denied"
    MODEL_UNKNOWN = "model_unknown"
    REQUEST_TIMEOUT = "request_timeout"
    BODY_TOO_LARGE = "body_too_large"
    HEADERS_TOO_LARGE = "headers_too_large"
    QUEUE_FULL = "queue_full"
    RATE_LIMITED = "rate_limited"
    DEADLINE_HOPELESS = "deadline_hopeless"
    UPSTREAM_LOST = "upstream_lost"
    UPSTREAM_INVALID = "upstream_invalid"
    NO_CAPACITY = "no_capacity"
    WAKING = "waking"
    DRAINING = "draining"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    QUEUE_TIMEOUT = "queue_timeout"


RETRY_AFTER: Final = frozenset(
    {
        RejectReason.QUEUE_FULL,
        RejectReason.DEADLINE_HOPELESS,
        RejectReason.NO_CAPACITY,
        RejectReason.WAKING,
        RejectReason.DRAINING,
    }
)
"""Those that say when to come again."""
QUEUED: Final = frozenset({RejectReason.QUEUE_FULL, RejectReason.DEADLINE_HOPELESS})
"""Refused because of what waits before it."""

_STATUS: Final[dict[RejectReason, int]] = {
    RejectReason.INVALID_JSON: 400,
    RejectReason.MODEL_MISSING: 400,
    RejectReason.BAD_REQUEST: 400,
    RejectReason.BAD_API_KEY: 401,
    RejectReason.ENGINE_ROUTE_DENIED: 403,
    RejectReason.MODEL_UNKNOWN: 404,
    RejectReason.REQUEST_TIMEOUT: 408,
    RejectReason.BODY_TOO_LARGE: 413,
    RejectReason.HEADERS_TOO_LARGE: 431,
    RejectReason.QUEUE_FULL: 429,
    RejectReason.RATE_LIMITED: 429,
    RejectReason.DEADLINE_HOPELESS: 429,
    RejectReason.UPSTREAM_LOST: 502,
    RejectReason.UPSTREAM_INVALID: 502,
    RejectReason.NO_CAPACITY: 503,
    RejectReason.WAKING: 503,
    RejectReason.DRAINING: 503,
    RejectReason.DEADLINE_EXCEEDED: 504,
    RejectReason.QUEUE_TIMEOUT: 504,
}

_TYPES: Final[dict[int, str]] = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    429: "rate_limit_error",
    504: "timeout_error",
}


class QueuePlace(Value, frozen=True, kw_only=True):
    """Where a request waits, or would wait."""

    position: int
    """1: it goes next."""
    wait_s: float | None = None
    """How long it will wait, about; None: nobody can tell."""


class Rejection(Value, frozen=True, kw_only=True):
    """One answer of our own."""

    reason: RejectReason
    message: str
    param: str = ""
    """The field of the request that is at fault, when there is one."""
    retry_after_s: int | None = None
    place: QueuePlace | None = None
    """Where it waited, or would have."""

    @property
    def status(self) -> int:
        return status_of(self.reason)


class Rejected(Exception):
    """Raised where a request turns out to be answered by us."""

    def __init__(
        self, reason: RejectReason, message: str, *, param: str = "", retry_after_s: int | None = None
    ) -> None:
        super().__init__(message)
        self.rejection = Rejection(reason=reason, message=message, param=param, retry_after_s=retry_after_s)


def status_of(reason: RejectReason) -> int:
    """The HTTP status of a reason."""
    return _STATUS[reason]


def body_of(rejection: Rejection, *, messages: bool = False) -> bytes:
    """The JSON body, shaped as OpenAI's errors are; with `messages` as Anthropic's, too."""
    status = rejection.status
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    error = {
        "message": rejection.message,
        "type": kind,
        "param": rejection.param or None,
        "code": rejection.reason.value,
    }
    return json.dumps({"type": "error", "error": error} if messages else {"error": error}).encode()
