"""`supervisord-cp router` as processes, before engines and a central of the test's own."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import psutil

from supervisord_cp.model.router import RouterReport
from supervisord_cp.wire import messages as m
from tests.router.central_kit import Central
from tests.router.kit import Client, Engine, instance
from tests.router.test_follower import snapshot
from tests.waiting import until

CHAT = {"model": "chat"}


class Processes:
    """One router: the process that holds the address, and those that serve."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "config.toml"
        self.log = folder / "router.log"
        self.central = Central()
        self.clients: list[Client] = []
        self.processes = self._port = 0
        self._started: list[subprocess.Popen[bytes]] = []

    @property
    def holder(self) -> subprocess.Popen[bytes]:
        return self._started[-1]

    @property
    def port(self) -> int:
        return self._port or int(self.central.reports[-1].api_url.rpartition(":")[2])

    @property
    def restarts(self) -> int:
        return self.log.read_text().count("the router is restarted")

    def configure(self, processes: int = 2, port: int = 0, more: str = "") -> None:
        self.processes, self._port = processes, port
        self.config.write_text(
            f'[central]\nstate_dir = "{self.folder}"\n'
            f'[router]\napi_listen = "127.0.0.1:{port}"\ncentral = "{self.central.url}"\n'
            f"processes = {processes}\n{more}\n"
        )

    async def start(
        self,
        *words: str,
        environ: Mapping[str, str] = os.environ,
        pass_fds: Sequence[int] = (),
        launch: tuple[str, ...] = (),
    ) -> None:
        """Start it and wait until it serves; `launch`: by a program of the test's, with its arguments."""
        how = ["-c", *launch] if launch else ["-P", "-m", "supervisord_cp"]
        program = [sys.executable, *how, "router", "-c", str(self.config), *words]
        with self.log.open("ab") as log:
            self._started.append(
                subprocess.Popen(program, stderr=log, stdout=log, env=environ, pass_fds=pass_fds)  # noqa: ASYNC220
            )

        def serves() -> bool:
            assert self.holder.poll() is None, self.log.read_text()[-2000:]
            mine = [one for one in self.serving().values() if one.pid == self.holder.pid]
            said = self.log.read_text().count("the router serves at")
            return len(mine) >= self.processes and said >= len(self._started)

        await until(serves, "all processes serve")

    async def serve(self, *engines: Engine, max_concurrency: int = 0) -> None:
        """Tell whoever connects of these engines; for before the start."""
        instances = (instance(e, n, max_concurrency=max_concurrency) for n, e in enumerate(engines))
        self.central.on_connect = [m.Snapshot(snapshot=snapshot(1, *instances))]

    def serving(self) -> dict[str, RouterReport]:
        """The newest report of each process that has not said farewell and knows the fleet."""
        newest = {report.router: report for report in self.central.reports}
        return {name: report for name, report in newest.items() if report.version and not report.ended}

    def children(self, pid: int = 0) -> set[int]:
        """Pids of the processes that serve."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return {child.pid for child in psutil.Process(pid or self.holder.pid).children()}
        return set()

    async def restart(self) -> None:
        """SIGHUP, and wait until new processes serve."""
        before = self.restarts
        self.holder.send_signal(signal.SIGHUP)
        await until(lambda: self.restarts > before, "new ones serve")

    async def client(self) -> Client:
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port))
        self.clients.append(client)
        return client

    async def streams(self, number: int) -> list[Client]:
        """Open streams, each of which has begun."""
        clients = [await self.client() for _ in range(number)]
        for client in clients:
            client.post(CHAT)
        for client in clients:
            assert (await client.head())[0] == 200
            assert await client.chunk()
        return clients

    async def has(self, number: int) -> None:
        """Wait until so many requests are reported, in flight or in line."""
        await until(lambda: sum(map(sum, self.loads())) == number, f"{number} requests have arrived")

    def loads(self) -> list[tuple[int, int]]:
        """Requests in flight and in line, of each process and deployment, as last reported."""
        return [(d.inflight, d.queued) for report in self.serving().values() for d in report.demand]

    async def ask(self) -> int:
        """The status of a request on a connection of its own."""
        client = await self.client()
        client.post(CHAT)
        status = (await client.answer()).status
        await client.close()
        return status

    async def close(self) -> None:
        for client in self.clients:
            await client.close()
        for one in self._started:
            left = self.children(one.pid)
            one.kill()
            one.wait()
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        await until(lambda: not self.central.followers, "all processes have ended")
        await self.central.stop()


async def finish(stream: Client) -> bool:
    """Whether a stream comes to its proper end."""
    data = b""
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        while piece := await stream.chunk():
            data += piece
    return data.endswith(b"data: [DONE]\n\n")


@contextlib.asynccontextmanager
async def router_of(folder: Path, *engines: Engine, max_concurrency: int = 0) -> AsyncIterator[Processes]:
    """Engines and a central, and no router yet; all that was started is ended."""
    made = Processes(folder)
    await made.central.start()
    for engine in engines:
        await engine.start()
    await made.serve(*engines, max_concurrency=max_concurrency)
    made.configure()
    try:
        yield made
    finally:
        await made.close()
        for engine in engines:
            await engine.stop()
