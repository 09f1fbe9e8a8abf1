"""The routes of the control listener."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import msgspec
from aiohttp import web

from supervisord_cp.central import explain, views
from supervisord_cp.central.controller import Controller
from supervisord_cp.central.explain_api import ExplainApi
from supervisord_cp.central.http_sd import targets
from supervisord_cp.central.links import CallFailed, Links
from supervisord_cp.central.metrics import Metrics
from supervisord_cp.central.operations import NotFound, NotPossible, Operations
from supervisord_cp.central.page.page_api import PageApi
from supervisord_cp.central.policies import CentralPolicies, ask_routers
from supervisord_cp.config.effective import masked, plain
from supervisord_cp.model.base import InstanceId
from supervisord_cp.ports.store import StoreFailed
from supervisord_cp.version import __version__
from supervisord_cp.wire.messages import AGENT_PATH, ROUTER_PATH

MAX_BODY: Final = 64 * 1024
VERBS: Final = ("start", "stop", "restart", "drain")
LOG_LINES: Final = 200
ROUTER_RESTART_S: Final = 40.0
"""How long a router may take to have new processes serve."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
T = TypeVar("T")


class Scale(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `scale`."""

    replicas: int | str
    for_s: float | None = None


class Operate(msgspec.Struct, forbid_unknown_fields=True):
    """Body of start, stop, restart and drain; all optional."""

    deadline_s: float | None = None
    unlisted: bool = False
    """Of `stop`: an instance that has no place here is meant, and ended for good."""
    gpu: str | int | None = None


class Api:
    """Handlers over the controller; `routes()` lists them with a line of documentation each."""

    def __init__(
        self,
        controller: Controller,
        links: Links,
        metrics: Metrics,
        policies: CentralPolicies,
        page: PageApi,
        wall: Callable[[], float],
    ) -> None:
        self._c = controller
        self._links = links
        self._metrics = metrics
        self._policies = policies
        self._page = page
        self._operations = Operations(controller)
        self._explain = ExplainApi(controller, links)
        self._wall = wall

    def routes(self) -> list[tuple[str, str, Handler, str]]:
        """(method, path, handler, what it does)."""
        view = self._view
        return [
            *self._page.routes(),
            ("GET", "/healthz", self.healthz, "200 while the daemon runs"),
            ("GET", "/readyz", self.readyz, "200 once agents have had time to report"),
            ("GET", "/metrics", self.metrics, "Prometheus metrics of central and its routers"),
            ("GET", "/api/v1/status", view(views.status), "the fleet in one object"),
            ("GET", "/api/v1/nodes", view(views.nodes), "nodes with their GPUs"),
            ("GET", "/api/v1/gpus", view(views.gpus), "GPUs of all nodes"),
            ("GET", "/api/v1/instances", view(views.instances), "instances"),
            ("GET", "/api/v1/deployments", view(views.deployments), "deployments"),
            ("GET", "/api/v1/config", self.config, "the effective configuration"),
            ("GET", "/api/v1/policies", self.policies, "policies, who uses them, and how they do"),
            (
                "GET",
                "/api/v1/policies/differences",
                self.differences,
                "decisions in which shadow policies did not agree; ?deployment=",
            ),
            (
                "POST",
                "/api/v1/policies/reload",
                self.reload_policies,
                "look at policy files again, here and on the routers",
            ),
            ("GET", "/api/v1/events", self.events, "the newest events; ?limit= &subject="),
            ("GET", "/api/v1/events/stream", self.event_stream, "events as they come (server-sent events)"),
            ("GET", "/api/v1/instances/{id}/logs", self.logs, "a log; ?lines= &follow= &previous="),
            (
                "GET",
                "/api/v1/explain/{kind}/{id}",
                self._explain.handle,
                "why a request, a deployment or an instance is as it is; of a deployment ?at= &last=",
            ),
            ("GET", "/api/v1/prometheus/targets", self.targets, "scrape targets for Prometheus (http_sd)"),
            ("GET", "/api/v1/openapi.json", self.openapi, "this list, as OpenAPI"),
            (
                "POST",
                "/api/v1/deployments/{id}/scale",
                self.scale,
                "set replicas by hand, or return to automatic",
            ),
            *(
                ("POST", f"/api/v1/{kind}/{{id}}/{verb}", self._operate(kind, verb), f"{verb} {kind}")
                for kind in ("deployments", "instances", "nodes")
                for verb in VERBS
            ),
            ("POST", "/api/v1/nodes/{id}/cordon", self._cordon(True), "place nothing new on a node or GPU"),
            ("POST", "/api/v1/nodes/{id}/uncordon", self._cordon(False), "lift a cordon"),
            ("POST", "/api/v1/nodes/{id}/forget", self.forget, "give up a node that is gone for good"),
            (
                "POST",
                "/api/v1/routers/restart",
                self.restart_routers,
                "put new processes in the place of the routers', losing no request",
            ),
            ("GET", AGENT_PATH, self._links.agent, "the websocket of agents"),
            ("GET", ROUTER_PATH, self._links.router, "the websocket of routers"),
        ]

    def _view(self, make: Callable[[Controller], Any]) -> Handler:
        async def handler(request: web.Request) -> web.StreamResponse:
            return web.json_response(make(self._c))

        return handler

    async def healthz(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"status": "ok", "version": __version__})

    async def readyz(self, request: web.Request) -> web.StreamResponse:
        ready = self._c.settled
        return web.json_response({"ready": ready}, status=200 if ready else 503)

    async def metrics(self, request: web.Request) -> web.StreamResponse:
        text = await self._metrics.page(self._links.routers)
        return web.Response(body=text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def config(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(plain(masked(self._c.config)))

    async def policies(self, request: web.Request) -> web.StreamResponse:
        reports = self._c.routers.live_reports(self._c.clock.now())
        return web.json_response(self._policies.listing(self._c.config, reports))

    async def differences(self, request: web.Request) -> web.StreamResponse:
        deployment = request.query.get("deployment", "")
        params = {"deployment": deployment} if deployment else {}
        answers = await ask_routers(self._links.routers, "policies.differences", params)
        return web.json_response(answers)

    async def restart_routers(self, request: web.Request) -> web.StreamResponse:
        addresses = self._c.routers.addresses()
        asked = {a: peer for a, r in addresses.items() if (peer := self._links.routers.get(r)) is not None}
        answers = await ask_routers(asked, "restart", within_s=ROUTER_RESTART_S)
        told = {a: answer if isinstance(answer, str) else answer["error"] for a, answer in answers.items()}
        for address, problem in told.items():
            self._c.note("router.restarted" if not problem else "router.not_restarted", address)
        return web.json_response({"routers": told})

    async def reload_policies(self, request: web.Request) -> web.StreamResponse:
        problems, routers = await asyncio.gather(
            self._policies.refresh(self._c.config, again=True),
            ask_routers(self._links.routers, "policies.reload"),
        )
        return web.json_response({"problems": problems, "routers": routers})

    async def events(self, request: web.Request) -> web.StreamResponse:
        limit = _number(request, "limit", 100)
        recent = self._c.events.recent(limit, request.query.get("subject", ""))
        return web.json_response([explain.event(e) for e in recent])

    async def event_stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
        )
        await response.prepare(request)
        await response.write(b": events of the fleet\n\n")
        async for logged in self._c.events.follow():
            data = json.dumps(explain.event(logged))
            await response.write(f"id: {logged.id}\ndata: {data}\n\n".encode())
        return response

    async def targets(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(targets(self._c))

    async def logs(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["id"]
        found = self._c.statuses().get(InstanceId(name))
        if found is None:
            return _error(404, f"no instance named {name} is known to have a log")
        peer = self._links.agents.get(found[0].name)
        if peer is None:
            return _error(503, f"the agent of {found[0].name} is not connected; its log is on that host")
        params: dict[str, str | int | float | bool | None] = {
            "instance": name,
            "lines": _number(request, "lines", LOG_LINES),
            "follow": request.query.get("follow", "") in ("1", "true"),
            "previous": request.query.get("previous", "") in ("1", "true"),
        }
        pieces = peer.call("logs", params)
        try:
            first = await anext(pieces, "")
        except CallFailed as error:
            return _error(502, str(error))
        response = web.StreamResponse(headers={"Content-Type": "text/plain; charset=utf-8"})
        await response.prepare(request)
        try:
            await response.write(first.encode())
            async for piece in pieces:
                await response.write(piece.encode())
        except CallFailed as error:
            await response.write(f"\n[{error}]\n".encode())
        finally:
            await pieces.aclose()  # type: ignore[attr-defined]
        return response

    async def scale(self, request: web.Request) -> web.StreamResponse:
        body = await _body(request, Scale)
        if isinstance(body.replicas, str) and body.replicas != "auto":
            return _error(400, 'replicas must be a number or "auto"')
        replicas = None if isinstance(body.replicas, str) else body.replicas
        expires = None if body.for_s is None else self._wall() + body.for_s
        message = self._operations.scale(request.match_info["id"], replicas, expires)
        await self._c.memory.flush()
        return web.json_response({"message": message})

    def _operate(self, kind: str, verb: str) -> Handler:
        async def handler(request: web.Request) -> web.StreamResponse:
            body = await _body(request, Operate)
            name = request.match_info["id"]
            if kind == "deployments":
                done = self._operations.deployment(name, verb, body.deadline_s)
            elif kind == "instances":
                if body.unlisted and verb == "stop":
                    done = self._operations.end_unlisted(name, body.deadline_s)
                else:
                    done = self._operations.instance(name, verb, body.deadline_s)
            else:
                gpu = None if body.gpu is None else str(body.gpu)
                done = self._operations.node(name, verb, body.deadline_s, gpu)
            await self._c.memory.flush()
            return web.json_response({"instances": done})

        return handler

    def _cordon(self, on: bool) -> Handler:
        async def handler(request: web.Request) -> web.StreamResponse:
            body = await _body(request, Operate)
            gpu = None if body.gpu is None else str(body.gpu)
            message = self._operations.cordon(request.match_info["id"], gpu, on)
            await self._c.memory.flush()
            return web.json_response({"message": message})

        return handler

    async def forget(self, request: web.Request) -> web.StreamResponse:
        message = self._operations.forget(request.match_info["id"])
        await self._c.memory.flush()
        return web.json_response({"message": message})

    async def openapi(self, request: web.Request) -> web.StreamResponse:
        paths: dict[str, dict[str, Any]] = {}
        for method, path, _, text in self.routes():
            parameters = [
                {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
                for name in ("kind", "id")
                if f"{{{name}}}" in path
            ]
            paths.setdefault(path, {})[method.lower()] = {
                "summary": text,
                "parameters": parameters,
                "responses": {"200": {"description": "as documented in docs/http.md"}},
            }
        info = {"title": "supervisord-cp control", "version": __version__}
        return web.json_response({"openapi": "3.1.0", "info": info, "paths": paths})


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Errors of ours as JSON with a status; the text says what to do."""
    try:
        return await handler(request)
    except NotFound as error:
        return _error(404, str(error))
    except (NotPossible, msgspec.ValidationError, msgspec.DecodeError) as error:
        return _error(400, str(error))
    except StoreFailed as error:
        return _error(507, str(error))
    except web.HTTPException as error:
        return _error(error.status, error.reason)
    except asyncio.CancelledError:
        raise


async def _body(request: web.Request, type_: type[T]) -> T:
    raw = await request.read()
    return msgspec.json.decode(raw or b"{}", type=type_)


def _number(request: web.Request, name: str, default: int) -> int:
    text = request.query.get(name, "")
    return int(text) if text.isdigit() else default


def _error(status: int, message: str) -> web.Response:
    return web.json_response({"error": message}, status=status)
