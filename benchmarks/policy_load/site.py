"""Four fake engines that differ, a central and a router: the processes that a run needs."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp

from policy_load.workload import KEYS, SLO_TTFT_S

MODEL: Final = "chat"
SETTLE_S: Final = 2.0
"""A reload reaches the router, and the engines' reports are fresh."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One instance: what it is, and what the configuration says of it."""

    name: str
    zone: str
    cost_per_hour: float
    gpus: int = 1
    speed: float = 1.0
    kv_tokens: int = 20_000

    @property
    def flags(self) -> list[str]:
        return [
            f"--fake-prefill-tokens-per-s={2500 * self.speed:g}",
            f"--fake-itl-ms={25 / self.speed:g}",
            f"--fake-itl-per-sequence-ms={2 / self.speed:g}",
            f"--fake-kv-tokens={self.kv_tokens}",
            "--max-model-len=4000",
            "--max-num-seqs=16",
        ]


FLEET: Final = (
    Machine(name="near-1", zone="near", cost_per_hour=2.0),
    Machine(name="near-wide", zone="near", cost_per_hour=6.0, gpus=2, speed=2.0),
    Machine(name="far-1", zone="far", cost_per_hour=2.0),
    Machine(name="far-cheap", zone="far", cost_per_hour=1.0),
)


class Site:
    """Everything, up and answering."""

    def __init__(self, folder: Path, session: aiohttp.ClientSession) -> None:
        self.folder = folder
        self.http = session
        self.api, self.control = _free_port(), _free_port()
        self.engines = {machine.name: _free_port() for machine in FLEET}
        self._processes: list[subprocess.Popen[bytes]] = []

    async def start(self) -> None:
        (self.folder / "keys").write_text("".join(f"{key}: sk-{key}\n" for key in (*KEYS, "everyone")))
        self._configure("fifo", "load_balanced", 1)
        env = {**os.environ, "VLLM_SERVER_DEV_MODE": "1"}
        for machine in FLEET:
            port = str(self.engines[machine.name])
            argv = ["-m", "supervisord_cp.engines.fake", "serve", MODEL, "--host=127.0.0.1", f"--port={port}"]
            self._run([*argv, *machine.flags], env)
        self._run(["-m", "supervisord_cp", "central", "-c", str(self.folder / "config.toml")], env)
        await self._until_served()

    async def use(self, scheduler: str, router: str, concurrency: int) -> None:
        """From now on these decide; the engines' caches are empty."""
        self._configure(scheduler, router, concurrency)
        self._processes[-1].send_signal(signal.SIGHUP)
        for port in self.engines.values():
            async with self.http.post(f"http://127.0.0.1:{port}/reset_prefix_cache") as answer:
                answer.raise_for_status()
        await asyncio.sleep(SETTLE_S)

    async def counters(self, *names: str) -> Mapping[str, float]:
        """Counters of all engines, added up."""
        found = dict.fromkeys(names, 0.0)
        for port in self.engines.values():
            async with self.http.get(f"http://127.0.0.1:{port}/metrics") as answer:
                page = await answer.text()
            for line in page.splitlines():
                name = line.partition("{")[0]
                if name in found:
                    found[name] += float(line.rpartition(" ")[2])
        return found

    def close(self) -> None:
        for process in reversed(self._processes):
            process.send_signal(signal.SIGINT)
        for process in self._processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _configure(self, scheduler: str, router: str, concurrency: int) -> None:
        lines = [
            f'[central]\ncontrol_listen = "127.0.0.1:{self.control}"\nstate_dir = "state"\n',
            f'[router]\napi_listen = "127.0.0.1:{self.api}"\ncentral = "http://127.0.0.1:{self.control}"\n',
            'api_keys_file = "keys"\nqueue_timeout_s = 60\n[agent]\nname = "host"\nzone = "near"\n',
            f'[deployments.{MODEL}]\nengine = "none"\nmodel = "{MODEL}"\nmax_concurrency = {concurrency}\n',
            f'slo = {{ ttft_ms = {SLO_TTFT_S * 1000:g} }}\nscheduler = "{scheduler}"\nrouter = "{router}"\n',
        ]
        lines += [
            f'[[static_instances]]\nid = "{machine.name}"\ndeployment = "{MODEL}"\n'
            f'url = "http://127.0.0.1:{self.engines[machine.name]}"\nzone = "{machine.zone}"\n'
            f"gpus = {machine.gpus}\nweight = {machine.speed}\n"
            f"max_concurrency = {int(concurrency * machine.speed)}\n"
            f"cost_per_gpu_hour = {machine.cost_per_hour / machine.gpus}\n"
            for machine in FLEET
        ]
        (self.folder / "config.toml").write_text("".join(lines))

    def _run(self, arguments: list[str], env: Mapping[str, str]) -> None:
        with (self.folder / "log").open("ab") as out:
            argv = [sys.executable, *arguments]
            self._processes.append(subprocess.Popen(argv, stdout=out, stderr=out, env=env))

    async def _until_served(self) -> None:
        instances = f"http://127.0.0.1:{self.control}/api/v1/instances"
        models = f"http://127.0.0.1:{self.api}/v1/models"
        for _ in range(300):
            with contextlib.suppress(aiohttp.ClientError):
                async with self.http.get(instances) as answer:
                    states = [instance["state"] for instance in await answer.json()]
                async with self.http.get(models, headers={"authorization": "Bearer sk-everyone"}) as answer:
                    served = (await answer.json())["data"]
                if served and states == ["ready"] * len(FLEET):
                    return
            await asyncio.sleep(0.1)
        raise SystemExit(f"the engines did not come up:\n{(self.folder / 'log').read_text()[-3000:]}")


@contextlib.asynccontextmanager
async def site() -> AsyncIterator[Site]:
    """All processes, ended at the end."""
    with tempfile.TemporaryDirectory(prefix="policy-load-") as folder:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            made = Site(Path(folder), session)
            try:
                await made.start()
                yield made
            finally:
                made.close()


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
