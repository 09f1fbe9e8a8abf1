"""Central's `/metrics`: the fleet as central knows it, and what its routers say of themselves."""

import asyncio
from collections.abc import Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from supervisord_cp.central.controller import Controller
from supervisord_cp.central.links import CallFailed, Peer
from supervisord_cp.central.queries import Queries
from supervisord_cp.model.gpu import GpuHealth
from supervisord_cp.model.instance import InstanceState
from supervisord_cp.model.reason import ReasonCode

PREFIX: Final = "supervisord_cp_"
ROUTER_ANSWER_S: Final = 2.0


class Metrics:
    """Makes the page on demand; a scrape costs what it prints."""

    def __init__(self, controller: Controller) -> None:
        self._registry = CollectorRegistry()
        self._fleet = _Fleet(controller)
        self._registry.register(self._fleet)

    def refused(self) -> None:
        """Count a request that was not let in."""
        self._fleet.refused += 1

    def watch(self, queries: Queries) -> None:
        """Show what Prometheus fails to answer."""
        self._fleet.queries = queries

    async def page(self, routers: Mapping[str, Peer]) -> bytes:
        """The text of a scrape. A router that does not answer in time is left out."""
        texts = await asyncio.gather(*(_ask(peer) for peer in routers.values()))
        own = generate_latest(self._registry)
        return own + merge([(r, t) for r, t in zip(routers, texts, strict=True) if t]).encode()


async def _ask(peer: Peer) -> str:
    try:
        async with asyncio.timeout(ROUTER_ANSWER_S):
            return "".join([piece async for piece in peer.call("metrics", {})])
    except (TimeoutError, CallFailed):
        return ""


def merge(pages: list[tuple[str, str]]) -> str:
    """Pages of several routers as one: samples of a family together, each with a `router` label."""
    heads: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for router, text in pages:
        family = ""
        for line in text.splitlines():
            if line.startswith("#"):
                family = line.split(" ", 3)[2] if line.count(" ") >= 2 else family
                head = heads.setdefault(family, [])
                if line not in head:
                    head.append(line)
            elif line:
                samples.setdefault(family, []).append(_labelled(line, router))
    out = []
    for family, head in heads.items():
        out += head + samples.get(family, [])
    return "\n".join(out) + "\n" if out else ""


def _labelled(line: str, router: str) -> str:
    label = 'router="' + router.replace("\\", "\\\\").replace('"', '\\"') + '"'
    brace = line.find("{")
    space = line.find(" ")
    if 0 <= brace < space or (brace >= 0 and space < 0):
        closing = line[brace + 1]
        return f"{line[: brace + 1]}{label}{'' if closing == '}' else ','}{line[brace + 1 :]}"
    return f"{line[:space]}{{{label}}}{line[space:]}"


class _Fleet(Collector):
    def __init__(self, controller: Controller) -> None:
        self._c = controller
        self.queries: Queries | None = None
        self.refused = 0

    def collect(self) -> Iterator[Metric]:
        yield from self._deployments()
        yield from self._nodes()
        yield CounterMetricFamily(
            PREFIX + "auth_failures", "Requests to the control listener not let in.", value=self.refused
        )
        failures = 0 if self.queries is None else self.queries.failures
        yield CounterMetricFamily(
            PREFIX + "prometheus_query_failures", "Queries that Prometheus did not answer.", value=failures
        )

    def _deployments(self) -> Iterator[Metric]:
        counts: dict[tuple[str, InstanceState], int] = {}
        states = self._c.states()
        restarts = CounterMetricFamily(
            PREFIX + "instance_restarts", "Unrequested exits.", labels=["deployment", "instance_id", "node"]
        )
        for view, status in self._c.statuses().values():
            key = (status.deployment, states[status.id])
            counts[key] = counts.get(key, 0) + 1
            restarts.add_metric([status.deployment, status.id, view.name], status.restarts)
        instances = GaugeMetricFamily(
            PREFIX + "instances", "Instances by state.", labels=["deployment", "state"]
        )
        for (deployment, state), count in counts.items():
            instances.add_metric([deployment, state.value], count)
        wanted = GaugeMetricFamily(PREFIX + "replicas_wanted", "Replicas decided.", labels=["deployment"])
        unplaceable = GaugeMetricFamily(
            PREFIX + "unplaceable_replicas", "Replicas that cannot be placed.", labels=["deployment"]
        )
        start = GaugeMetricFamily(
            PREFIX + "instance_start_seconds", "How long a start takes, as learned.", labels=["deployment"]
        )
        slo = GaugeMetricFamily(
            PREFIX + "slo_target_seconds", "Configured objective.", labels=["deployment", "kind"]
        )
        for config in self._c.config.deployments:
            if config.slo.ttft_ms is not None:
                slo.add_metric([config.name, "ttft"], config.slo.ttft_ms / 1000)
            if config.slo.itl_ms is not None:
                slo.add_metric([config.name, "itl"], config.slo.itl_ms / 1000)
        decisions = CounterMetricFamily(
            PREFIX + "scale_decisions",
            "Changes of the wanted number.",
            labels=["deployment", "direction", "reason"],
        )
        for change, count in self._c.scaling.counts.items():
            decisions.add_metric(list(change), count)
        hold = GaugeMetricFamily(
            PREFIX + "scaler_hold", "1 while no signal can be trusted.", labels=["deployment", "reason"]
        )
        for name, decision in self._c.scaling.decisions.items():
            if decision.reason.code is ReasonCode.HOLD:
                hold.add_metric([name, str(decision.reason.params.get("why", ""))], 1)
            wanted.add_metric([name], decision.wanted)
            unplaceable.add_metric([name], len(self._c.scaling.unplaced.get(name, [])))
            if (seconds := self._c.scaling.start_seconds(name)) is not None:
                start.add_metric([name], seconds)
        yield from (instances, wanted, unplaceable, decisions, hold, start, slo, restarts)

    def _nodes(self) -> Iterator[Metric]:
        age = GaugeMetricFamily(PREFIX + "report_age_seconds", "Since a node's last report.", labels=["node"])
        used = GaugeMetricFamily(
            PREFIX + "gpu_memory_used_bytes", "GPU memory in use.", labels=["node", "gpu", "uuid"]
        )
        busy = GaugeMetricFamily(
            PREFIX + "gpu_utilization_ratio", "GPU utilization.", labels=["node", "gpu", "uuid"]
        )
        heat = GaugeMetricFamily(
            PREFIX + "gpu_temperature_celsius", "GPU temperature.", labels=["node", "gpu", "uuid"]
        )
        power = GaugeMetricFamily(PREFIX + "gpu_power_watts", "GPU power.", labels=["node", "gpu", "uuid"])
        health = GaugeMetricFamily(
            PREFIX + "gpu_health", "1 for the state a GPU is in.", labels=["node", "gpu", "uuid", "state"]
        )
        xids = CounterMetricFamily(
            PREFIX + "gpu_xid_errors",
            "Errors that the driver reported since the agent was started.",
            labels=["node", "gpu", "uuid", "xid"],
        )
        cost = GaugeMetricFamily(PREFIX + "gpu_cost_per_hour", "Cost of one GPU-hour.", labels=["node"])
        for view in self._c.nodes.values():
            seconds = view.age_s(self._c.clock.now())
            if seconds is not None:
                age.add_metric([view.name], seconds)
            if view.inventory.gpu_cost_per_hour is not None:
                cost.add_metric([view.name], view.inventory.gpu_cost_per_hour)
            for gpu in view.gpus:
                labels = [view.name, str(gpu.index), gpu.uuid]
                for family, value in (
                    (used, gpu.memory_used),
                    (busy, gpu.utilization),
                    (heat, gpu.temperature_c),
                    (power, gpu.power_w),
                ):
                    if value is not None:
                        family.add_metric(labels, value)
                for state in GpuHealth:
                    health.add_metric([*labels, state.value], state is gpu.health)
                for xid, count in gpu.signs.xids.items():
                    xids.add_metric([*labels, str(xid)], count)
        yield from (age, used, busy, heat, power, health, xids, cost)
