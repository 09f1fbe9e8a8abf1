"""The page's feed and its login, over real sockets."""

import json
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest
from msgspec.structs import replace

from supervisord_cp.adapters.tokens import TokenFile
from supervisord_cp.central import views
from supervisord_cp.central.page import feed
from supervisord_cp.central.page.feed import WAITING
from supervisord_cp.central.page.patch import applied
from supervisord_cp.central.page.sessions import COOKIE, LASTS_S, MOST, Sessions
from supervisord_cp.central.page.state import fleet_figures, page_state
from supervisord_cp.clock import ManualClock
from supervisord_cp.model.instance import InstanceState
from supervisord_cp.model.reason import Reason, ReasonCode
from tests.central.fleet import World, deployment
from tests.central.test_http import serving


@pytest.fixture
def world() -> World:
    made = World(deployment(replicas=2))
    made.agent()
    made.run()
    return made


@pytest.fixture
def tokens(tmp_path: Path) -> TokenFile:
    path = tmp_path / "tokens"
    path.write_text("operator: operator-0123456789\nviewer: viewer-0123456789\nagent: agent-0123456789\n")
    path.chmod(0o600)
    return TokenFile(path)


async def event(response: aiohttp.ClientResponse) -> tuple[str, dict]:
    name = ""
    while line := (await response.content.readline()).decode().strip("\n"):
        if line.startswith("event: "):
            name = line[7:]
        if line.startswith("data: "):
            await response.content.readline()
            return name, json.loads(line[6:])
    raise AssertionError("the stream ended")


@pytest.mark.asyncio
async def test_the_state_first_then_what_changes(world: World) -> None:
    async with serving(world) as served, served.session.get("/api/v1/page/stream") as stream:
        name, told = await event(stream)
        assert name == "state"
        assert told["access"] == {"role": "operator", "login": False}
        state = told["state"]
        assert state["deployments"]["chat"]["ready"] == 2
        world.agents["a"].instances.pop("chat-1")
        world.agents["a"].report()
        served.feed.tick()
        name, told = await event(stream)
        assert (name, told["patch"]["instances"]["chat-1"]["state"]) == ("tick", "gated")
        assert applied(state, told["patch"]) == json.loads(json.dumps(page_state(world.controller)))


@pytest.mark.asyncio
async def test_a_newcomer_takes_no_change_from_those_who_watch(world: World) -> None:
    async with serving(world) as served, served.session.get("/api/v1/page/stream") as first:
        _, told = await event(first)
        world.agents["a"].instances.pop("chat-1")
        world.agents["a"].report()
        async with served.session.get("/api/v1/page/stream") as second:
            _, newer = await event(second)
            _, patch = await event(first)
            assert applied(told["state"], patch["patch"]) == newer["state"]


@pytest.mark.asyncio
async def test_who_does_not_read_is_let_go(world: World) -> None:
    async with serving(world) as served:
        follower = served.feed.follow({})
        await anext(follower)
        for _ in range(WAITING + 1):
            served.feed.tick()
        rest = [one async for one in follower]
        assert len(rest) == WAITING - 1


@pytest.mark.asyncio
async def test_the_page_refuses_what_is_not_its_own(world: World) -> None:
    async with serving(world) as served:
        for path in ("/", "/page.css", "/page.js"):
            async with served.session.get(path) as answer:
                assert answer.status == 200
                policy = answer.headers["Content-Security-Policy"]
                assert "default-src 'none'" in policy
                assert "unsafe-inline" not in policy
                text = (await answer.text()).replace("http://www.w3.org/2000/svg", "")
                assert "://" not in text, "something from elsewhere"


async def login(session: aiohttp.ClientSession, token: str) -> tuple[int, str]:
    async with session.post("/login", data={"token": token}) as answer:
        return answer.status, answer.headers.get("Set-Cookie", "")


@pytest.mark.asyncio
async def test_a_login_is_a_cookie_that_scripts_and_other_sites_cannot_use(
    world: World, tokens: TokenFile
) -> None:
    async with serving(world, tokens) as served:
        async with served.session.get("/api/v1/page/stream") as answer:
            assert answer.status == 401
        assert (await login(served.session, "wrong"))[0] == 401
        assert (await login(served.session, "agent-0123456789"))[0] == 401
        status, cookie = await login(served.session, "operator-0123456789")
        assert status == 200
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert "operator-0123456789" not in cookie
        session = {"Cookie": cookie.partition(";")[0]}
        async with served.session.get("/api/v1/status", headers=session) as answer:
            assert answer.status == 200
        url = "/api/v1/deployments/chat/scale"
        for origin, expected in ((None, 403), ("http://evil.example", 403), (served.url, 200)):
            headers = session if origin is None else session | {"Origin": origin}
            async with served.session.post(url, json={"replicas": 1}, headers=headers) as answer:
                assert answer.status == expected, origin
        async with served.session.post("/logout", headers=session | {"Origin": served.url}) as answer:
            assert answer.status == 200
        async with served.session.get("/api/v1/status", headers=session) as answer:
            assert answer.status == 401


@pytest.mark.asyncio
async def test_a_viewer_sees_and_changes_nothing(world: World, tokens: TokenFile) -> None:
    async with serving(world, tokens) as served:
        _, cookie = await login(served.session, "viewer-0123456789")
        session = {"Cookie": cookie.partition(";")[0], "Origin": served.url}
        async with served.session.get("/api/v1/page/stream", headers=session) as stream:
            assert (await event(stream))[1]["access"] == {"role": "viewer", "login": True}
        url = "/api/v1/deployments/chat/scale"
        async with served.session.post(url, json={"replicas": 1}, headers=session) as answer:
            assert answer.status == 403


@pytest.mark.asyncio
async def test_operations_leave_an_event_that_says_who_asked(world: World, tokens: TokenFile) -> None:
    async with serving(world, tokens) as served:
        headers = {
            "Authorization": "Bearer operator-0123456789",
            "X-Supervisord-Cp-Actor": "alice@bastion",
        }
        url = "/api/v1/deployments/chat/scale"
        async with served.session.post(url, json={"replicas": 1}, headers=headers) as answer:
            assert answer.status == 200
        async with served.session.post("/api/v1/nodes/nowhere/cordon", headers=headers) as answer:
            assert answer.status == 404
    told = [one.event for one in world.controller.events.recent() if one.event.kind.startswith("operator.")]
    assert [one.message for one in told] == [
        "scale chat (replicas=1) by operator at 127.0.0.1, for alice@bastion"
    ]


def test_sessions_end() -> None:
    clock = ManualClock()
    roles = {"Bearer good": "operator"}
    sessions = Sessions(clock.now, roles.get)
    cookie = sessions.open("good")
    assert cookie is not None
    assert sessions.role(cookie) == "operator"
    clock.advance(LASTS_S + 1)
    assert sessions.role(cookie) is None
    cookie = sessions.open("good") or ""
    roles.clear()  # the token was taken out of the file
    assert sessions.role(cookie) is None


def test_sessions_are_bounded() -> None:
    sessions = Sessions(ManualClock().now, {"Bearer good": "operator"}.get)
    cookies = [sessions.open("good") or "" for _ in range(MOST + 1)]
    assert sessions.role(cookies[0]) is None
    assert sessions.role(cookies[-1]) == "operator"


def test_figures_of_the_fleet_are_sums_and_the_worst_time() -> None:
    own = {"a": {"queued": 2.0, "ttft_s": 0.5}, "b": {"queued": 3.0, "ttft_s": 0.2, "requests_per_s": 1.0}}
    assert fleet_figures(own) == {"queued": 5.0, "ttft_s": 0.5, "requests_per_s": 1.0}


def test_the_cookie_has_a_name_of_its_own() -> None:
    assert COOKIE.startswith("supervisord_cp")


def test_a_look_builds_each_view_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a thousand instances each view costs milliseconds, every second."""
    looks: list[str] = []
    for name in ("instances", "deployments", "nodes", "status"):
        real = getattr(views, name)

        def counted(*given: object, name: str = name, real: Callable[..., object] = real) -> object:
            looks.append(name)
            return real(*given)

        monkeypatch.setattr(views, name, counted)
    page_state(world.controller)
    assert sorted(looks) == ["deployments", "instances", "nodes", "status"]


@pytest.mark.asyncio
async def test_nobody_looks_where_nobody_watches(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[object] = []
    monkeypatch.setattr(feed, "page_state", lambda controller: looks.append(controller) or {})
    made = feed.Feed(world.controller)
    made.tick()
    assert looks == []
    stream = made.follow({})
    await anext(stream)
    made.tick()
    assert len(looks) == 2
    await stream.aclose()
    made.tick()
    assert len(looks) == 2


def test_the_place_of_an_engine_that_waits_for_its_next_try_says_so(world: World) -> None:
    agent = world.agents["a"]
    reason = Reason(code=ReasonCode.BACKOFF, params={"seconds": 12.3, "restarts": 2})
    failed = replace(agent.instances["chat-1"], state=InstanceState.BACKOFF, reason=reason)
    agent.instances["chat-1"] = failed
    agent.report()
    devices = page_state(world.controller)["nodes"]["a"]["devices"]
    assert [(one["use"], one["retry_s"]) for one in devices.values() if one["instance"]] == [
        ("serving", None),
        ("backoff", 12),
    ]
