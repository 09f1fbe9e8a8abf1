"""From a request to HTTP, and from an answer to a completion."""

from typing import Any, Final, TypeVar

import msgspec

from supervisord_cp.router.exchange import MemoryExchange, request_head
from supervisord_cp.router.http1.head import RequestHead
from supervisord_cp.sdk.errors import RequestFailed
from supervisord_cp.sdk.types import Completion, RequestMetadata

INSTANCE: Final = "x-supervisord-cp-instance"
REASON: Final = "x-supervisord-cp-reason"
_LONGEST_MESSAGE: Final = 1000
_OK: Final = range(200, 300)

T = TypeVar("T")


def head_of(metadata: RequestMetadata, now: float) -> RequestHead:
    """The head of a request that is sent now, as a client of the api listener would send it."""
    headers = {
        "content-type": "application/json",
        "x-request-id": metadata.request_id,
        "x-priority": metadata.priority.name.lower(),
    }
    if metadata.session_id:
        headers["x-session-id"] = metadata.session_id
    if metadata.deadline is not None:
        headers["x-deadline-ms"] = str(max(0, round((metadata.deadline - now) * 1000)))
    if metadata.cost_budget is not None:
        headers["x-cost-budget"] = f"{metadata.cost_budget:.12g}"
    path = "/v1/completions" if metadata.messages is None else "/v1/chat/completions"
    return request_head("POST", path, headers)


def body_of(metadata: RequestMetadata) -> bytes:
    """Its body.

    Raises:
        TypeError: something in it cannot be JSON.
    """
    fields: dict[str, Any] = {
        "model": metadata.model_name,
        "prompt": metadata.prompt,
        "messages": None if metadata.messages is None else [dict(m) for m in metadata.messages],
        "max_tokens": metadata.max_tokens,
        "temperature": metadata.temperature,
        "top_p": metadata.top_p,
        "user": metadata.user_id or None,
    }
    given = {name: value for name, value in fields.items() if value is not None}
    return msgspec.json.encode({**given, **metadata.extra})


def completion_of(metadata: RequestMetadata, exchange: MemoryExchange, latency_ms: float) -> Completion:
    """What an exchange that is over has brought.

    Raises:
        RequestFailed: it is no completion.
    """
    answer = _json(exchange.answer)
    if exchange.status not in _OK:
        reason = exchange.headers.get(REASON, "engine_error")
        raise RequestFailed(metadata.request_id, reason, _message(answer, exchange), exchange.status)
    if not exchange.complete:
        raise RequestFailed(metadata.request_id, "upstream_lost", "the answer broke off", exchange.status)
    choices = _get(answer, "choices", list)
    if not choices:
        raise RequestFailed(
            metadata.request_id, "invalid_answer", "the engine's answer is no completion", exchange.status
        )
    message = _get(choices[0], "message", dict)
    usage = _get(answer, "usage", dict)
    return Completion(
        request_id=metadata.request_id,
        text=(_get(message, "content", str) if message is not None else _get(choices[0], "text", str)) or "",
        finish_reason=_get(choices[0], "finish_reason", str),
        model_name=_get(answer, "model", str) or metadata.model_name or "",
        instance_id=exchange.headers.get(INSTANCE, ""),
        prompt_tokens=_get(usage, "prompt_tokens", int) or 0,
        completion_tokens=_get(usage, "completion_tokens", int) or 0,
        latency_ms=latency_ms,
        response=answer if isinstance(answer, dict) else {},
    )


def _json(answer: bytes | bytearray) -> Any:
    try:
        return msgspec.json.decode(answer)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None


def _message(answer: object, exchange: MemoryExchange) -> str:
    """What an error says: OpenAI's shape, vLLM's older one, or the text itself."""
    error = _get(answer, "error", dict) or answer
    text = _get(error, "message", str) or exchange.answer.decode("utf-8", "replace").strip()
    return text[:_LONGEST_MESSAGE] or f"the answer is HTTP {exchange.status}"


def _get(of: object, name: str, type_: type[T]) -> T | None:
    value = of.get(name) if isinstance(of, dict) else None
    return value if isinstance(value, type_) else None
