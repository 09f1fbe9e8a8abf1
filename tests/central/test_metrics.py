"""Every metric that is exported is documented, and the other way round; the pages are valid."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from supervisord_cp.agent.metrics import AgentCollector
from supervisord_cp.agent.metrics import page as agent_page
from supervisord_cp.central.metrics import Metrics, exposition
from supervisord_cp.model.base import DeviceId, InstanceId
from supervisord_cp.model.gpu import Gpu, Holder
from supervisord_cp.model.instance import ExitCause, LastExit
from supervisord_cp.obs.catalog import AGENT, CENTRAL, ROUTER
from supervisord_cp.obs.reference import reference
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
async def test_what_is_exported_is_what_the_catalogue_says() -> None:
    text = await pages()
    exported = {
        family.name + ("_total" if family.type == "counter" else ""): family
        for family in text_string_to_metric_families(text)
    }
    catalogue = {metric.full_name: metric for metric in (*CENTRAL, *ROUTER, *AGENT)}
    assert exported.keys() == catalogue.keys()
    for name, family in exported.items():
        metric = catalogue[name]
        assert (family.type, family.documentation) == (metric.kind, metric.help)
        for sample in family.samples:
            assert sample.labels.keys() - {"le"} == set(metric.labels), name


def test_the_page_of_the_documentation_is_generated() -> None:
    assert DOCS.read_text() == reference(), "python -m supervisord_cp.obs.reference > docs/metrics.md"


def test_names_end_in_their_unit() -> None:
    for metric in (*CENTRAL, *ROUTER, *AGENT):
        base = metric.name.removesuffix("_total")
        assert not metric.unit or base.endswith(metric.unit), metric.name


@pytest.mark.asyncio
async def test_restarts_are_counted_by_cause_from_zero_on() -> None:
    world = World(deployment(replicas=1))
    agent = world.agent()
    world.run()
    zero = 'supervisord_cp_instance_restarts_total{cause="gpu_memory",deployment="chat"} '
    metrics = Metrics(world.controller)
    assert zero + "0.0" in (await metrics.page({})).decode()
    crashed = LastExit(code=1, cause=ExitCause.GPU_MEMORY)
    agent.instances["chat-0"] = replace(agent.instances["chat-0"], restarts=1, last_exit=crashed)
    world.run()
    assert zero + "1.0" in (await metrics.page({})).decode()


@pytest.mark.asyncio
async def test_processes_on_a_gpu_are_counted_with_what_they_hold() -> None:
    def holder(pid: int, size: int, instance: str = "") -> Holder:
        return Holder(pid=pid, owner="x", command="y", bytes=size, instance=InstanceId(instance))

    gpus = (
        Gpu(uuid=DeviceId("A"), index=0, memory_used=9, holders=(holder(1, 4, "chat-0"), holder(2, 5))),
        Gpu(uuid=DeviceId("B"), index=1, memory_used=9, holders=(holder(3, 0), holder(4, 5))),
        Gpu(uuid=DeviceId("C"), index=2, memory_used=0),
        Gpu(uuid=DeviceId("D"), index=3),
    )
    world = World()
    world.agent()
    world.run()
    ((name, view),) = world.controller.nodes.items()
    world.controller.nodes[name] = replace(view, gpus=gpus)
    page = (await Metrics(world.controller).page({})).decode()
    found = {
        (family.name.removeprefix("supervisord_cp_gpu_"), one.labels["uuid"], one.labels["kind"]): one.value
        for family in text_string_to_metric_families(page)
        if family.name.startswith("supervisord_cp_gpu_process")
        for one in family.samples
    }
    assert found == {
        ("processes", "A", "engine"): 1,
        ("processes", "A", "stranger"): 1,
        ("process_memory_bytes", "A", "engine"): 4,
        ("process_memory_bytes", "A", "stranger"): 5,
        ("processes", "B", "engine"): 0,
        ("processes", "B", "stranger"): 2,
        ("process_memory_bytes", "B", "engine"): 0,
        ("processes", "C", "engine"): 0,
        ("processes", "C", "stranger"): 0,
        ("process_memory_bytes", "C", "engine"): 0,
        ("process_memory_bytes", "C", "stranger"): 0,
    }, "what is not known is left out"


class Fixed(Collector):
    """Families that a test made."""

    def __init__(self, families: list[Metric]) -> None:
        self.collect = lambda: families  # type: ignore[method-assign]


def test_the_text_is_that_of_prometheus_client() -> None:
    gauge = GaugeMetricFamily("a", 'What\nis \\ "it".', labels=("z", "b"))
    for labels, value in (
        (["1", 'q"\\\n'], 1),
        (["", "ü"], 0.1),
        (["x", "y"], 3e12),
        (["n", "n"], float("nan")),
    ):
        gauge.add_metric(labels, value)
    counter = CounterMetricFamily("c", "Plain.")
    counter.add_metric([], float("inf"))
    families = [gauge, counter, GaugeMetricFamily("empty", "None.", labels=("x",))]
    registry = CollectorRegistry()
    registry.register(Fixed(families))
    assert exposition(families) == generate_latest(registry).decode()


class SlowRouter:
    """Answers a scrape when it is let."""

    def __init__(self, text: str) -> None:
        self.asked, self.may_answer = asyncio.Event(), asyncio.Event()
        self._text = text

    async def call(self, method: str, params: object) -> AsyncIterator[str]:
        self.asked.set()
        await self.may_answer.wait()
        yield self._text


@pytest.mark.asyncio
@pytest.mark.parametrize("then", [{}, {"r2": SlowRouter("")}, {"r2": SlowRouter(""), "r3": SlowRouter("")}])
async def test_routers_may_come_and_go_during_a_scrape(then: dict[str, Any]) -> None:
    first = SlowRouter("# TYPE x gauge\nx 1\n")
    routers: dict[str, Any] = {"r1": first}
    scrape = asyncio.create_task(Metrics(World().controller).page(routers))
    await first.asked.wait()
    routers.clear()
    routers.update(then)
    first.may_answer.set()
    assert 'x{router="r1"} 1' in (await scrape).decode()


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
