"""One span per request, as OpenTelemetry has it: a child of the client's, and parent of the engine's."""

import asyncio
import re
from collections.abc import Mapping
from copy import copy
from typing import TYPE_CHECKING, Final

from supervisord_cp.config.schema import RouterConfig
from supervisord_cp.core.routing.rejection import Rejection
from supervisord_cp.core.routing.retry import Miss
from supervisord_cp.core.routing.usage import Usage
from supervisord_cp.errors import UsageError
from supervisord_cp.router.exchange import Exchange
from supervisord_cp.router.http1.head import RequestHead

if TYPE_CHECKING:
    from supervisord_cp.adapters.otel import ServerSpan, Spans
    from supervisord_cp.router.flow import Flow

SERVICE: Final = "supervisord-cp-router"
_CONTEXT: Final = re.compile(rb"(?im)^(traceparent|tracestate):[ \t]*([^\r\n]*?)[ \t]*\r\n")
_WITH_ID: Final = re.compile(r"^(/v1/responses)/[^/]+")
_FAILED: Final = 500


def make_tracing(config: RouterConfig, instance: str) -> "Tracing | None":
    """What traces the requests, None when nothing is to be traced. `instance` names this router.

    Raises:
        UsageError: the extra `otel` is not installed.
    """
    if not config.otlp_endpoint:
        return None
    ratio = config.otlp_sampling_ratio
    return Tracing(_spans()(config.otlp_endpoint, ratio=ratio, service=SERVICE, instance=instance))


def check_tracing(config: RouterConfig) -> None:
    """Whether what is configured can be.

    Raises:
        UsageError: the extra `otel` is not installed.
    """
    if config.otlp_endpoint:
        _spans()


def _spans() -> "type[Spans]":
    try:
        from supervisord_cp.adapters.otel import Spans
    except ImportError as error:
        raise UsageError(
            "[router] otlp_endpoint: OpenTelemetry is not installed; "
            f"pip install 'supervisord-cp[otel]', or take the key out ({error})"
        ) from error
    return Spans


class Tracing:
    """An observer of requests (`observers.py`)."""

    def __init__(self, spans: "Spans") -> None:
        self._spans = spans
        self._open: dict[Flow, tuple[ServerSpan, list[Miss]]] = {}

    async def close(self) -> None:
        """Send what is left, for a moment."""
        await asyncio.to_thread(self._spans.close)

    def began(self, flow: "Flow") -> None:
        exchange, request = flow.exchange, flow.request
        head = exchange.head
        span = self._begin(
            head,
            _route(request.path),
            {
                "supervisord_cp.request_id": request.id,
                "supervisord_cp.deployment": request.deployment,
                "gen_ai.request.model": request.model,
            },
        )
        self._open[flow] = span, []
        exchange.head = _renewed(head, span.headers())

    def missed(self, flow: "Flow", miss: Miss, why: str) -> None:
        span, misses = self._open[flow]
        misses.append(miss)
        assert flow.account is not None
        instance = flow.account.instance.id
        span.event("missed", {"supervisord_cp.instance": instance, "reason": str(miss), "message": why})

    def over(self, flow: "Flow", usage: Usage, now: float) -> None:
        span, misses = self._open.pop(flow)
        attributes: dict[str, str | int | float] = {
            "http.response.status_code": flow.status,
            "supervisord_cp.queue_wait_s": flow.waited_s,
            "supervisord_cp.retries": len(misses),
        }
        if flow.account is not None:
            attributes["supervisord_cp.instance"] = flow.account.instance.id
        if flow.first_byte_at:
            attributes["supervisord_cp.first_byte_s"] = flow.first_byte_at - flow.arrived_at
        if usage.prompt_tokens:
            attributes["gen_ai.usage.input_tokens"] = usage.prompt_tokens
        if usage.completion_tokens:
            attributes["gen_ai.usage.output_tokens"] = usage.completion_tokens
        span.end(attributes, failed=flow.cut or flow.status >= _FAILED)

    def refused(self, exchange: Exchange, rejection: Rejection, request: str) -> None:
        span = self._begin(exchange.head, "", {"supervisord_cp.request_id": request})
        outcome: dict[str, str | int] = {
            "http.response.status_code": rejection.status,
            "error.type": str(rejection.reason),
        }
        span.end(outcome, failed=rejection.status >= _FAILED)

    def _begin(self, head: RequestHead, route: str, attributes: Mapping[str, str]) -> "ServerSpan":
        method = head.method.decode("ascii")
        name = f"{method} {route}" if route else method
        told = {"http.request.method": method, "url.path": head.path, **attributes}
        return self._spans.begin(name, _parent(head), told)


def _parent(head: RequestHead) -> dict[str, str]:
    """The client's context; one that is said twice is none."""
    found: dict[str, str] = {}
    for name, value in _CONTEXT.findall(head.fields):
        key, text = name.decode().lower(), value.decode("latin-1")
        found[key] = f"{found[key]},{text}" if key in found else text
    return found


def _renewed(head: RequestHead, context: Mapping[str, str]) -> RequestHead:
    """The head, with this context in place of the client's. Heads are shared: it is another one."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in context.items())
    made = copy(head)
    made.fields = _CONTEXT.sub(b"", head.fields) + lines.encode("latin-1")
    return made


def _route(path: str) -> str:
    """A path without what differs from request to request."""
    return _WITH_ID.sub(r"\1/{id}", path)
