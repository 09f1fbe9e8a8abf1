"""The fleet as central knows it, as metric families. Figures that are unknown are left out."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from supervisord_cp.central import devices, fleet
from supervisord_cp.central.controller import Controller
from supervisord_cp.central.queries import Queries
from supervisord_cp.central.scale_view import configured
from supervisord_cp.model.base import DeviceId
from supervisord_cp.model.gpu import Gpu, GpuHealth, GpuUse, Slowdown
from supervisord_cp.model.instance import ExitCause
from supervisord_cp.model.reason import ReasonCode
from supervisord_cp.obs import catalog
from supervisord_cp.obs.metric import MetricSpec
from supervisord_cp.version import __version__

_GPU_FIGURES: Final[tuple[tuple[MetricSpec, Callable[[Gpu], float | None]], ...]] = (
    (catalog.GPU_MEMORY_TOTAL, lambda gpu: gpu.memory_total),
    (catalog.GPU_MEMORY_USED, lambda gpu: gpu.memory_used),
    (catalog.GPU_UTILIZATION, lambda gpu: gpu.utilization),
    (catalog.GPU_TEMPERATURE, lambda gpu: gpu.temperature_c),
    (catalog.GPU_POWER, lambda gpu: gpu.power_w),
    (catalog.GPU_ECC, lambda gpu: gpu.signs.ecc_uncorrected),
)

_KINDS: Final = (("engine", True), ("stranger", False))
"""Who holds memory of a GPU, and whether that is an instance of ours."""


class FleetCollector(Collector):
    """Reads what is the case when it is asked."""

    def __init__(self, controller: Controller) -> None:
        self._c = controller
        self.queries: Queries | None = None
        self.refused = 0

    def collect(self) -> Iterator[Metric]:
        """All families."""
        build = catalog.BUILD_INFO.gauge()
        build.add_metric([__version__], 1)
        yield build
        yield from self._deployments()
        yield from self._scaling()
        yield from self._instances()
        yield from self._nodes()
        yield from self._gpus()
        yield from self._gpu_processes()
        refused = catalog.AUTH_FAILURES.counter()
        refused.add_metric([], self.refused)
        failures = catalog.QUERY_FAILURES.counter()
        failures.add_metric([], 0 if self.queries is None else self.queries.failures)
        yield from (refused, failures)

    def _deployments(self) -> Iterator[Metric]:
        slo, limits = catalog.SLO_TARGET.gauge(), catalog.REPLICAS_LIMIT.gauge()
        restarts = catalog.INSTANCE_RESTARTS.counter()
        for config in self._c.config.deployments:
            if config.slo.ttft_ms is not None:
                slo.add_metric([config.name, "ttft"], config.slo.ttft_ms / 1000)
            if config.slo.itl_ms is not None:
                slo.add_metric([config.name, "itl"], config.slo.itl_ms / 1000)
            scale = config.autoscale
            limits.add_metric([config.name, "min"], configured(config) if scale is None else scale.min)
            limits.add_metric([config.name, "max"], configured(config) if scale is None else scale.max)
            for cause in ExitCause:
                # Each from zero on: a first one that appears as 1 is no increase to Prometheus.
                restarts.add_metric([config.name, cause], self._c.failures[config.name, cause])
        yield from (slo, limits, restarts)

    def _scaling(self) -> Iterator[Metric]:
        scaling = self._c.scaling
        decisions = catalog.SCALE_DECISIONS.counter()
        for change, count in scaling.counts.items():
            decisions.add_metric(list(change), count)
        wanted, unplaceable = catalog.REPLICAS_WANTED.gauge(), catalog.UNPLACEABLE_REPLICAS.gauge()
        hold, start = catalog.SCALER_HOLD.gauge(), catalog.INSTANCE_START.gauge()
        phases = catalog.INSTANCE_START_PHASE.gauge()
        proposed = catalog.REPLICAS_PROPOSED.gauge()
        for name, decision in scaling.decisions.items():
            if decision.reason.code is ReasonCode.HOLD:
                hold.add_metric([name, str(decision.reason.params.get("why", ""))], 1)
            wanted.add_metric([name], decision.wanted)
            unplaceable.add_metric([name], len(scaling.unplaced.get(name, [])))
            for policy, replicas in {p.policy: p.replicas for p in decision.proposals}.items():
                if replicas is not None:
                    proposed.add_metric([name, policy], replicas)
            if (seconds := scaling.start_seconds(name)) is not None:
                start.add_metric([name], seconds)
            for phase, took in scaling.start_stages(name).items():
                phases.add_metric([name, phase], took)
        yield from (wanted, unplaceable, decisions, hold, proposed, start, phases)

    def _instances(self) -> Iterator[Metric]:
        by_state: Counter[tuple[str, str]] = Counter()
        held: Counter[tuple[str, str]] = Counter()
        states = self._c.states()
        failures = catalog.INSTANCE_FAILURES.counter()
        for view, status in self._c.statuses().values():
            by_state[status.deployment, states[status.id].value] += 1
            held[status.deployment, view.name] += len(status.devices)
            failures.add_metric([status.deployment, status.id, view.name], status.restarts)
        instances, gpus = catalog.INSTANCES.gauge(), catalog.DEPLOYMENT_GPUS.gauge()
        for state, count in by_state.items():
            instances.add_metric(state, count)
        for place, count in held.items():
            gpus.add_metric(place, count)
        yield from (instances, gpus, failures)

    def _nodes(self) -> Iterator[Metric]:
        age, cost, cordoned = (
            catalog.REPORT_AGE.gauge(),
            catalog.GPU_COST.gauge(),
            catalog.NODE_CORDONED.gauge(),
        )
        cpu, memory, disk = catalog.NODE_CPU.gauge(), catalog.NODE_MEMORY.gauge(), catalog.NODE_DISK.gauge()
        for view in self._c.nodes.values():
            host = view.host
            for family, value in (
                (age, view.age_s(self._c.clock.now())),
                (cost, view.inventory.gpu_cost_per_hour),
                (cordoned, float(self._c.memory.cordoned(view.name))),
                (cpu, None if host is None else host.cpu_utilization),
                (memory, None if host is None else host.memory_available),
                (disk, None if host is None else host.disk_free),
            ):
                if value is not None:
                    family.add_metric([view.name], value)
        yield from (age, cost, cordoned, cpu, memory, disk)

    def _gpus(self) -> Iterator[Metric]:
        figures = [(metric.gauge(), figure) for metric, figure in _GPU_FIGURES]
        health, slowed, xids = (
            catalog.GPU_HEALTH.gauge(),
            catalog.GPU_SLOWED.gauge(),
            catalog.GPU_XIDS.counter(),
        )
        use = catalog.GPU_USE.gauge()
        for view in self._c.nodes.values():
            for gpu in view.gpus:
                labels = [view.name, str(gpu.index), gpu.uuid]
                for family, figure in figures:
                    if (value := figure(gpu)) is not None:
                        family.add_metric(labels, value)
                for state in GpuHealth:
                    health.add_metric([*labels, state], state is gpu.health)
                for reason in Slowdown:
                    slowed.add_metric([*labels, reason], reason in gpu.signs.slowdowns)
                for xid, count in gpu.signs.xids.items():
                    xids.add_metric([*labels, str(xid)], count)
            for device, index, used in self._uses(view):
                for one in GpuUse:
                    use.add_metric([view.name, index, device, one], one is used)
        yield from (*(family for family, _ in figures), health, slowed, xids, use)

    def _gpu_processes(self) -> Iterator[Metric]:
        processes, memory = catalog.GPU_PROCESSES.gauge(), catalog.GPU_PROCESS_MEMORY.gauge()
        for view in self._c.nodes.values():
            for gpu in view.gpus:
                if gpu.memory_used is None:
                    continue  # not read, and so nobody knows who holds it
                for kind, ours in _KINDS:
                    labels = [view.name, str(gpu.index), gpu.uuid, kind]
                    held = [holder.bytes for holder in gpu.holders if bool(holder.instance) is ours]
                    processes.add_metric(labels, len(held))
                    if all(held):
                        memory.add_metric(labels, sum(held))
        yield from (processes, memory)

    def _uses(self, view: fleet.NodeView) -> Iterator[tuple[DeviceId, str, GpuUse]]:
        for gpu in view.gpus:
            yield gpu.uuid, str(gpu.index), devices.gpu_use(self._c, view, gpu)[0]
        for slot in view.inventory.slots:
            yield slot, "", devices.device_use(self._c, view, slot)[0]
