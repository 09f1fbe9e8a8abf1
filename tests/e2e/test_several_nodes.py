"""Two agents, central and its router as separate processes with tokens; kill -9 of each under load."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import psutil
import pytest
import pytest_asyncio

from tests.agent.daemon import end_engines
from tests.ports import free_ports
from tests.waiting import PATIENCE_S

pytestmark = [pytest.mark.process, pytest.mark.timeout(180)]

TOKENS = {"agent": "agent-token-1234567890", "operator": "operator-token-1234567890"}


class Fleet:
    """The processes of a small fleet."""

    def __init__(self, root: Path) -> None:
        self.root = root
        first = free_ports(4)
        self.api, self.control, *self.statics = range(first, first + 4)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._write()

    def _write(self) -> None:
        for name, lines in (
            ("tokens", [f"{r}: {t}" for r, t in TOKENS.items()]),
            ("agent-token", [TOKENS["agent"]]),
        ):
            (self.root / name).write_text("\n".join(lines) + "\n")
            (self.root / name).chmod(0o600)
        static = "".join(
            f'[[static_instances]]\nid = "other-{n}"\ndeployment = "chat"\nurl = "http://127.0.0.1:{port}"\n'
            for n, port in enumerate(self.statics)
        )
        (self.root / "central.toml").write_text(
            f"""
[central]
control_listen = "127.0.0.1:{self.control}"
state_dir = "central"
tokens_file = "tokens"
settle_s = 2.0
[router]
api_listen = "127.0.0.1:{self.api}"
central = "http://127.0.0.1:{self.control}"
token_file = "agent-token"
[deployments.chat]
engine = "fake"
model = "fake-model"
replicas = 8
{static}
"""
        )
        for name, host in (("a", "127.0.0.1"), ("b", "127.0.0.2")):
            own, first = free_ports(1), free_ports(12, host)
            (self.root / f"agent-{name}.toml").write_text(
                f"""
[agent]
name = "node-{name}"
central = "http://127.0.0.1:{self.control}"
token_file = "agent-token"
advertise = "{host}"
listen = "127.0.0.1:{own}"
state_dir = "agent-{name}"
log_dir = "logs-{name}"
device = "cpu"
slots = 4
ports = "{first}-{first + 11}"
max_parallel_starts = 4
"""
            )

    def start(self, name: str, *argv: str) -> None:
        with (self.root / f"{name}.log").open("ab") as out:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", *argv],
                stdout=out,
                stderr=out,
                stdin=subprocess.DEVNULL,
                cwd=self.root,
                start_new_session=True,
            )

    def daemon(self, name: str) -> None:
        kind = "central" if name == "central" else "agent"
        self.start(name, "supervisord_cp", kind, "-c", str(self.root / f"{name}.toml"))

    def kill(self, name: str) -> None:
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def get(self, path: str) -> object:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.control}/api/v1/{path}",
            headers={"Authorization": f"Bearer {TOKENS['operator']}"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def post(self, path: str, body: object) -> None:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.control}/api/v1/{path}",
            data=json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {TOKENS['operator']}"},
            method="POST",
        )
        urllib.request.urlopen(request, timeout=30).close()

    def instances(self) -> list[dict]:
        try:
            return self.get("instances")
        except OSError:
            return []

    def ready(self) -> dict[str, int | None]:
        return {i["id"]: i["pid"] for i in self.instances() if i["ready"]}

    def engines(self) -> dict[str, int | None]:
        return {name: pid for name, pid in self.ready().items() if pid is not None}

    async def until(self, true: Callable[[], object], what: str) -> None:
        for _ in range(int(PATIENCE_S * 10)):
            if await asyncio.to_thread(true):
                return
            await asyncio.sleep(0.1)
        logs = "\n".join(f"== {p.name}\n{p.read_text()[-3000:]}" for p in self.root.glob("*.log"))
        raise AssertionError(f"never: {what}\n{json.dumps(self.instances(), indent=1)[-3000:]}\n{logs}")

    async def close(self) -> None:
        for process in self.processes.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for name in ("a", "b"):
            await end_engines(self.root / f"agent-{name}")
        for process in psutil.process_iter(["pid", "cmdline"]):
            if str(self.root) in " ".join(process.info["cmdline"] or []):
                with contextlib.suppress(psutil.Error):
                    process.kill()


@pytest_asyncio.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    made = Fleet(tmp_path)
    yield made
    await made.close()


class Load:
    """Requests one after the other on several connections until told to stop; every answer is checked."""

    def __init__(self, url: str, workers: int = 8) -> None:
        self.url = url
        self.failures: list[str] = []
        self.served: Counter[str] = Counter()
        self._stop = asyncio.Event()
        self._tasks = [asyncio.create_task(self._work(n)) for n in range(workers)]

    async def _work(self, number: int) -> None:
        async with httpx.AsyncClient(timeout=30) as client:
            count = 0
            while not self._stop.is_set():
                count += 1
                stream = count % 3 == 0
                body = {
                    "model": "fake-model",
                    "prompt": f"{number} {count}",
                    "max_tokens": 6,
                    "stream": stream,
                }
                try:
                    answer = await client.post(f"{self.url}/v1/completions", json=body)
                except httpx.HTTPError as error:
                    self.failures.append(repr(error))
                    continue
                whole = answer.text.endswith("data: [DONE]\n\n") if stream else answer.is_success
                if not answer.is_success or not whole:
                    self.failures.append(f"{answer.status_code} {answer.text[-200:]}")
                self.served[answer.headers.get("x-supervisord-cp-instance", "?")] += 1

    async def end(self) -> None:
        self._stop.set()
        await asyncio.gather(*self._tasks)


@pytest.mark.asyncio
async def test_a_fleet_of_two_nodes_and_static_engines(fleet: Fleet) -> None:
    for number, port in enumerate(fleet.statics):
        argv = (
            "supervisord_cp.engines.fake",
            "serve",
            "fake-model",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
        )
        fleet.start(f"other-{number}", *argv)
    for name in ("central", "agent-a", "agent-b"):
        fleet.daemon(name)
    await fleet.until(lambda: len(fleet.ready()) == 10, "eight engines and two static ones are ready")
    hosts = {i["node"]: i["url"].split("//")[1].split(":")[0] for i in fleet.instances() if i["node"]}
    assert hosts == {"node-a": "127.0.0.1", "node-b": "127.0.0.2"}

    load = Load(f"http://127.0.0.1:{fleet.api}")
    await fleet.until(lambda: len(load.served) == 10, "requests reach all ten")

    fleet.post("deployments/chat/scale", {"replicas": 7})
    await fleet.until(lambda: len(fleet.engines()) == 7, "one is drained away")
    before = fleet.engines()

    fleet.kill("central")
    count = load.served.total()
    await fleet.until(lambda: load.served.total() > count + 200, "requests go on without central")
    fleet.daemon("central")
    await fleet.until(lambda: fleet.engines() == before, "central knows the fleet again, the override too")

    fleet.kill("agent-a")
    assert all(psutil.pid_exists(pid) for pid in before.values())
    count = load.served.total()
    await fleet.until(lambda: load.served.total() > count + 200, "requests go on without an agent")
    fleet.daemon("agent-a")
    await fleet.until(lambda: fleet.engines() == before, "the next agent takes over the same processes")

    fleet.kill("central")
    shutil.rmtree(fleet.root / "central")
    fleet.daemon("central")
    await fleet.until(lambda: before.items() <= fleet.engines().items(), "central learns the fleet anew")
    await fleet.until(lambda: len(fleet.engines()) == 8, "and brings it to what is configured")
    assert before.items() <= fleet.engines().items()
    await load.end()
    assert load.failures == []

    victim = before[next(iter(before))]
    os.kill(victim, signal.SIGKILL)
    await fleet.until(
        lambda: victim not in fleet.engines().values() and len(fleet.engines()) == 8, "restarted"
    )
    for name in ("agent-a", "agent-b"):
        fleet.processes[name].terminate()
        assert fleet.processes.pop(name).wait(PATIENCE_S) == 0
    assert sum(psutil.pid_exists(pid) for pid in before.values()) >= 6, (
        "SIGTERM to an agent leaves engines running"
    )


@pytest.mark.asyncio
async def test_a_wrong_token_is_refused_and_said(fleet: Fleet) -> None:
    (fleet.root / "agent-token").write_text("something else\n")
    fleet.daemon("central")
    fleet.daemon("agent-a")
    log = fleet.root / "agent-a.log"
    await fleet.until(lambda: log.exists() and "401" in log.read_text(), "the agent says 401")
    assert "something else" not in log.read_text()
    assert [i for i in fleet.instances() if not i["static"]] == []
