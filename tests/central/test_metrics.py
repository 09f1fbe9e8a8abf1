"""Every metric that is exported is documented, and the other way round; the pages are valid."""

import re
from pathlib import Path
from random import Random
from types import SimpleNamespace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from supervisord_cp.agent.metrics import AgentCollector
from supervisord_cp.agent.metrics import page as agent_page
from supervisord_cp.central.metrics import Metrics
from supervisord_cp.plugin_host.binding import Binder
from supervisord_cp.router.fleet import Fleet
from supervisord_cp.router.metrics import RouterMetrics
from tests.central.fleet import World, deployment

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"


async def pages() -> str:
    world = World(deployment(replicas=1))
    world.agent()
    world.run()
    central = (await Metrics(world.controller).page({})).decode()
    router = RouterMetrics().render(Fleet(queue_requests=1, queue_bytes=1, rng=Random(0), binder=Binder()))
    roster, reporter = SimpleNamespace(instances={}), SimpleNamespace(sent=0)
    gpu = SimpleNamespace(read=lambda: SimpleNamespace(gpus=()))
    return central + router + agent_page(AgentCollector(roster, reporter, gpu, lambda: True)).decode()


@pytest.mark.asyncio
async def test_exported_and_documented_are_the_same() -> None:
    text = await pages()
    exported = {
        family.name + ("_total" if family.type == "counter" else "")
        for family in text_string_to_metric_families(text)
    }
    documented = set(re.findall(r"^\| `(supervisord_cp_\w+)`", DOCS.read_text(), re.MULTILINE))
    assert exported == documented


@pytest.mark.asyncio
async def test_central_counts_instances_and_decisions() -> None:
    world = World(deployment(replicas=1))
    world.agent()
    world.run()
    world.controller.config = world.config
    from supervisord_cp.central.operations import Operations

    Operations(world.controller).scale("chat", 2, None)
    world.run()
    text = (await Metrics(world.controller).page({})).decode()
    assert 'supervisord_cp_instances{deployment="chat",state="ready"} 2.0' in text
    assert 'scale_decisions_total{deployment="chat",direction="up",reason="override"} 1.0' in text
