"""The agent's own metrics. Central shows the fleet's; these are there when central is not."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from supervisord_cp.agent.report import Reporter
from supervisord_cp.agent.roster import Roster
from supervisord_cp.model.gpu import Gpu, GpuHealth
from supervisord_cp.model.instance import InstanceState
from supervisord_cp.ports.gpu import GpuPort

PREFIX: Final = "supervisord_cp_agent_"

_GPU_FIGURES: Final[tuple[tuple[str, str, Callable[[Gpu], float | None]], ...]] = (
    ("gpu_memory_total_bytes", "Memory of a GPU.", lambda gpu: gpu.memory_total),
    ("gpu_memory_used_bytes", "Memory in use, by anybody.", lambda gpu: gpu.memory_used),
    ("gpu_utilization_ratio", "Share of time in which the GPU worked, 0 to 1.", lambda gpu: gpu.utilization),
    ("gpu_temperature_celsius", "Temperature of a GPU.", lambda gpu: gpu.temperature_c),
    ("gpu_power_watts", "Power that a GPU draws.", lambda gpu: gpu.power_w),
    ("gpu_sample_age_seconds", "Age of a GPU's figures.", lambda gpu: gpu.age_ms / 1000),
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
        by_state = GaugeMetricFamily(
            PREFIX + "instances", "Instances of this node by state.", labels=["state"]
        )
        for state in InstanceState:
            by_state.add_metric([state.value], states[state])
        yield by_state
        failures = CounterMetricFamily(
            PREFIX + "instance_failures",
            "Ends of an engine that nobody asked for, failed starts among them.",
            labels=["deployment", "instance_id"],
        )
        for one in instances:
            failures.add_metric([one.life.desired.deployment, one.id], one.life.history.restarts)
        yield failures
        yield CounterMetricFamily(PREFIX + "reports", "Reports sent to central.", value=self._reporter.sent)
        connected = GaugeMetricFamily(PREFIX + "connected", "Whether central can be reached.")
        connected.add_metric([], float(self._connected()))
        yield connected
        yield from self._gpus()

    def _gpus(self) -> Iterator[Metric]:
        gpus = self._gpu.read().gpus or ()
        for name, help_, figure in _GPU_FIGURES:
            family = GaugeMetricFamily(PREFIX + name, help_, labels=["gpu", "uuid"])
            for gpu in gpus:
                value = figure(gpu)
                if value is not None:
                    family.add_metric([str(gpu.index), gpu.uuid], value)
            yield family
        health = GaugeMetricFamily(
            PREFIX + "gpu_health", "1 for the state a GPU is in.", labels=["gpu", "uuid", "state"]
        )
        xids = CounterMetricFamily(
            PREFIX + "gpu_xid_errors",
            "Errors that the driver reported since the agent was started.",
            labels=["gpu", "uuid", "xid"],
        )
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
