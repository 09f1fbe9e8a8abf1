"""A real Prometheus scrapes a live fleet of fake engines and drives its replicas."""

import asyncio
import json
import shutil
import signal
import socket
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

pytestmark = [
    pytest.mark.process,
    pytest.mark.timeout(180),
    pytest.mark.skipif(
        shutil.which("prometheus") is None, reason="prometheus is not here (Debian package prometheus)"
    ),
]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


HEARD = """\
from supervisord_cp.policy import scorer

@scorer("heard")
class Heard:
    said = "nothing yet"

    def __call__(self, request, candidates, context):
        signals = [context.query("by_instance", c) for c in candidates]
        self.said = ", ".join(
            f"{c.instance.id} {s.state} {s.source}" for c, s in zip(candidates, signals, strict=True)
        )
        return [-s.value if s.known else 0.0 for s in signals]

    def describe(self):
        return self.said
"""
"""A routing policy that goes by a named result, and tells what it sees."""


class Site:
    """One host with everything, and a Prometheus beside it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.api, self.control, self.prometheus_port = free_port(), free_port(), free_port()
        first = free_port()
        (root / "plugins").mkdir()
        (root / "plugins" / "heard.py").write_text(HEARD)
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
listen = "127.0.0.1:{free_port()}"
state_dir = "agent"
log_dir = "logs"
device = "cpu"
slots = 4
max_parallel_starts = 4
ports = "{first}-{first + 40}"
[prometheus]
url = "http://127.0.0.1:{self.prometheus_port}"
[prometheus.queries]
running = 'sum(vllm:num_requests_running{{deployment="chat"}})'
by_instance = "sum by (instance_id) (vllm:num_requests_running)"
[plugins]
paths = ["plugins"]
[deployments.chat]
engine = "fake"
model = "m"
args = {{ fake-itl-ms = 20 }}
router = "heard"
[deployments.chat.autoscale]
min = 1
max = 4
[[deployments.chat.autoscale.scalers]]
use = "hpa"
params = {{ query = "running", target_average_value = 2 }}
[deployments.chat.autoscale.behavior.scale_down]
stabilization_window_s = 2
"""
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
        self._up = self._start(
            "up", sys.executable, "-m", "supervisord_cp", "up", "-c", "config.toml", "--state-dir", "up"
        )
        self._prometheus: subprocess.Popen[bytes] | None = None
        self.start_prometheus()

    def _start(self, name: str, *argv: str) -> subprocess.Popen[bytes]:
        with (self.root / f"{name}.log").open("ab") as out:
            return subprocess.Popen(argv, stdout=out, stderr=out, stdin=subprocess.DEVNULL, cwd=self.root)

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
            self._prometheus.wait(30)
            self._prometheus = None

    def deployment(self) -> dict:
        found = self.get("deployments")
        return found[0] if found else {"wanted": None, "ready": None}

    def heard(self) -> str:
        """What the routing policy says that it sees."""
        return next((one.get("state", "") for one in self.get("policies") if one["name"] == "heard"), "")

    def get(self, what: str) -> list:
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self.control}/api/v1/{what}", timeout=5
            ) as answer:
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

    async def until(self, true: Callable[[], object], what: str, seconds: float = 60.0) -> None:
        for _ in range(int(seconds * 5)):
            if await asyncio.to_thread(true):
                return
            await asyncio.sleep(0.2)
        raise AssertionError(
            f"never: {what}\n{self.deployment()}\n{(self.root / 'up.log').read_text()[-2000:]}"
        )

    def close(self) -> None:
        self.stop_prometheus()
        self._up.send_signal(signal.SIGTERM)
        self._up.wait(30)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.close()


class Busy:
    """Keeps a number of requests running, whatever happens to single ones."""

    def __init__(self, url: str, count: int) -> None:
        self._url = url
        self.failures: list[str] = []
        self._stop = asyncio.Event()
        self._tasks = [asyncio.create_task(self._work()) for _ in range(count)]

    async def _work(self) -> None:
        async with httpx.AsyncClient(timeout=60) as client:
            while not self._stop.is_set():
                body = {"model": "m", "prompt": "x", "max_tokens": 60, "ignore_eos": True}
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


@pytest.mark.asyncio
async def test_replicas_follow_a_query_and_a_lost_prometheus_shrinks_nothing(site: Site) -> None:
    await site.until(lambda: site.deployment()["ready"] == 1, "one replica")
    await site.until(lambda: site.query('up{job="vllm",deployment="chat"}'), "http_sd found the engine")
    everything = {"supervisord-cp-central", "supervisord-cp-agent", "vllm"}
    await site.until(
        lambda: everything <= {series["metric"]["job"] for series in site.query("up == 1")}, "all are scraped"
    )

    busy = Busy(f"http://127.0.0.1:{site.api}", 6)
    await site.until(lambda: site.deployment()["ready"] == 3, "six requests at two each are three replicas")
    await site.until(
        lambda: site.heard().count("value prometheus") > 1, "the routing policy sees what Prometheus says"
    )

    site.stop_prometheus()
    await site.until(lambda: site.deployment()["reason"] in ("signal_stale", "hold"), "the hold is said", 40)
    await site.until(lambda: site.heard().count("stale prometheus") > 1, "and sees them grow old")
    await busy.end()
    assert busy.failures == []
    for _ in range(20):
        assert site.deployment()["wanted"] == 3
        await asyncio.sleep(0.2)

    site.start_prometheus()
    await site.until(
        lambda: site.deployment()["wanted"] == 1, "with Prometheus back the number follows again"
    )
    await site.until(lambda: site.deployment()["ready"] == 1, "and the surplus is drained away")
