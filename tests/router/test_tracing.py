"""W3C trace context through the router, and spans to a collector that stands beside the test."""

import asyncio
import contextlib
import re
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from supervisord_cp.config.schema import RouterConfig
from supervisord_cp.errors import UsageError
from supervisord_cp.router.tracing import Tracing, check_tracing, make_tracing
from tests.router.kit import breaks, instance, rig, says, streams

if TYPE_CHECKING:
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"
CONTEXT = f"TraceParent: {PARENT}\r\ntracestate: congo=t61rcWkgMzE,rojo=1\r\n"
ASK = {"model": "chat", "prompt": "x"}


class Collector:
    """Takes what is exported; until `gate` opens it answers nothing."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.paths: list[str] = []
        self.asked = threading.Event()
        self.gate = threading.Event()
        self.gate.set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                collector.paths.append(self.path)
                collector.bodies.append(self.rfile.read(int(self.headers["content-length"])))
                collector.asked.set()
                collector.gate.wait(30)
                with contextlib.suppress(ConnectionError):
                    self.send_response(200)
                    self.send_header("content-length", "0")
                    self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def spans(self) -> "list[Span]":
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        return [
            span
            for body in self.bodies
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def close(self) -> None:
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def collector() -> Iterator[Collector]:
    pytest.importorskip("opentelemetry.sdk", reason="the extra otel is not installed")
    made = Collector()
    yield made
    made.close()


def tracing_to(url: str, ratio: float = 1.0) -> Tracing:
    made = make_tracing(RouterConfig(otlp_endpoint=url, otlp_sampling_ratio=ratio), "here:1")
    assert made is not None
    return made


def attributes(span: "Span") -> dict[str, object]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


@pytest.mark.asyncio
async def test_without_tracing_the_clients_context_reaches_the_engine_as_it_is() -> None:
    async with rig() as router:
        engine = await router.engine()
        router.serve(instance(engine))
        await router.ask(ASK, headers=CONTEXT)
        assert CONTEXT.encode() in engine.asked[0].raw + b"\r\n", "byte by byte"
        await router.ask(ASK)
        assert "traceparent" not in engine.asked[1].headers, "and none is made up"


@pytest.mark.asyncio
async def test_a_span_is_the_clients_child_and_the_engines_parent(collector: Collector) -> None:
    tracing = tracing_to(collector.url)
    async with rig(observers=[tracing]) as router:
        engine = await router.engine(streams("a", "b", usage='{"prompt_tokens": 7, "completion_tokens": 9}'))
        router.serve(instance(engine))
        await router.ask({**ASK, "stream": True}, headers=CONTEXT + "x-request-id: mine\r\n")
    await tracing.close()
    (span,) = collector.spans()
    assert collector.paths == ["/v1/traces"]
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, "b7ad6b7169203331")
    assert (span.name, span.kind) == ("POST /v1/chat/completions", span.SPAN_KIND_SERVER)
    found = attributes(span)
    assert found.pop("supervisord_cp.first_byte_s")
    assert found == {
        "http.request.method": "POST",
        "url.path": "/v1/chat/completions",
        "http.response.status_code": 200,
        "gen_ai.request.model": "chat",
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 9,
        "supervisord_cp.request_id": "mine",
        "supervisord_cp.deployment": "chat",
        "supervisord_cp.instance": "chat-0",
        "supervisord_cp.queue_wait_s": 0.0,
        "supervisord_cp.retries": 0,
    }
    (asked,) = engine.asked
    assert len(re.findall(rb"(?i)traceparent:", asked.raw)) == 1
    assert asked.headers["traceparent"] == f"00-{TRACE}-{span.span_id.hex()}-01"
    assert asked.headers["tracestate"] == "congo=t61rcWkgMzE,rojo=1"


@pytest.mark.asyncio
async def test_retries_and_refusals_are_told(collector: Collector) -> None:
    tracing = tracing_to(collector.url + "/v1/traces")
    async with rig(observers=[tracing]) as router:
        bad, good = await router.engine(breaks()), await router.engine(says({"ok": 1}))
        router.serve(instance(bad, 0), instance(good, 1))
        while not bad.asked:
            assert (await router.ask(ASK)).status == 200
        assert (await router.ask({"model": "none"})).status == 404
    await tracing.close()
    *_, retried, refused = sorted(collector.spans(), key=lambda span: span.start_time_unix_nano)
    assert attributes(retried)["supervisord_cp.retries"] == 1
    assert attributes(retried)["supervisord_cp.instance"] == "chat-1"
    assert [event.name for event in retried.events] == ["missed"]
    assert attributes(refused)["error.type"] == "model_unknown"
    assert len(retried.trace_id) == 16, "without a client's context a trace begins here"
    assert retried.trace_id != refused.trace_id


@pytest.mark.asyncio
async def test_requests_that_wait_break_or_are_left_have_a_span_too(collector: Collector) -> None:
    tracing = tracing_to(collector.url)
    async with rig(observers=[tracing]) as router:
        engine = await router.engine(streams("a", "b", gate=asyncio.Event()))
        router.serve(instance(engine))
        client = await router.client()
        client.post({**ASK, "stream": True})
        await client.head()
        client.abort()
    await tracing.close()
    (span,) = collector.spans()
    assert attributes(span)["http.response.status_code"] == 499


@pytest.mark.asyncio
async def test_clients_decide_what_is_sampled_and_the_ratio_decides_the_rest(collector: Collector) -> None:
    tracing = tracing_to(collector.url, ratio=0.0)
    async with rig(observers=[tracing]) as router:
        engine = await router.engine()
        router.serve(instance(engine))
        await router.ask(ASK)
        await router.ask(ASK, headers=CONTEXT)
        await router.ask(ASK, headers=CONTEXT.replace("-01\r", "-00\r"))
    await tracing.close()
    (span,) = collector.spans()
    assert span.trace_id.hex() == TRACE
    flags = [int(asked.headers["traceparent"].rpartition("-")[2], 16) for asked in engine.asked]
    assert [each & 1 for each in flags] == [0, 1, 0], "what is not sampled has a context, too"


@pytest.mark.asyncio
async def test_a_context_that_is_none_begins_a_trace(collector: Collector) -> None:
    tracing = tracing_to(collector.url)
    async with rig(observers=[tracing]) as router:
        engine = await router.engine()
        router.serve(instance(engine))
        for headers in ("traceparent: 00-nonsense\r\n", CONTEXT + f"traceparent: {PARENT}\r\n"):
            await router.ask(ASK, headers=headers)
    await tracing.close()
    assert [span.parent_span_id for span in collector.spans()] == [b"", b""]
    for asked in engine.asked:
        assert len(re.findall(rb"(?i)traceparent:", asked.raw)) == 1


@pytest.mark.asyncio
async def test_a_collector_that_hangs_delays_nobody(collector: Collector) -> None:
    collector.gate.clear()
    tracing = tracing_to(collector.url)
    async with rig(observers=[tracing]) as router:
        engine = await router.engine(says({"ok": 1}))
        router.serve(instance(engine))
        client = await router.client()
        while not collector.asked.is_set():  # a full batch is sent at once
            client.post(ASK)
            assert (await client.answer()).status == 200
        for _ in range(20):
            client.post(ASK)
            assert (await client.answer()).status == 200
    assert not collector.gate.is_set(), "all that while the collector has said nothing"
    collector.gate.set()
    await tracing.close()


def test_without_the_extra_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervisord_cp.adapters.otel", None)
    check_tracing(RouterConfig())
    with pytest.raises(UsageError, match=r"pip install 'supervisord-cp\[otel\]'"):
        check_tracing(RouterConfig(otlp_endpoint="http://127.0.0.1:4318"))
