"""The agent's own metrics. Central shows the fleet's; these are there when central is not."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from supervisord_cp.agent.report import Reporter
from supervisord_cp.agent.roster import Roster
from supervisord_cp.model.gpu import Gpu, GpuHealth
from supervisord_cp.model.instance import InstanceState
from supervisord_cp.obs import catalog
from supervisord_cp.obs.metric import MetricSpec
from supervisord_cp.ports.gpu import GpuPort

_GPU_FIGURES: Final[tuple[tuple[MetricSpec, Callable[[Gpu], float | None]], ...]] = (
    (catalog.AGENT_GPU_MEMORY_TOTAL, lambda gpu: gpu.memory_total),
    (catalog.AGENT_GPU_MEMORY_USED, lambda gpu: gpu.memory_used),
    (catalog.AGENT_GPU_UTILIZATION, lambda gpu: gpu.utilization),
    (catalog.AGENT_GPU_TEMPERATURE, lambda gpu: gpu.temperature_c),
    (catalog.AGENT_GPU_POWER, lambda gpu: gpu.power_w),
    (catalog.AGENT_GPU_SAMPLE_AGE, lambda gpu: gpu.age_ms / 1000),
)


class AgentCollector(Collector):
    """Reads what is the case when it is asked."""

    def __init__(
        self, roster: Roster, reporter: Reporter, gpu: GpuPort, connected: Callable[[], bool]
    ) -> None:
        self._roster = roster
        self._reporter = reporter
        self._gpu = gpu
        self._connected = connected

    def collect(self) -> Iterator[Metric]:
        """All families; figures that are unknown are left out."""
        instances = list(self._roster.instances.values())
        states = Counter(one.status().state for one in instances)
        by_state = catalog.AGENT_INSTANCES.gauge()
        for state in InstanceState:
            by_state.add_metric([state.value], states[state])
        yield by_state
        failures = catalog.AGENT_FAILURES.counter()
        for one in instances:
            failures.add_metric([one.life.desired.deployment, one.id], one.life.history.restarts)
        yield failures
        reports = catalog.AGENT_REPORTS.counter()
        reports.add_metric([], self._reporter.sent)
        yield reports
        connected = catalog.AGENT_CONNECTED.gauge()
        connected.add_metric([], float(self._connected()))
        yield connected
        yield from self._gpus()

    def _gpus(self) -> Iterator[Metric]:
        gpus = self._gpu.read().gpus or ()
        for metric, figure in _GPU_FIGURES:
            family = metric.gauge()
            for gpu in gpus:
                value = figure(gpu)
                if value is not None:
                    family.add_metric([str(gpu.index), gpu.uuid], value)
            yield family
        health = catalog.AGENT_GPU_HEALTH.gauge()
        xids = catalog.AGENT_GPU_XIDS.counter()
        for gpu in gpus:
            for state in GpuHealth:
                health.add_metric([str(gpu.index), gpu.uuid, state.value], state is gpu.health)
            for xid, count in gpu.signs.xids.items():
                xids.add_metric([str(gpu.index), gpu.uuid, str(xid)], count)
        yield from (health, xids)


def page(collector: AgentCollector) -> bytes:
    """The text of a scrape."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    return generate_latest(registry)
