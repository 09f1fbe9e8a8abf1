"""The route that tells why: of a request, a deployment or an instance."""

import asyncio
import json
from typing import Final

from aiohttp import web

from supervisord_cp.central import explain
from supervisord_cp.central.controller import Controller
from supervisord_cp.central.explain_scaling import explained, summary
from supervisord_cp.central.links import CallFailed, Links
from supervisord_cp.central.operations import NotFound, NotPossible
from supervisord_cp.central.policies import ask_routers
from supervisord_cp.central.views import Json
from supervisord_cp.model.base import DeploymentName, InstanceId

CAPSULE_S: Final = 5.0
"""How long an agent may take to hand over a crash capsule."""
MOST_DECISIONS: Final = 500


class ExplainApi:
    """Asks who knows: central's own record, an agent, the routers."""

    def __init__(self, controller: Controller, links: Links) -> None:
        self._c = controller
        self._links = links

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer a request.

        Raises:
            NotFound: there is no such thing, or nothing is recorded of it.
            NotPossible: a parameter is no number.
        """
        kind, name = request.match_info["kind"], request.match_info["id"]
        if kind == "request":
            return web.json_response(await self._request(name))
        if kind == "deployment":
            at, last = _parameter(request, "at"), _parameter(request, "last")
            return web.json_response(await self._deployment(name, at, last))
        if kind == "instance":
            return web.json_response(await self._instance(name))
        raise NotFound(f"nothing is recorded of a {kind}; request, deployment, instance can be explained")

    async def _deployment(self, name: str, at: float | None, last: float | None) -> Json:
        """The decision of now, or the one that held at a time; or the latest ones in a line each."""
        found = explain.explain_deployment(self._c, name)
        if found is None:
            raise NotFound(f"no deployment named {name}")
        scaling, decisions = self._c.scaling, self._c.memory.decisions
        if last is not None:
            latest = await decisions.latest(name, min(MOST_DECISIONS, max(1, int(last))))
            return {"deployment": found["deployment"], "decisions": [summary(*one) for one in latest]}
        record = scaling.records.get(DeploymentName(name))
        if at is not None:
            earlier = await decisions.latest(name, 1, until=at)
            if not earlier:
                raise NotFound(f"no decision of {name} is kept from before that time; see --last")
            record = earlier[-1][1]
        if record is None:
            return found
        told = await asyncio.to_thread(explained, record, scaling.known)
        for one in told["inputs"]:
            if one["kind"] == "query":
                one["expression"] = self._c.config.prometheus.queries.get(one["name"])
        if at is not None:
            found = {key: found[key] for key in ("deployment", "events")}
        return found | told

    async def _instance(self, name: str) -> Json:
        found = explain.explain_instance(self._c, name)
        if found is None:
            raise NotFound(f"no instance named {name}")
        return found | await self._capsule(name)

    async def _capsule(self, name: str) -> Json:
        """What the agent has kept of an instance's last abnormal end, or why there is nothing."""
        status = self._c.statuses().get(InstanceId(name))
        peer = None if status is None else self._links.agents.get(status[0].name)
        if peer is None:
            return {"capsule": None, "capsule_missing": "its agent is not connected"}
        try:
            async with asyncio.timeout(CAPSULE_S):
                text = "".join([piece async for piece in peer.call("capsule", {"instance": name})])
            return {"capsule": json.loads(text), "capsule_missing": ""}
        except TimeoutError:
            return {"capsule": None, "capsule_missing": "its agent does not answer"}
        except (CallFailed, ValueError) as error:
            return {"capsule": None, "capsule_missing": str(error)}

    async def _request(self, name: str) -> Json:
        """Routers keep the latest decisions; central asks them all."""
        name = name.removeprefix("chatcmpl-").removeprefix("cmpl-")  # the id that an answer's body has
        answers = await ask_routers(self._links.routers, "requests.explain", {"request": name})
        found = {router: told for router, told in answers.items() if told and isinstance(told, list)}
        if not found:
            raise NotFound(
                f"no router has decided lately for a request {name} (its x-request-id, or its answer's id)"
            )
        return {"request": name, "decisions": found}


def _parameter(request: web.Request, name: str) -> float | None:
    text = request.query.get(name)
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        raise NotPossible(f"{name} must be a number, not {text!r}") from None
