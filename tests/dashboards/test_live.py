"""Every query of every dashboard is answered by a real Prometheus that scrapes a live fleet.

vLLM's own dashboards are asked of the same one: discovery's labels must leave theirs alone.
"""

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisord_cp.obs.dashboards.files import DASHBOARDS
from tests.dashboards import vllms_own
from tests.fakes.nvml_stub import StubDriver, build_library
from tests.prometheus.site import Busy, Site

pytestmark = [
    pytest.mark.process,
    pytest.mark.timeout(180),
    pytest.mark.skipif(
        shutil.which("prometheus") is None, reason="prometheus is not here (Debian package prometheus)"
    ),
]
GIB = 2**30
DEPLOYMENT = """
[deployments.chat]
engine = "fake"
model = "m"
args = { fake-itl-ms = 5 }
max_concurrency = 4
slo = { ttft_ms = 2000, itl_ms = 80 }
router = "prefix"
shadow = "round_robin"
[deployments.chat.autoscale]
min = 1
max = 2
[[deployments.chat.autoscale.scalers]]
use = "hpa"
params = { query = "running", target_average_value = 1 }
"""
GPU_AGENT = """
device = "cuda"
gpu_cost_per_hour = 2.5
max_parallel_starts = 4
"""


@pytest.fixture
def driver(tmp_path: Path) -> StubDriver:
    try:
        driver = StubDriver(build_library(tmp_path), tmp_path / "nvml-state")
    except FileNotFoundError:
        pytest.skip("gcc is missing: the stub of libnvidia-ml.so.1 cannot be compiled")
    for index in range(3):
        figures = {"util": 40, "temp": 60, "mw": 300_000, "ecc": 0}
        driver.add("gpu", index=index, uuid=f"GPU-{index}", name="H200", total=141 * GIB, **figures)
    return driver


@pytest.fixture
def site(tmp_path: Path, driver: StubDriver) -> Iterator[Site]:
    made = Site(tmp_path, DEPLOYMENT, agent=GPU_AGENT, environ=driver.environ)
    yield made
    made.close()


def concrete(expression: str) -> str:
    """With Grafana's variables filled in."""
    for name, value in (("$__rate_interval", "10s"), ("$deployment", ".*"), ("$node", ".*")):
        expression = expression.replace(name, value)
    assert "$" not in expression
    return expression


def unanswered(site: Site) -> list[str]:
    queries = {
        f"{board.uid}: {panel.title}: {query.expr}": concrete(query.expr)
        for board in DASHBOARDS
        for panel in board.panels
        for query in panel.queries
    }
    queries |= {
        f"{board.uid}: annotation {one.name}": concrete(one.expr)
        for board in DASHBOARDS
        for one in board.annotations
    }
    return [name for name, expression in queries.items() if not site.query(expression)]


def unanswered_of_vllm(site: Site) -> list[str]:
    filled = vllms_own.variables(site.query)
    return [query for query in vllms_own.queries(filled) if not site.query(query)]


@pytest.mark.asyncio
async def test_every_query_has_data_of_ours_and_of_vllms_own_dashboards(
    site: Site, driver: StubDriver
) -> None:
    await site.until(lambda: site.deployment()["ready"] == 1, "one replica")
    busy = Busy(f"http://127.0.0.1:{site.api}", 6, prompt="x" * 600)  # some blocks of a prefix
    await site.until(lambda: site.deployment()["ready"] == 2, "the load brings a second one")
    driver.add("xid", uuid="GPU-2", code=31)
    for _ in range(60):
        if not (missing := unanswered(site) + unanswered_of_vllm(site)):
            break
        await asyncio.sleep(0.5)
    await busy.end()
    assert busy.failures == []
    assert not missing, "\n".join(missing)
