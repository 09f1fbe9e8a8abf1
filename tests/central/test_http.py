"""The control listener over real sockets: routes, tokens, cross-site requests, the websockets."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import aiohttp
import pytest
from aiohttp import web

from supervisord_cp.adapters.central_link import CentralLink
from supervisord_cp.adapters.tokens import TokenFile
from supervisord_cp.central.admitted import Admitted
from supervisord_cp.central.api import Api, errors
from supervisord_cp.central.audit import audit
from supervisord_cp.central.auth import guard, tokens_of
from supervisord_cp.central.links import Links
from supervisord_cp.central.metrics import Metrics, merge
from supervisord_cp.central.page.feed import Feed
from supervisord_cp.central.page.page_api import PageApi
from supervisord_cp.central.page.sessions import Sessions
from supervisord_cp.central.policies import CentralPolicies
from supervisord_cp.config.effective import from_plain, masked
from supervisord_cp.config.plan import diff_configs
from supervisord_cp.config.schema import CentralConfig, Config, Listen
from supervisord_cp.errors import UsageError
from supervisord_cp.model.instance import InstanceState, InstanceStatus
from supervisord_cp.model.node import NodeInventory, NodeReport
from supervisord_cp.model.router import RouterReport
from supervisord_cp.wire import messages as m
from supervisord_cp.wire.codec import encode
from tests.central.fleet import World, deployment
from tests.waiting import until

DOCS = Path(__file__).parents[2] / "docs" / "http.md"


@asynccontextmanager
async def serving(world: World, tokens: TokenFile | None = None) -> AsyncIterator[SimpleNamespace]:
    links = Links(world.controller, None if tokens is None else tokens.role_of)
    metrics = Metrics(world.controller)
    policies = CentralPolicies(
        (), use=world.controller.scaling.use_policies, tell=lambda event: None, clock=lambda: 0.0
    )
    feed = Feed(world.controller)
    sessions = None if tokens is None else Sessions(world.clock.now, tokens.role_of)
    admitted = Admitted()
    page = PageApi(feed, sessions)
    api = Api(world.controller, links, metrics, policies, page, lambda: world.wall)
    app = web.Application(
        middlewares=[
            errors,
            guard(tokens, metrics.refused, sessions, admitted),
            audit(world.controller.events.add),
        ],
        client_max_size=64 * 1024,
    )
    for method, path, handler, _ in api.routes():
        app.router.add_route(method, path, handler)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    watching = [asyncio.create_task(one) for one in (links.watch_tokens(), admitted.watch())]
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
        yield SimpleNamespace(
            session=session, port=port, links=links, api=api, feed=feed, url=f"http://127.0.0.1:{port}"
        )
        for one in watching:
            one.cancel()
        await links.close()
    await runner.cleanup()


@pytest.fixture
def world() -> World:
    made = World(deployment(replicas=2))
    made.agent()
    made.run()
    return made


@pytest.mark.asyncio
async def test_every_get_route_answers(world: World) -> None:
    async with serving(world) as served:
        for method, path, _, _ in served.api.routes():
            if method != "GET" or "stream" in path or "connect" in path or "logs" in path:
                continue
            path = path.replace("{kind}", "deployment").replace("{id}", "chat")
            async with served.session.get(path) as answer:
                assert answer.status == 200, (path, await answer.text())


@pytest.mark.asyncio
async def test_instances_have_the_promised_fields(world: World) -> None:
    fields = set(
        "id deployment node engine revision incarnation state reason phase eta_s pid url port "
        "gpus generation restarts uptime_s ready requests_running requests_waiting kv_cache_usage "
        "last_exit".split()
    )
    async with serving(world) as served, served.session.get("/api/v1/instances") as answer:
        listed = await answer.json()
    assert [i["id"] for i in listed] == ["chat-0", "chat-1"]
    assert all(fields <= set(i) for i in listed)


@pytest.mark.asyncio
async def test_deployments_and_nodes_have_the_promised_fields(world: World) -> None:
    promised = set(
        "name served_name revision progress wanted ready starting draining min max scaler reason "
        "cannot_place gated".split()
    )
    async with serving(world) as served:
        async with served.session.get("/api/v1/deployments") as answer:
            assert promised <= set((await answer.json())[0])
        async with served.session.get("/api/v1/nodes") as answer:
            assert set("name zone state report_age_s cordoned gpus".split()) <= set((await answer.json())[0])


@pytest.mark.asyncio
async def test_operations_by_http(world: World) -> None:
    async with serving(world) as served:

        async def post(path: str, body: object) -> tuple[int, dict]:
            async with served.session.post(f"/api/v1{path}", json=body) as answer:
                return answer.status, await answer.json()

        status, said = await post("/deployments/chat/scale", {"replicas": 3, "for_s": 60})
        assert status == 200
        until = datetime.fromtimestamp(world.wall + 60, UTC)
        assert said["message"] == f"chat is set to 3 until {until:%Y-%m-%d %H:%M:%S} UTC"
        async with served.session.get("/api/v1/events") as answer:
            assert said["message"] in await answer.text()
        assert world.controller.memory.overrides["chat"].expires_at == world.wall + 60
        assert (await post("/deployments/chat/scale", {"replicas": "auto"}))[0] == 200
        assert not world.controller.memory.overrides
        assert (await post("/deployments/chat/scale", {"replicas": "lots"}))[0] == 400
        assert (await post("/deployments/chat/scale", {"replica": 1}))[0] == 400
        assert (await post("/deployments/nope/scale", {"replicas": 1}))[0] == 404
        assert (await post("/instances/chat-0/drain", {"deadline_s": 5})) == (200, {"instances": ["chat-0"]})
        assert (await post("/nodes/a/stop", {"gpu": "slot-1"})) == (200, {"instances": ["chat-1"]})
        assert (await post("/nodes/a/cordon", {}))[0] == 200
        assert (await post("/nodes/a/cordon", {"gpu": 77}))[0] == 404
        status, answer = await post("/nodes/a/forget", {})
        assert (status, "a is connected" in answer["error"]) == (400, True)
        world.agents["a"].disconnect()
        status, answer = await post("/nodes/a/forget", {})
        assert (status, "a is forgotten" in answer["message"]) == (200, True)
        told = [e.event for e in world.controller.events.recent() if e.event.kind == "operator.forget"]
        assert [(e.subject, e.data["actor"]) for e in told] == [("a", "anybody at 127.0.0.1")]
        status, answer = await post("/instances/chat-9/stop", {})
        assert (status, "no instance named chat-9" in answer["error"]) == (404, True)


@pytest.mark.asyncio
async def test_roles(world: World, tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text("agent: a-token\noperator: o-token\nviewer: v-token\n")
    file.chmod(0o600)
    async with serving(world, TokenFile(file)) as served:

        async def ask(method: str, path: str, token: str) -> int:
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            async with served.session.request(method, path, headers=headers, json={}) as answer:
                return answer.status

        table = {
            ("GET", "/healthz", ""): 200,
            ("GET", "/api/v1/status", ""): 401,
            ("GET", "/metrics", ""): 401,
            ("GET", "/api/v1/status", "wrong"): 401,
            ("GET", "/api/v1/status", "v-token"): 200,
            ("POST", "/api/v1/nodes/a/cordon", "v-token"): 403,
            ("POST", "/api/v1/nodes/a/cordon", "a-token"): 403,
            ("POST", "/api/v1/nodes/a/cordon", "o-token"): 200,
            ("POST", "/api/v1/nodes/a/forget", "v-token"): 403,
            ("POST", "/api/v1/nodes/a/forget", "a-token"): 403,
            ("GET", m.AGENT_PATH, "o-token"): 403,
            ("GET", m.ROUTER_PATH, "v-token"): 403,
        }
        for (method, path, token), status in table.items():
            assert await ask(method, path, token) == status, (method, path, token)
        headers = {"Authorization": "Bearer v-token"}
        async with served.session.get("/metrics", headers=headers) as answer:
            assert "supervisord_cp_auth_failures_total 9.0" in await answer.text()


def test_a_listener_off_loopback_needs_tokens() -> None:
    config = Config(central=CentralConfig(control_listen=Listen(host="192.168.1.5", port=9001)))
    with pytest.raises(UsageError, match="tokens_file"):
        tokens_of(config)
    assert tokens_of(Config()) is None


@pytest.mark.asyncio
async def test_other_sites_have_no_business_here(world: World) -> None:
    async with serving(world) as served:
        table = {
            ("Origin", "https://evil.example"): 403,
            ("Origin", served.url): 200,
            ("Host", "evil.example"): 403,
            ("Host", f"localhost:{served.port}"): 200,
            ("Host", f"[::1]:{served.port}"): 200,
        }
        for (header, value), status in table.items():
            async with served.session.get("/api/v1/status", headers={header: value}) as answer:
                assert answer.status == status, (header, value)


@pytest.mark.asyncio
async def test_a_body_that_is_too_large_is_refused(world: World) -> None:
    async with (
        serving(world) as served,
        served.session.post("/api/v1/deployments/chat/scale", data=b"x" * 100_000) as answer,
    ):
        assert answer.status == 413


@pytest.mark.asyncio
async def test_the_configuration_is_served_as_a_reload_would_compare_it(world: World, tmp_path: Path) -> None:
    world.controller.config = Config(
        central=CentralConfig(state_dir=tmp_path),
        deployments=(deployment(env={"HF_TOKEN": "hf_canary", "HF_HOME": "/models"}),),
    )
    async with serving(world) as served, served.session.get("/api/v1/config") as answer:
        text = await answer.text()
    assert "hf_canary" not in text
    assert diff_configs(masked(world.controller.config), from_plain(json.loads(text))) == ()


@pytest.mark.asyncio
async def test_events_stream(world: World) -> None:
    async with serving(world) as served, served.session.get("/api/v1/events/stream") as answer:
        await answer.content.readline()
        await answer.content.readline()
        world.controller.note("node.cordoned", "a")
        await answer.content.readline()
        data = json.loads((await answer.content.readline()).removeprefix(b"data: "))
        assert (data["kind"], data["subject"]) == ("node.cordoned", "a")


@pytest.mark.asyncio
async def test_http_sd_lists_engines_with_the_fleets_labels(world: World) -> None:
    async with serving(world) as served, served.session.get("/api/v1/prometheus/targets") as answer:
        listed = await answer.json()
    engines = [t for t in listed if t["labels"]["job"] == "vllm"]
    assert [t["labels"]["instance_id"] for t in engines] == ["chat-0", "chat-1"]
    assert all(t["labels"]["deployment"] == "chat" and t["labels"]["node"] == "a" for t in engines)


@pytest.mark.asyncio
async def test_every_route_is_documented(world: World) -> None:
    text = DOCS.read_text()
    async with serving(world) as served:
        missing = [path for _, path, _, _ in served.api.routes() if f"`{path}`" not in text]
    assert missing == []


class Dialling:
    """An agent's side of the websocket, with the real link."""

    def __init__(self, url: str, name: str, session: str) -> None:
        self.messages: list[m.Message] = []
        self.ups = 0
        self.downs: list[str] = []
        inventory = NodeInventory(node=name, session=session, device="cpu", slots=("slot-0",))
        self.link = CentralLink(
            url=url,
            path=m.AGENT_PATH,
            token=lambda: "",
            hello=lambda: m.Hello(name=name, session=session, inventory=inventory),
            on_message=self.messages.append,
            on_up=self._up,
            on_down=self.downs.append,
            on_call=self._call,
        )
        self.task = asyncio.create_task(self.link.run())

    def _up(self, welcome: m.Welcome) -> None:
        self.ups += 1

    async def _call(self, method: str, params: dict) -> AsyncIterator[str]:
        if method == "capsule":
            if params["instance"] != "x-1":
                raise LookupError("none that its node remembers")
            yield '{"instance": "x-1", '
            yield '"cause": "killed"}'
            return
        if method != "logs":
            raise LookupError(f"no method {method}")
        yield "line 1\n"
        yield f"line 2 of {params['lines']}\n"
        if params["follow"]:
            await asyncio.sleep(3600)

    async def close(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@pytest.mark.asyncio
async def test_an_agent_says_hello_reports_and_is_told_what_to_run() -> None:
    world = World(deployment(replicas=1), settle_s=0.0)
    async with serving(world) as served:
        agent = Dialling(served.url, "b", "s1")
        await until(lambda: agent.link.connected, "connected")
        agent.link.send(m.Report(report=NodeReport(node="b", sequence=1, full=True)))
        await until(lambda: world.controller.nodes["b"].acknowledged, "report")
        world.controller.step()
        await until(lambda: agent.messages, "desired")
        desired = agent.messages[-1].desired
        assert [i.id for i in desired.instances] == ["chat-0"]
        agent.link.send(m.Report(report=NodeReport(node="b", sequence=9, full=False)))
        await until(lambda: isinstance(agent.messages[-1], m.Resync), "resync")
        await agent.close()
        await until(lambda: not world.controller.nodes["b"].connected, "gone")


@pytest.mark.asyncio
async def test_a_second_agent_of_the_same_name_is_refused(world: World) -> None:
    async with serving(world) as served:
        first = Dialling(served.url, "b", "s1")
        await until(lambda: first.link.connected, "connected")
        first.link.send(m.Report(report=NodeReport(node="b", sequence=1, full=True)))
        await until(lambda: world.controller.nodes["b"].acknowledged, "report")
        second = Dialling(served.url, "b", "s2")
        await until(lambda: second.link._said, "refusal")
        assert "another [agent] name" in second.link._said
        assert (first.link.connected, second.ups) == (True, 0)
        world.clock.advance(10.0)
        await until(lambda: second.link.connected, "the silent one is replaced")
        await second.close()
        await first.close()


@pytest.mark.asyncio
async def test_logs_come_from_the_agent(world: World) -> None:
    async with serving(world) as served:
        agent = Dialling(served.url, "b", "s1")
        await until(lambda: agent.link.connected, "connected")
        status = InstanceStatus(
            id="chat-5", deployment="chat", engine="fake", revision="r", state=InstanceState.READY
        )
        agent.link.send(m.Report(report=NodeReport(node="b", sequence=1, full=True, instances=(status,))))
        await until(lambda: "chat-5" in world.controller.nodes["b"].instances, "report")
        async with served.session.get("/api/v1/instances/chat-5/logs?lines=7") as answer:
            assert await answer.text() == "line 1\nline 2 of 7\n"
        async with served.session.get("/api/v1/instances/chat-5/logs?follow=1") as answer:
            assert await answer.content.readline() == b"line 1\n"
        await until(lambda: not agent.link._calls, "a reader that leaves ends the call")
        async with served.session.get("/api/v1/instances/chat-0/logs") as answer:
            assert (answer.status, "not connected" in await answer.text()) == (503, True)
        async with served.session.get("/api/v1/instances/none/logs") as answer:
            assert answer.status == 404
        await agent.close()


@pytest.mark.asyncio
async def test_explain_shows_the_capsule_that_the_agent_keeps(world: World) -> None:
    async with serving(world) as served:
        agent = Dialling(served.url, "b", "s1")
        await until(lambda: agent.link.connected, "connected")
        statuses = tuple(
            InstanceStatus(id=name, deployment="chat", engine="fake", revision="r") for name in ("x-1", "x-2")
        )
        agent.link.send(m.Report(report=NodeReport(node="b", sequence=1, full=True, instances=statuses)))
        await until(lambda: "x-2" in world.controller.nodes["b"].instances, "report")
        async with served.session.get("/api/v1/explain/instance/x-1") as answer:
            explained = await answer.json()
        assert explained["capsule"] == {"instance": "x-1", "cause": "killed"}
        async with served.session.get("/api/v1/explain/instance/x-2") as answer:
            explained = await answer.json()
        assert explained["instance"]["id"] == "x-2"
        assert (explained["capsule"], explained["capsule_missing"]) == (
            None,
            "none that its node remembers",
        )
        await agent.close()
        await until(lambda: not agent.link.connected and "b" not in served.links.agents, "gone")
        async with served.session.get("/api/v1/explain/instance/x-1") as answer:
            assert (await answer.json())["capsule_missing"] == "its agent is not connected"


@pytest.mark.asyncio
async def test_a_link_redials_when_central_comes_back(world: World) -> None:
    async with serving(world) as served:
        agent = Dialling(served.url, "b", "s1")
        await until(lambda: agent.ups == 1, "first")
        await served.links.agents["b"].socket.close()
        await until(lambda: agent.ups == 2, "second")
        assert len(agent.downs) == 1
        await agent.close()


def test_pages_of_several_routers_are_one_valid_page() -> None:
    page = '# HELP x_total What.\n# TYPE x_total counter\nx_total{code="200"} 1\nx_total 2\n'
    merged = merge([("r1", page), ("r2", page)])
    assert merged.count("# TYPE x_total counter") == 1
    assert 'x_total{router="r2",code="200"} 1' in merged
    assert 'x_total{router="r1"} 2' in merged
    from prometheus_client.parser import text_string_to_metric_families

    assert len(next(iter(text_string_to_metric_families(merged))).samples) == 4


@pytest.mark.asyncio
async def test_who_is_killed_is_gone_at_once(world: World) -> None:
    inventory = NodeInventory(node="other", session="s", device="cpu", slots=("slot-0",))
    async with serving(world) as served:
        for path, mine, hello in (
            (m.AGENT_PATH, served.links.agents, m.Hello(name="other", session="s", inventory=inventory)),
            (m.ROUTER_PATH, served.links.routers, m.Hello(name="r", session="s")),
        ):
            link = await served.session.ws_connect(path)
            await link.send_str(encode(hello))
            await until(lambda mine=mine, hello=hello: hello.name in mine, "connected")
            link.get_extra_info("socket").shutdown(socket.SHUT_RDWR)  # no goodbye, as with kill -9
            await until(lambda mine=mine, hello=hello: hello.name not in mine, "gone")
            await link.close()
        assert not world.controller.nodes["other"].connected
        assert not world.controller.routers.views["r"].connected


@pytest.mark.asyncio
async def test_explain_of_a_request_asks_the_routers(world: World) -> None:
    async def on_call(method: str, params: dict[str, object]) -> AsyncIterator[str]:
        assert method == "requests.explain"
        yield json.dumps([{"pick": "chat-1"}] if params["request"] == "mine" else [])

    async with serving(world) as served:
        link = CentralLink(
            url=served.url,
            path=m.ROUTER_PATH,
            token=lambda: "",
            hello=lambda: m.Hello(name="r", session="s"),
            on_message=lambda message: None,
            on_call=on_call,
        )
        running = asyncio.create_task(link.run())
        await until(lambda: "r" in served.links.routers, "the router is connected")
        async with served.session.get("/api/v1/explain/request/mine") as answer:
            assert await answer.json() == {"request": "mine", "decisions": {"r": [{"pick": "chat-1"}]}}
        async with served.session.get("/api/v1/explain/request/chatcmpl-mine") as answer:
            assert (await answer.json())["request"] == "mine", "the id in an answer is known, too"
        async with served.session.get("/api/v1/explain/request/other") as answer:
            assert answer.status == 404
            assert "no router has decided lately" in (await answer.json())["error"]
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.mark.asyncio
async def test_a_restart_asks_one_process_of_each_address_the_one_that_came_last(world: World) -> None:
    asked: list[str] = []

    def router(url: str, name: str, why: str) -> asyncio.Task[None]:
        async def on_call(method: str, params: dict[str, object]) -> AsyncIterator[str]:
            assert method == "restart"
            asked.append(name)
            yield json.dumps(why)

        link = CentralLink(
            url=url,
            path=m.ROUTER_PATH,
            token=lambda: "",
            hello=lambda: m.Hello(name=name, session=name),
            on_message=lambda message: None,
            on_call=on_call,
        )
        return asyncio.create_task(link.run())

    async with serving(world) as served:
        running = []
        for name, why in (("a:9000/1", ""), ("a:9000/2", ""), ("b:9000/1", "no room")):
            running.append(router(served.url, name, why))
            await until(lambda name=name: name in served.links.routers, "the router is connected")
        async with served.session.post("/api/v1/routers/restart") as answer:
            assert await answer.json() == {"routers": {"a:9000": "", "b:9000": "no room"}}
        assert sorted(asked) == ["a:9000/2", "b:9000/1"]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def test_a_router_that_says_farewell_holds_up_nothing(world: World) -> None:
    routers = world.controller.routers
    routers.connected("r", "1", lambda message: True)
    assert routers.reported(RouterReport(router="r", version=1, pid=7, api_url="http://h:1"))
    assert [report.router for report in routers.live_reports(0.0)] == ["r"]
    assert routers.reported(RouterReport(router="r", version=1, ended=True))
    assert list(routers.live_reports(0.0)) == []
    assert routers.serving("h:1") is None
    routers.gone("r")  # its connection ends after its farewell
    assert "r" not in routers.views
