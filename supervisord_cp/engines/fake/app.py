"""Which path is served by what, under which conditions, and who may call it."""

import hmac
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from supervisord_cp.engines.fake.bodies import ApiError, error_value, json_reply
from supervisord_cp.engines.fake.completions import Completions
from supervisord_cp.engines.fake.connection import Answer, EventStream, Reply
from supervisord_cp.engines.fake.control import Control, FakeControl
from supervisord_cp.engines.fake.endpoints import Endpoints
from supervisord_cp.engines.fake.faults import Faults
from supervisord_cp.engines.fake.generate import Service, new_id
from supervisord_cp.engines.fake.http1 import Request
from supervisord_cp.engines.fake.messages import Messages
from supervisord_cp.engines.fake.metrics import MetricsPage
from supervisord_cp.engines.fake.options import Options
from supervisord_cp.engines.fake.responses import Responses

GUARDED: Final = ("/v1", "/v2", "/inference", "/cohere")
"""Prefixes that the API key protects; the rest is open, as in vLLM."""
LOADING: Final = frozenset(
    f"/v1/{path}"
    for path in (
        "chat/completions",
        "completions",
        "embeddings",
        "responses",
        "messages",
        "audio/transcriptions",
    )
)
"""What `/load` counts."""
_SCALE_OUT: Final = (
    "Scale-out endpoints are disabled. Restart vllm serve with --enable-scale-out to enable them."
)

Handler = Callable[[Request], Awaitable[Answer]]
Routes = dict[str, dict[str, Handler]]
"""Path, method, handler. A path segment `*` stands for any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """Answers requests."""

    options: Options
    routes: Routes
    endpoints: Endpoints

    async def __call__(self, request: Request) -> Answer:
        refused = self._refuse_stranger(request)
        if refused is not None:
            return refused
        request = replace(request, path=_without_prefix(request.path, self.options.root_path))
        answer = await self._counted(request)
        if isinstance(answer, Reply | EventStream):
            return replace(answer, headers={**answer.headers, **self._headers(request)})
        return answer

    async def _counted(self, request: Request) -> Answer:
        """An answer whose making and streaming count as server load."""
        load = 1 if request.path in LOADING else 0

        def done() -> None:
            self.endpoints.in_flight -= load

        self.endpoints.in_flight += load
        answer: Answer | None = None
        try:
            answer = await self._answer(request)
        finally:
            if not isinstance(answer, EventStream):
                done()
        if isinstance(answer, EventStream):
            return replace(answer, close=_both(answer.close, done))
        return answer

    async def _answer(self, request: Request) -> Answer:
        methods = self.routes.get(request.path) or self.routes.get(_pattern(request.path))
        if methods is None:
            return json_reply({"detail": "Not Found"}, 404)
        handler = methods.get(request.method)
        if handler is None:
            return replace(
                json_reply({"detail": "Method Not Allowed"}, 405), headers={"allow": ", ".join(methods)}
            )
        try:
            return await handler(request)
        except ApiError as error:
            return json_reply(error_value(error), error.status)

    def _refuse_stranger(self, request: Request) -> Reply | None:
        keys = self.options.api_keys
        path = request.path.removeprefix(self.options.root_path)
        if not keys or request.method == "OPTIONS" or not path.startswith(GUARDED):
            return None
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and any(
            hmac.compare_digest(given.encode(), key.encode()) for key in keys
        ):
            return None
        return json_reply({"error": "Unauthorized"}, 401)

    def _headers(self, request: Request) -> Mapping[str, str]:
        headers = {"vary": "Origin"}
        if self.options.request_id_headers:
            headers["x-request-id"] = request.headers.get("x-request-id") or f"{new_id()}{new_id()}"
        return headers


def build_app(service: Service, faults: Faults, page: MetricsPage) -> App:
    """The app of an engine, with the routes that its flags and environment open."""
    endpoints = Endpoints(service, page)
    return App(options=service.options, routes=_routes(service, faults, endpoints), endpoints=endpoints)


def _routes(service: Service, faults: Faults, endpoints: Endpoints) -> Routes:
    options = service.options
    completions, responses, messages = Completions(service), Responses(service), Messages(service)
    control, fake = Control(service), FakeControl(service, faults)
    gated = control.nothing if options.scale_out else _scale_out_disabled
    routes: Routes = {
        "/health": {"GET": endpoints.health},
        "/ping": {"GET": endpoints.ping, "POST": endpoints.ping},
        "/load": {"GET": endpoints.load},
        "/version": {"GET": endpoints.version},
        "/metrics": {"GET": endpoints.metrics, "HEAD": endpoints.metrics},
        "/kv_event_sources": {"GET": control.nothing},
        "/tokenize": {"POST": endpoints.tokenize},
        "/detokenize": {"POST": endpoints.detokenize},
        "/v1/models": {"GET": endpoints.models},
        "/v1/chat/completions": {"POST": completions.chat},
        "/v1/completions": {"POST": completions.complete},
        "/v1/embeddings": {"POST": endpoints.embeddings},
        "/v1/responses": {"POST": responses.create},
        "/v1/responses/*": {"GET": responses.get},
        "/v1/responses/*/cancel": {"POST": responses.cancel},
        "/v1/messages": {"POST": messages.create},
        "/v1/messages/count_tokens": {"POST": messages.count_tokens},
        "/v1/audio/transcriptions": {"POST": endpoints.transcribe},
        "/v1/audio/translations": {"POST": endpoints.transcribe},
        "/v1/realtime": {"GET": endpoints.realtime},
        "/scale_elastic_ep": {"POST": control.nothing},
        "/is_scaling_elastic_ep": {"POST": control.nothing},
        "/inference/v1/generate": {"POST": gated},
        "/inference/v1/abort_requests": {"POST": control.abort_requests if options.scale_out else gated},
        "/fake/stats": {"GET": fake.stats},
    }
    if options.runtime_lora:
        routes["/v1/load_lora_adapter"] = {"POST": control.load_adapter}
        routes["/v1/unload_lora_adapter"] = {"POST": control.unload_adapter}
    if options.dev_mode:
        routes |= _dev_routes(control)
    if options.control:
        routes["/fake/faults"] = {"GET": fake.show, "POST": fake.change}
    return routes


def _dev_routes(control: Control) -> Routes:
    return {
        "/sleep": {"POST": control.sleep},
        "/wake_up": {"POST": control.wake_up},
        "/is_sleeping": {"GET": control.is_sleeping},
        "/pause": {"POST": control.pause},
        "/resume": {"POST": control.resume},
        "/is_paused": {"GET": control.is_paused},
        "/abort_requests": {"POST": control.abort_requests},
        "/collective_rpc": {"POST": control.collective_rpc},
        "/reset_prefix_cache": {"POST": control.reset_prefix_cache},
        "/reset_mm_cache": {"POST": control.nothing},
        "/reset_encoder_cache": {"POST": control.nothing},
        "/server_info": {"GET": control.server_info},
    }


async def _scale_out_disabled(_: Request) -> Answer:
    raise ApiError(403, _SCALE_OUT, "PermissionDeniedError")


def _both(first: Callable[[], None], second: Callable[[], None]) -> Callable[[], None]:
    def call() -> None:
        first()
        second()

    return call


def _without_prefix(path: str, prefix: str) -> str:
    return path.removeprefix(prefix) if prefix and path.startswith(f"{prefix}/") else path


def _pattern(path: str) -> str:
    """The route of a path with an id in it."""
    parts = path.split("/")
    if path.startswith("/v1/responses/") and len(parts) > 3:
        parts[3] = "*"
    return "/".join(parts)
