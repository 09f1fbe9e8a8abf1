"""One host with everything and a real Prometheus beside it, and a load for it."""

import asyncio
import json
import os
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path

import httpx

from tests.e2e.local import Up
from tests.ports import free_ports
from tests.waiting import PATIENCE_S

CPU_AGENT = """
device = "cpu"
slots = 4
max_parallel_starts = 4
"""


class Site:
    """One host with everything, and a Prometheus beside it."""

    def __init__(
        self, root: Path, deployments: str, *, agent: str = CPU_AGENT, environ: Mapping[str, str] = os.environ
    ) -> None:
        """`deployments` and `agent`: text for the configuration; `environ`: of the daemons."""
        self.root = root
        self._environ = environ
        first = free_ports(20)
        self.api, self.control, self.prometheus_port, agent_port = range(first, first + 4)
        (root / "plugins").mkdir(exist_ok=True)
        (root / "config.toml").write_text(
            f"""
[central]
control_listen = "127.0.0.1:{self.control}"
state_dir = "central"
settle_s = 0
[router]
api_listen = "127.0.0.1:{self.api}"
central = "http://127.0.0.1:{self.control}"
[agent]
name = "host"
central = "http://127.0.0.1:{self.control}"
listen = "127.0.0.1:{agent_port}"
state_dir = "agent"
log_dir = "logs"
{agent}
ports = "{first + 4}-{first + 19}"
[prometheus]
url = "http://127.0.0.1:{self.prometheus_port}"
[prometheus.queries]
running = 'sum(vllm:num_requests_running{{deployment="chat"}})'
by_instance = "sum by (instance_id) (vllm:num_requests_running)"
[plugins]
paths = ["plugins"]
{deployments}"""
        )
        (root / "prometheus.yml").write_text(
            f"""
global: {{ scrape_interval: 1s }}
scrape_configs:
  - job_name: supervisord-cp
    http_sd_configs:
      - {{ url: "http://127.0.0.1:{self.control}/api/v1/prometheus/targets", refresh_interval: 1s }}
"""
        )
        self._up = Up(root, ("-c", "config.toml"), environ)
        self._prometheus: subprocess.Popen[bytes] | None = None
        self.start_prometheus()

    def _start(self, name: str, *argv: str) -> subprocess.Popen[bytes]:
        with (self.root / f"{name}.log").open("ab") as out:
            return subprocess.Popen(
                argv, stdout=out, stderr=out, stdin=subprocess.DEVNULL, cwd=self.root, env=self._environ
            )

    def start_prometheus(self) -> None:
        self._prometheus = self._start(
            "prometheus",
            "prometheus",
            "--config.file=prometheus.yml",
            "--storage.tsdb.path=tsdb",
            f"--web.listen-address=127.0.0.1:{self.prometheus_port}",
        )

    def stop_prometheus(self) -> None:
        if self._prometheus is not None:
            self._prometheus.terminate()
            try:
                self._prometheus.wait(PATIENCE_S)
            finally:
                self._prometheus.kill()
                self._prometheus.wait()
            self._prometheus = None

    def deployment(self) -> dict:
        found = self.get("deployments")
        return found[0] if found else {"wanted": None, "ready": None}

    def get(self, what: str) -> list:
        """What the control API lists."""
        url = f"http://127.0.0.1:{self.control}/api/v1/{what}"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return json.load(answer)
        except OSError:
            return []

    def query(self, expression: str) -> list:
        data = urllib.parse.urlencode({"query": expression}).encode()
        url = f"http://127.0.0.1:{self.prometheus_port}/api/v1/query"
        try:
            with urllib.request.urlopen(url, data=data, timeout=5) as answer:
                return json.load(answer)["data"]["result"]
        except OSError:
            return []

    async def until(self, true: Callable[[], object], what: str) -> None:
        for _ in range(int(PATIENCE_S * 5)):
            if await asyncio.to_thread(true):
                return
            await asyncio.sleep(0.2)
        raise AssertionError(f"never: {what}\n{self.deployment()}\n{self._up.output[-2000:]}")

    def close(self) -> None:
        self.stop_prometheus()
        self._up.close()


class Busy:
    """Keeps a number of requests running, whatever happens to single ones."""

    def __init__(self, url: str, count: int, *, prompt: str = "x") -> None:
        self._url = url
        self._prompt = prompt
        self.failures: list[str] = []
        self._stop = asyncio.Event()
        self._tasks = [asyncio.create_task(self._work()) for _ in range(count)]

    async def _work(self) -> None:
        async with httpx.AsyncClient(timeout=60) as client:
            while not self._stop.is_set():
                body = {"model": "m", "prompt": self._prompt, "max_tokens": 60, "ignore_eos": True}
                try:
                    answer = await client.post(f"{self._url}/v1/completions", json=body)
                except httpx.HTTPError as error:
                    self.failures.append(repr(error))
                    continue
                if not answer.is_success:
                    self.failures.append(answer.text[:200])

    async def end(self) -> None:
        self._stop.set()
        await asyncio.gather(*self._tasks)
