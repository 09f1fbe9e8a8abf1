"""A real Prometheus scrapes a live fleet of fake engines and drives its replicas."""

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.prometheus.site import Busy, Site

pytestmark = [
    pytest.mark.process,
    pytest.mark.timeout(180),
    pytest.mark.skipif(
        shutil.which("prometheus") is None, reason="prometheus is not here (Debian package prometheus)"
    ),
]


SCALED_BY_A_QUERY = """
[deployments.chat]
engine = "fake"
model = "m"
args = { fake-itl-ms = 20 }
router = "heard"
[deployments.chat.autoscale]
min = 1
max = 4
[[deployments.chat.autoscale.scalers]]
use = "hpa"
params = { query = "running", target_average_value = 2 }
[deployments.chat.autoscale.behavior.scale_up]
policies = [{ type = "Pods", value = 1, period_s = 2 }]
[deployments.chat.autoscale.behavior.scale_down]
stabilization_window_s = 5
policies = [{ type = "Pods", value = 1, period_s = 2 }]
"""


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


def heard(site: Site) -> str:
    """What the routing policy says that it sees."""
    return next((one.get("state", "") for one in site.get("policies") if one["name"] == "heard"), "")


def steps(site: Site) -> list[tuple[int, int]]:
    """How the wanted number has changed, in order."""
    changes = [event for event in site.get("events") if event["kind"] == "deployment.scaled"]
    return [(event["data"]["before"], event["data"]["after"]) for event in changes]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "heard.py").write_text(HEARD)
    made = Site(tmp_path, SCALED_BY_A_QUERY)
    yield made
    made.close()


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
        lambda: heard(site).count("value prometheus") > 1, "the routing policy sees what Prometheus says"
    )

    site.stop_prometheus()
    await site.until(lambda: site.deployment()["reason"] in ("signal_stale", "hold"), "the hold is said")
    await site.until(lambda: heard(site).count("stale prometheus") > 1, "and sees them grow old")
    held = site.deployment()["wanted"]
    assert held > 1
    await busy.end()
    assert busy.failures == []
    for _ in range(20):
        assert site.deployment()["wanted"] >= held, site.get("events")
        await asyncio.sleep(0.2)

    site.start_prometheus()
    await site.until(
        lambda: site.deployment()["wanted"] == 1, "with Prometheus back the number follows again"
    )
    await site.until(lambda: site.deployment()["ready"] == 1, "and the surplus is drained away")
    assert steps(site)[0] == (1, 2)
    assert {after - before for before, after in steps(site)} == {1, -1}, "one at a time, both ways"
