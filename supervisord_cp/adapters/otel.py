"""Spans for an OpenTelemetry collector, sent as OTLP over HTTP (extra `otel`).

The SDK's batch processor sends in a thread of its own, from a bounded queue: what does not fit is dropped,
and whoever ends a span never waits. The SDK's variables (OTEL_EXPORTER_OTLP_HEADERS for a token,
OTEL_RESOURCE_ATTRIBUTES, …) hold.
"""

from collections.abc import Mapping
from threading import Thread
from typing import Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

Attributes = Mapping[str, str] | Mapping[str, str | int] | Mapping[str, str | int | float]

MOST_WAITING: Final = 4096
"""Spans that are over and not sent yet; more are dropped."""
EXPORT_S: Final = 5.0
"""How long one export may take, its retries included."""
CLOSE_S: Final = 2.0
_PATH: Final = "/v1/traces"
_CONTEXT: Final = TraceContextTextMapPropagator()


class ServerSpan:
    """One request, from its arrival to its end."""

    __slots__ = ("_span",)

    def __init__(self, span: Span) -> None:
        self._span = span

    def headers(self) -> Mapping[str, str]:
        """`traceparent`, and `tracestate` if there is one, for whoever serves this request further on."""
        made: dict[str, str] = {}
        _CONTEXT.inject(made, set_span_in_context(self._span, Context()))
        return made

    def event(self, name: str, attributes: Attributes) -> None:
        """Something that happened on the way."""
        self._span.add_event(name, dict(attributes))

    def end(self, attributes: Attributes, *, failed: bool) -> None:
        """It is over; the span is sent some time later."""
        self._span.set_attributes(dict(attributes))
        if failed:
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()


class Spans:
    """Makes spans and has them sent."""

    def __init__(self, endpoint: str, *, ratio: float, service: str, instance: str) -> None:
        """`endpoint`: base address of the collector. `ratio` of the traces that begin here are sampled; of
        those that a client began it is the client who decides."""
        url = endpoint if endpoint.endswith(_PATH) else endpoint.rstrip("/") + _PATH
        self._provider = TracerProvider(
            sampler=ParentBasedTraceIdRatio(ratio),
            resource=Resource.create({"service.name": service, "service.instance.id": instance}),
            shutdown_on_exit=False,
        )
        exporter = OTLPSpanExporter(endpoint=url, timeout=EXPORT_S)
        self._provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=MOST_WAITING))
        self._tracer = self._provider.get_tracer("supervisord_cp")

    def begin(self, name: str, parent: Mapping[str, str], attributes: Attributes) -> ServerSpan:
        """A request has come; `parent` has the client's `traceparent` and `tracestate`, if it sent them."""
        context = _CONTEXT.extract(parent, Context())
        return ServerSpan(
            self._tracer.start_span(name, context, kind=SpanKind.SERVER, attributes=dict(attributes))
        )

    def close(self) -> None:
        """Send what is left. Blocks for CLOSE_S seconds at most; what has not gone by then is lost."""
        closing = Thread(target=self._provider.shutdown, name="otel-close", daemon=True)
        closing.start()
        closing.join(CLOSE_S)
