"""The whole process but for its process: start, serve, drain, end."""

import asyncio
import contextlib
import os
import signal
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from supervisord_cp.config.schema import CentralConfig, Config, Listen, RouterConfig
from supervisord_cp.errors import UsageError
from supervisord_cp.router import build
from supervisord_cp.router.app import run_router
from supervisord_cp.wire import messages as m
from tests.router.central_kit import Central
from tests.router.kit import Client, Engine, instance, says, streams, waits
from tests.router.test_follower import snapshot
from tests.waiting import PATIENCE_S, until

pytestmark = pytest.mark.asyncio

CHAT = {"model": "chat"}
HERE = Listen(host="127.0.0.1", port=0)


class Stage:
    """Routers with what is around them; whatever a test leaves is ended."""

    def __init__(self, tmp_path: Path) -> None:
        self.state_dir = tmp_path
        self.central = Central()
        self.url = ""
        self._tasks: list[asyncio.Task[int]] = []
        self._engines: list[Engine] = []
        self._clients: list[Client] = []

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def running(self) -> bool:
        return not self._tasks[-1].done()

    async def start(self, central: str = "http://127.0.0.1:9", **router: object) -> None:
        """Start a router and wait until it serves; raises what it raises."""
        config = Config(
            central=CentralConfig(state_dir=self.state_dir),
            router=RouterConfig(**({"api_listen": HERE, "central": central} | router)),  # type: ignore[arg-type]
        )
        ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(run_router(config, router_id="r", on_ready=ready.set_result))
        self._tasks.append(task)
        done, _ = await asyncio.wait([ready, task], timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
        if task in done:
            task.result()
        self.url = ready.result()

    async def serve(self, *engines: Engine, max_concurrency: int = 0, **router: object) -> None:
        """Start a router that has been told of these engines."""
        await self.central.start()
        for engine in engines:
            await engine.start()
            self._engines.append(engine)
        await self.start(self.central.url, **router)
        instances = (instance(e, n, max_concurrency=max_concurrency) for n, e in enumerate(engines))
        first = snapshot(1, *instances)
        await self.central.send(m.Snapshot(snapshot=first))
        await self.central.applied(first)

    async def client(self, tls: ssl.SSLContext | None = None) -> Client:
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port, ssl=tls))
        self._clients.append(client)
        return client

    async def ended(self) -> int:
        async with asyncio.timeout(PATIENCE_S):
            return await self._tasks[-1]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for client in self._clients:
            await client.close()
        await self.central.stop()
        for engine in self._engines:
            await engine.stop()


@pytest_asyncio.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    made = Stage(tmp_path)
    yield made
    await made.close()


def signalled(number: signal.Signals = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


async def test_it_serves_and_ends(stage: Stage) -> None:
    await stage.serve(Engine())
    client, idle = await stage.client(), await stage.client()
    client.post(CHAT)
    assert (await client.answer()).status == 200
    signalled()
    assert await stage.ended() == 0
    assert await idle.rest() == b""
    assert await client.rest() == b""
    assert refuses(stage.port)


async def test_without_central_it_answers_all_the_same(stage: Stage) -> None:
    await stage.start()
    client = await stage.client()
    client.post(CHAT)
    answer = await client.answer()
    assert (answer.status, answer.reason) == (503, "no_capacity")
    signalled(signal.SIGINT)
    assert await stage.ended() == 0


async def test_open_requests_finish_before_the_end(stage: Stage) -> None:
    gates = [asyncio.Event(), asyncio.Event()]
    engine = Engine(streams("a", "b", gate=gates[0]), waits(gates[1], says({"late": True})))
    await stage.serve(engine)
    stream, late, upload = [await stage.client() for _ in range(3)]
    stream.post(CHAT)
    await stream.head()
    late.post(CHAT)
    await until(lambda: len(engine.asked) == 2)
    upload.send(b"POST /v1/x HTTP/1.1\r\nhost: t\r\ncontent-length: 2\r\n\r\n{")
    await until(lambda: [lease.requests for lease in stage.central.reports[-1].leases] == [2])
    signalled()
    await until(lambda: refuses(stage.port), "nobody new is let in")
    gates[0].set()
    while await stream.chunk():
        pass
    assert await stream.rest() == b""
    engine.script = [says({"uploaded": True})]
    upload.send(b"}")
    answer = await upload.answer()
    assert (answer.json(), answer.headers["connection"]) == ({"uploaded": True}, "close")
    assert stage.running
    gates[1].set()
    assert (await late.answer()).json() == {"late": True}
    assert await stage.ended() == 0


async def test_what_waits_is_told_that_the_router_ends(stage: Stage) -> None:
    gate = asyncio.Event()
    engine = Engine(streams("a", "b", gate=gate))
    await stage.serve(engine, max_concurrency=1)
    stream, waiting, upload = [await stage.client() for _ in range(3)]
    stream.post(CHAT)
    await stream.head()
    waiting.post(CHAT)
    await until(lambda: [demand.queued for demand in stage.central.reports[-1].demand] == [1])
    upload.send(b"POST /v1/x HTTP/1.1\r\nhost: t\r\ncontent-length: 2\r\n\r\n{")
    await until(lambda: stage.central.reports[-1].leases)
    signalled()
    for client in (waiting, upload):
        if client is upload:
            client.send(b"}")
        answer = await client.answer()
        assert (answer.status, answer.reason) == (503, "draining")
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.headers["connection"] == "close"
        assert await client.rest() == b""
    gate.set()
    while await stream.chunk():
        pass
    assert await stage.ended() == 0


async def test_sighup_reads_the_keys_again_and_ends_nothing(stage: Stage) -> None:
    keys = stage.state_dir / "keys"
    keys.write_text("alice: one\n")
    await stage.serve(Engine(), api_keys_file=keys)
    client = await stage.client()
    for moment, key in enumerate(("one", "two")):
        keys.write_text(f"alice: {key}\n")
        os.utime(keys, (moment, moment))
        signalled(signal.SIGHUP)

        async def let_in(key: str = key) -> bool:
            client.post(CHAT, headers=f"x-api-key: {key}\r\n")
            return (await client.answer()).status == 200

        async with asyncio.timeout(PATIENCE_S):
            while not await let_in():
                pass
    assert stage.running


async def test_the_watchdog_is_fed(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(stage.state_dir / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        monkeypatch.setenv("WATCHDOG_USEC", "200000")
        await stage.start()
        told = b""

        def heard() -> bytes:
            nonlocal told
            with contextlib.suppress(BlockingIOError):
                told += manager.recv(1000) + b"\n"
            return told

        await until(lambda: heard().count(b"WATCHDOG=1") >= 2)
        assert told.startswith(b"READY=1")
        signalled()
        await stage.ended()
        await until(lambda: b"STOPPING=1" in heard())


async def test_a_second_signal_ends_at_once(stage: Stage) -> None:
    engine = Engine(streams("a", "b", gate=asyncio.Event()))
    await stage.serve(engine)
    client = await stage.client()
    client.post(CHAT)
    await client.head()
    await client.chunk()
    signalled()
    await until(lambda: refuses(stage.port))
    signalled()
    assert await stage.ended() == 0
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await client.chunk()
    await until(lambda: not engine.open)


async def test_finishing_has_an_end(stage: Stage) -> None:
    await stage.serve(Engine(streams("a", "b", gate=asyncio.Event())), drain_timeout_s=0.1)
    client = await stage.client()
    client.post(CHAT)
    await client.head()
    signalled()
    assert await stage.ended() == 0


async def test_it_remembers_the_fleet(stage: Stage) -> None:
    await stage.serve(Engine())
    await until((stage.state_dir / "router" / "fleet.json").exists)
    signalled()
    await stage.ended()
    await stage.start()
    client = await stage.client()
    client.post(CHAT)
    assert (await client.answer()).status == 200
    signalled()
    await stage.ended()


async def test_an_instance_that_is_gone_is_told(stage: Stage) -> None:
    engine = Engine()
    await stage.serve(engine, Engine())
    await engine.stop()
    client = await stage.client()
    central = stage.central
    async with asyncio.timeout(PATIENCE_S):  # equal instances are chosen from by chance
        while not any(report.ejected == ("chat-0.a",) for report in central.reports):
            client.post(CHAT)
            assert (await client.answer()).status == 200
    events = [e for message in central.heard if isinstance(message, m.Events) for e in message.events]
    assert [(e.kind, e.subject) for e in events] == [("router.ejected", "chat-0")]
    (out,) = next(report for report in central.reports if report.ejected).rotation
    assert (out.incarnation, out.cause, out.on_trial) == ("chat-0.a", "connection", False)
    assert out.why


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"api_keys_file": Path("/nonexistent/keys")}, "router.api_keys_file"),
        ({"tls_cert": Path("/nonexistent/cert")}, "belong together"),
        ({"tls_cert": Path("/nonexistent/c"), "tls_key": Path("/nonexistent/k")}, "router.tls_cert"),
    ],
)
async def test_what_cannot_be_is_said(stage: Stage, settings: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        await stage.start(**settings)  # type: ignore[arg-type]


async def test_an_address_that_is_taken_is_said(stage: Stage) -> None:
    await stage.start()
    with pytest.raises(UsageError, match=f"127.0.0.1:{stage.port}"):
        await stage.start(api_listen=Listen(host="127.0.0.1", port=stage.port))


async def test_tls(stage: Stage) -> None:
    cert, key = stage.state_dir / "cert.pem", stage.state_dir / "key.pem"
    await asyncio.to_thread(make_certificate, cert, key)
    await stage.serve(Engine(streams("a", "b")), tls_cert=cert, tls_key=key)
    assert stage.url.startswith("https://")
    client = await stage.client(ssl.create_default_context(cafile=str(cert)))
    for _ in range(2):
        client.post(CHAT | {"p": "x" * 200_000})
        answer = await client.answer()
        assert answer.status == 200
        assert answer.body.endswith(b"data: [DONE]\n\n")
    client.send(b"GET /v1/x HTTP/1.1\r\n\r\n")  # without Host: refused, and the connection ended
    assert (await client.answer()).status == 400


async def test_a_changed_certificate_is_used_by_new_connections(stage: Stage) -> None:
    cert, key = stage.state_dir / "cert.pem", stage.state_dir / "key.pem"
    await asyncio.to_thread(make_certificate, cert, key)
    await stage.serve(Engine(), tls_cert=cert, tls_key=key)
    old, old_trust = cert.read_bytes(), ssl.create_default_context(cafile=str(cert))
    kept = await stage.client(old_trust)
    await asyncio.to_thread(make_certificate, stage.state_dir / "c2", stage.state_dir / "k2")
    (stage.state_dir / "c2").replace(cert)  # the key follows later: the old pair is used until then
    signalled(signal.SIGHUP)
    await (await stage.client(old_trust)).close()
    (stage.state_dir / "k2").replace(key)
    assert cert.read_bytes() != old
    trust = ssl.create_default_context(cafile=str(cert))
    async with asyncio.timeout(PATIENCE_S):
        while True:
            signalled(signal.SIGHUP)
            with contextlib.suppress(ssl.SSLError):
                await stage.client(trust)
                break
    kept.post(CHAT)
    assert (await kept.answer()).status == 200


def make_certificate(cert: Path, key: Path) -> None:
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]
    command += ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)


def refuses(port: int) -> bool:
    """Whether nobody listens there."""
    with socket.socket() as sock:
        sock.settimeout(1)
        return sock.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.parametrize(("module", "described"), [("_ctypes", "compiled"), ("ctypes", "interpreted")])
async def test_what_is_compiled_is_an_extension_module(module: str, described: str) -> None:
    assert build.described(module) == described
