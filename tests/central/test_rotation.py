"""Tokens and keys are replaced without a restart, and what is taken away ends."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest

from supervisord_cp.adapters.central_link import CentralLink
from supervisord_cp.adapters.tokens import TokenFile, read_token
from supervisord_cp.agent.listener import Listener
from supervisord_cp.central import admitted, links
from supervisord_cp.clock import SystemClock
from supervisord_cp.config.schema import Listen, StaticInstanceConfig
from supervisord_cp.engines.registry import all_engines
from supervisord_cp.errors import UsageError
from supervisord_cp.prober import prober as probing
from supervisord_cp.prober.prober import Prober
from supervisord_cp.router.auth import ApiKeys
from supervisord_cp.wire import codec
from supervisord_cp.wire import messages as m
from tests.central.fleet import World
from tests.central.test_http import serving
from tests.ports import free_ports
from tests.waiting import until


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "TOKENS_EVERY_S", 0.01)
    monkeypatch.setattr(admitted, "CHECK_EVERY_S", 0.01)
    monkeypatch.setattr(probing, "PERIOD_S", 0.01)


def written(path: Path, text: str, mode: int = 0o600) -> Path:
    """Replaced in one step, as an editor does."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.chmod(mode)
    return new.replace(path)


class Dialler:
    """What an agent or a router does at central."""

    def __init__(self, url: str, path: str, hello: m.Hello, token_file: Path) -> None:
        self.ups = 0
        self.downs: list[str] = []
        self.link = CentralLink(
            url=url,
            path=path,
            token=lambda: read_token(token_file, "agent"),
            hello=lambda: hello,
            on_message=lambda message: None,
            on_up=self._up,
            on_down=self.downs.append,
        )

    def _up(self, welcome: m.Welcome) -> None:
        self.ups += 1


@asynccontextmanager
async def dialling(url: str, kind: str, world: World, token_file: Path) -> AsyncIterator[Dialler]:
    inventory = world.agent("a").inventory if kind == "agent" else None
    path = m.AGENT_PATH if kind == "agent" else m.ROUTER_PATH
    made = Dialler(url, path, m.Hello(name="a", session="s", inventory=inventory), token_file)
    task = asyncio.create_task(made.link.run())
    try:
        yield made
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.mark.asyncio
@pytest.mark.parametrize("path", ["/api/v1/events/stream", "/api/v1/page/stream"])
@pytest.mark.parametrize("way", ["token", "login"])
async def test_an_open_stream_ends_with_its_token_and_others_go_on(
    way: str, path: str, world: World, tmp_path: Path
) -> None:
    tokens = written(tmp_path / "tokens", "viewer: old\nviewer: kept\n")
    async with serving(world, TokenFile(tokens)) as served:
        headers = {"Authorization": "Bearer old"}
        if way == "login":
            headers = {}
            async with served.session.post("/login", data={"token": "old"}) as answer:
                cookies = {name: one.value for name, one in answer.cookies.items()}
        kept = {"Authorization": "Bearer kept"}
        async with (
            aiohttp.ClientSession(served.url, cookies=cookies if way == "login" else {}) as viewer,
            viewer.get(path, headers=headers) as stream,
            served.session.get("/api/v1/events/stream", headers=kept) as other,
        ):
            await stream.content.readline()
            await other.content.readline()
            written(tokens, "viewer: kept\n")
            with pytest.raises((aiohttp.ClientPayloadError, ConnectionError)):
                while await stream.content.readline():
                    pass
            async with viewer.get("/api/v1/status", headers=headers) as answer:
                assert answer.status == 401
            await until(lambda: len(world.controller.events._subscribers) == 1)
            world.controller.note("node.cordoned", "a")
            while (line := await other.content.readline()) and b"node.cordoned" not in line:
                pass
            assert b"node.cordoned" in line


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", ["agent", "router"])
async def test_a_connection_ends_with_its_token_and_the_new_one_is_used(
    kind: str, world: World, tmp_path: Path
) -> None:
    tokens = written(tmp_path / "tokens", "agent: old\n")
    mine = written(tmp_path / "mine", "old\n")
    async with (
        serving(world, TokenFile(tokens)) as served,
        dialling(served.url, kind, world, mine) as dialler,
    ):
        await until(lambda: dialler.ups == 1, "it connects")
        written(tokens, "agent: old\nagent: new\n")
        written(mine, "new\n")
        async with served.session.get("/api/v1/nodes", headers={"Authorization": "Bearer new"}) as answer:
            assert answer.status == 200
        assert dialler.downs == [], "while both are known nothing ends"
        written(tokens, "agent: new\n")
        await until(lambda: dialler.ups == 2, "the old one's connection ends, the new one's begins")
        assert len(dialler.downs) == 1


@pytest.mark.asyncio
async def test_a_token_that_changes_its_role_connects_no_more(world: World, tmp_path: Path) -> None:
    tokens = written(tmp_path / "tokens", "agent: one\n")
    mine = written(tmp_path / "mine", "one\n")
    async with (
        serving(world, TokenFile(tokens)) as served,
        dialling(served.url, "agent", world, mine) as dialler,
    ):
        await until(lambda: dialler.ups == 1, "it connects")
        written(tokens, "viewer: one\n")
        await until(lambda: dialler.downs, "it ends")
        await until(lambda: not served.links.agents, "central has forgotten it")
        assert dialler.ups == 1


@pytest.mark.asyncio
async def test_a_tokens_file_that_is_gone_or_bad_ends_no_connection(world: World, tmp_path: Path) -> None:
    tokens = written(tmp_path / "tokens", "agent: one\n")
    mine = written(tmp_path / "mine", "one\n")
    async with (
        serving(world, TokenFile(tokens)) as served,
        dialling(served.url, "agent", world, mine) as dialler,
    ):
        await until(lambda: dialler.ups == 1, "it connects")
        looked = 0
        real = served.links._role_of

        def counted(header: str) -> str | None:
            nonlocal looked
            looked += 1
            return real(header)

        served.links._role_of = counted
        for spoil in (lambda: written(tokens, "nonsense\n"), tokens.unlink):
            spoil()
            before = looked
            await until(lambda before=before: looked > before + 1, "tokens were looked at")
        assert dialler.downs == []


@pytest.mark.asyncio
async def test_a_message_larger_than_any_of_ours_ends_its_connection_and_nothing_else(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "MAX_MESSAGE_BYTES", 4096)
    hello = codec.encode(m.Hello(name="r", session="s"))
    async with serving(world) as served:
        async with served.session.ws_connect(m.ROUTER_PATH) as large:
            await large.send_str(hello)
            assert isinstance(codec.decode((await large.receive()).data), m.Welcome)
            await large.send_str("x" * 5000)
            while (frame := await large.receive()).type is aiohttp.WSMsgType.TEXT:
                pass
            assert frame.type is aiohttp.WSMsgType.CLOSE
            assert frame.data == aiohttp.WSCloseCode.MESSAGE_TOO_BIG
        await until(lambda: not served.links.routers, "it is forgotten")
        async with served.session.ws_connect(m.ROUTER_PATH) as first:
            await first.send_str("x" * 5000)
            assert (await first.receive()).type is aiohttp.WSMsgType.CLOSE, "not even as the first one"
        async with served.session.get("/healthz") as answer:
            assert answer.status == 200


@pytest.mark.asyncio
async def test_the_agents_own_listener_takes_the_new_token_at_once(tmp_path: Path) -> None:
    tokens = written(tmp_path / "tokens", "viewer: old\n")
    port = free_ports(1)
    listener = Listener(
        Listen(host="127.0.0.1", port=port), tokens=TokenFile(tokens), metrics=lambda: b"page"
    )
    await listener.start()
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:

            async def status(token: str) -> int:
                async with session.get("/metrics", headers={"Authorization": f"Bearer {token}"}) as answer:
                    return answer.status

            assert [await status("old"), await status("new")] == [200, 401]
            written(tokens, "viewer: new\n")
            assert [await status("old"), await status("new")] == [401, 200]
    finally:
        await listener.close()


@pytest.mark.asyncio
async def test_the_key_of_a_static_instance_is_read_again(tmp_path: Path) -> None:
    key = written(tmp_path / "key", "one\n")
    told: list[dict[str, str]] = []
    prober = Prober(
        all_engines()["vllm"],
        SystemClock(),
        on_change=lambda part: told.append(dict(prober.keys())),
        on_state=lambda config, probe: None,
    )
    prober.update(
        (StaticInstanceConfig(id="s", deployment="chat", url="http://127.0.0.1:1", api_key_file=key),)
    )
    try:
        assert told[-1] == {"s.static": "one"}
        written(key, "two\n")
        await until(lambda: told[-1] == {"s.static": "two"}, "routers are told")
        key.unlink()
        await until(lambda: prober._said["s"], "it is said")
        assert prober.keys() == {"s.static": "two"}, "it stays as it was"
    finally:
        await prober.close()


READERS: dict[str, Callable[[Path], object]] = {
    "[central] tokens_file, [agent] tokens_file": TokenFile,
    "[router] token_file, [agent] token_file, api_key_file": lambda path: read_token(path, "viewer"),
    "[router] api_keys_file": ApiKeys,
}


@pytest.mark.parametrize("reader", READERS.values(), ids=list(READERS))
def test_every_file_with_secrets_is_checked_for_who_else_may_use_it(
    reader: Callable[[Path], object], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "secrets"
    with pytest.raises(UsageError, match="secrets"):
        reader(path)
    with pytest.raises(UsageError, match="can be written by every user"):
        reader(written(path, "viewer: x\n", 0o602))
    reader(written(path, "viewer: x\n", 0o640))
    assert not caplog.records
    reader(written(path, "viewer: x\n", 0o644))
    assert "can be read by every user" in caplog.text
