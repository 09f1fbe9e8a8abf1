"""What scalers are told: routers' demand first, engines' own figures second, each with its age and source."""

import collections
import math
from collections.abc import Iterable, Mapping
from typing import Final

from supervisord_cp.central.fleet import NodeView
from supervisord_cp.central.routers import RouterView
from supervisord_cp.model.base import DeploymentName, DeviceId, Incarnation, Value
from supervisord_cp.model.instance import EngineLoad, InstanceStatus
from supervisord_cp.model.router import DeploymentDemand, RouterReport
from supervisord_cp.model.signal import MISSING, Signal, SignalName, SignalSource, measured, together

RATE_WINDOW_S: Final = 10.0
"""Arrivals are counted over this time."""
INFLIGHT_WINDOW_S: Final = 2.0
"""Requests in flight are averaged over this time: at one moment there may be none between two of many."""
LATENCY_WINDOW_S: Final = 60.0
"""Latencies are averaged over this time."""
ROUTER_STALE_S: Final = 5.0
ROUTER_FORGOTTEN_S: Final = 60.0
"""A router that has been gone for this long no longer makes the demand unknown."""


class _Count(Value, frozen=True, kw_only=True):
    """A value at a moment."""

    at: float
    value: float


class _Rate:
    """The rate of a counter over a window; a counter that falls has begun anew."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._counts: collections.deque[_Count] = collections.deque()
        # Worked out when a count comes, and asked for at least as often.
        self._per_s: float | None = None
        self._span_s = self._counted_at = 0.0

    def add(self, at: float, value: float) -> None:
        counts = self._counts
        if counts and value < counts[-1].value:
            counts.clear()
            self._per_s = None
        if counts and at <= counts[-1].at:
            return
        counts.append(_Count(at=at, value=value))
        while len(counts) > 2 and at - counts[1].at >= self._window_s:
            counts.popleft()
        first = counts[0]
        if at > first.at:
            self._span_s, self._counted_at = at - first.at, at
            self._per_s = (value - first.value) / self._span_s

    def signal(self, now: float, source: SignalSource, stale_after_s: float) -> Signal:
        """Per second; missing until there are two counts."""
        if self._per_s is None:
            return measured(None, source=source, detail="counted once so far")
        return measured(
            self._per_s,
            source=source,
            age_s=now - self._counted_at,
            window_s=self._span_s,
            stale_after_s=stale_after_s,
        )


class Signals:
    """Remembers counters between reports; everything else is read from the reports themselves."""

    def __init__(self) -> None:
        self._arrivals: dict[tuple[str, DeploymentName], _Rate] = {}
        self._prompt: dict[tuple[str, DeploymentName], _Rate] = {}
        self._inflight: dict[tuple[str, DeploymentName], _Rate] = {}
        self._generated: dict[Incarnation, _Rate] = {}
        self._preempted: dict[Incarnation, _Rate] = {}
        self._busy: dict[DeviceId, _Count] = {}
        """How busy each GPU was, as a ratio, when it was read last."""
        self._seen: dict[Incarnation, EngineLoad] = {}
        """What was last added to the sums of its deployment."""
        self._sums: dict[DeploymentName, dict[str, float]] = {}
        self._summed_at: dict[DeploymentName, float] = {}
        self._sum_rates: dict[tuple[DeploymentName, str], _Rate] = {}

    # what is counted

    def router_reported(self, report: RouterReport, now: float) -> None:
        """Count a router's totals."""
        for demand in report.demand:
            key = (report.router, demand.deployment)
            self._arrivals.setdefault(key, _Rate(RATE_WINDOW_S)).add(now, demand.arrivals_total)
            self._prompt.setdefault(key, _Rate(RATE_WINDOW_S)).add(now, demand.prompt_tokens_total)
            if demand.inflight_s_total is not None:
                self._inflight.setdefault(key, _Rate(INFLIGHT_WINDOW_S)).add(now, demand.inflight_s_total)

    def node_reported(self, view: NodeView, now: float) -> None:
        """Count engines' totals, at the moments they were read."""
        for gpu in view.gpus:
            if gpu.utilization is not None:
                self._busy[gpu.uuid] = _Count(at=now - gpu.age_ms / 1000, value=gpu.utilization)
            else:
                self._busy.pop(gpu.uuid, None)
        for status in view.instances.values():
            load = status.load
            if load is None or not status.incarnation:
                continue
            at = now - load.age_ms / 1000
            self._add_up(status, load, at)
            for rates, total in (
                (self._generated, load.generation_tokens_total),
                (self._preempted, load.preemptions_total),
            ):
                if total is not None:
                    rates.setdefault(status.incarnation, _Rate(RATE_WINDOW_S)).add(at, total)

    def _add_up(self, status: InstanceStatus, load: EngineLoad, at: float) -> None:
        """Add what an engine's counters grew by to its deployment's; one that falls has begun anew."""
        before = self._seen.get(status.incarnation)
        self._seen[status.incarnation] = load
        if before is None:
            return
        self._summed_at[status.deployment] = at
        sums = self._sums.setdefault(status.deployment, dict.fromkeys(_COUNTERS, 0.0))
        for field in _COUNTERS:
            old, new = getattr(before, field), getattr(load, field)
            if old is not None and new is not None:
                sums[field] += new - old if new >= old else new

    def forget(self, routers: Iterable[str], incarnations: Iterable[Incarnation]) -> None:
        """Keep only what still exists."""
        names, alive = set(routers), set(incarnations)
        for by_router in (self._arrivals, self._prompt, self._inflight):
            for key in [k for k in by_router if k[0] not in names]:
                del by_router[key]
        for incarnation in [i for i in self._seen if i not in alive]:
            del self._seen[incarnation]
        for by_incarnation in (self._generated, self._preempted):
            for incarnation in [i for i in by_incarnation if i not in alive]:
                del by_incarnation[incarnation]

    # what is known

    def deployment(
        self,
        name: DeploymentName,
        routers: Mapping[str, RouterView],
        replicas: Iterable[Mapping[str, Signal]],
        now: float,
    ) -> dict[str, Signal]:
        """The signals of a deployment. Demand is known only if every router that counts has told it."""
        out = self._demand(name, routers, now)
        serving = list(replicas) or [_NOTHING_SERVES]
        for signal in (
            SignalName.RUNNING,
            SignalName.WAITING,
            SignalName.GENERATION_TOKENS_PER_S,
            SignalName.PREEMPTIONS_PER_S,
        ):
            out[signal] = together(*(r.get(signal, MISSING) for r in serving))
        for signal in (SignalName.KV_CACHE_USAGE, SignalName.GPU_UTILIZATION):
            out[signal] = _mean([r.get(signal, MISSING) for r in serving])
        return out | self._of_engines(name, out[SignalName.RUNNING], now)

    def _of_engines(self, name: DeploymentName, heard: Signal, now: float) -> dict[str, Signal]:
        """What engines' counters say together; known while all of them are heard."""
        rates = {field: self._sum_rate(name, field, now) for field in _COUNTERS}
        if not heard.known:
            return dict.fromkeys(
                (SignalName.PREFILL_TOKENS_PER_S, SignalName.TTFT_S, SignalName.ITL_S), heard
            )
        return {
            SignalName.PREFILL_TOKENS_PER_S: rates["prompt_tokens_total"],
            SignalName.TTFT_S: _ratio(rates["ttft_total_s"], rates["ttft_count"], heard),
            SignalName.ITL_S: _ratio(rates["itl_total_s"], rates["itl_count"], heard),
        }

    def _sum_rate(self, name: DeploymentName, field: str, now: float) -> Signal:
        sums = self._sums.get(name)
        if sums is None:
            return measured(None, source=SignalSource.AGENT, detail="no engine has reported twice")
        rate = self._sum_rates.setdefault((name, field), _Rate(_COUNTERS[field]))
        rate.add(self._summed_at[name], sums[field])
        return rate.signal(now, SignalSource.AGENT, ROUTER_STALE_S)

    def _demand(
        self, name: DeploymentName, routers: Mapping[str, RouterView], now: float
    ) -> dict[str, Signal]:
        counting = [r for r in routers.values() if now - r.heard_at < ROUTER_FORGOTTEN_S or r.connected]
        if not counting:
            none = measured(None, source=SignalSource.ROUTER, detail="no router is connected")
            return dict.fromkeys(_DEMAND, none)
        out: dict[str, Signal] = {}
        for signal, field in _DEMAND_FIELDS.items():
            out[signal] = together(*(_of_router(r, name, field, now) for r in counting))
        out[SignalName.INFLIGHT] = together(*(self._inflight_of(r, name, now) for r in counting))
        for signal, rates in (
            (SignalName.REQUESTS_PER_S, self._arrivals),
            (SignalName.PROMPT_TOKENS_PER_S, self._prompt),
        ):
            parts = []
            for router in counting:
                rate = rates.get((router.id, name))
                parts.append(
                    MISSING if rate is None else rate.signal(now, SignalSource.ROUTER, ROUTER_STALE_S)
                )
            out[signal] = together(*parts)
        return out

    def _inflight_of(self, router: RouterView, name: DeploymentName, now: float) -> Signal:
        """The mean where the router tells it, else what it had at the moment."""
        rate = self._inflight.get((router.id, name))
        mean = MISSING if rate is None else rate.signal(now, SignalSource.ROUTER, ROUTER_STALE_S)
        told = _of_router(router, name, "inflight", now)
        return mean if told.known and mean.known else told

    def replica(self, status: InstanceStatus, view: NodeView, now: float) -> dict[str, Signal]:
        """What is measured on one replica."""
        load = status.load
        if load is None:
            return {}
        age, agent = load.age_ms / 1000 + (view.age_s(now) or 0.0), SignalSource.AGENT
        out: dict[str, Signal] = {
            SignalName.RUNNING: measured(load.running, source=agent, age_s=age),
            SignalName.WAITING: measured(load.waiting, source=agent, age_s=age),
            SignalName.KV_CACHE_USAGE: measured(load.kv_cache_usage, source=agent, age_s=age),
        }
        read = [self._busy[device] for device in status.devices if device in self._busy]
        if read:
            out[SignalName.GPU_UTILIZATION] = measured(
                sum(one.value for one in read) / len(read),
                source=agent,
                age_s=now - min(one.at for one in read),
            )
        for signal, rates in (
            (SignalName.GENERATION_TOKENS_PER_S, self._generated),
            (SignalName.PREEMPTIONS_PER_S, self._preempted),
        ):
            rate = rates.get(status.incarnation)
            if rate is not None:
                out[signal] = rate.signal(now, agent, ROUTER_STALE_S)
        return out


_NOTHING_SERVES: Final[Mapping[str, Signal]] = dict.fromkeys(
    (
        SignalName.RUNNING,
        SignalName.WAITING,
        SignalName.GENERATION_TOKENS_PER_S,
        SignalName.PREEMPTIONS_PER_S,
        SignalName.KV_CACHE_USAGE,
        SignalName.GPU_UTILIZATION,
    ),
    measured(None, source=SignalSource.AGENT, detail="no replica serves"),
)
"""What is measured where there is nothing to measure."""
_COUNTERS: Final[Mapping[str, float]] = {
    "prompt_tokens_total": RATE_WINDOW_S,
    "ttft_total_s": LATENCY_WINDOW_S,
    "ttft_count": LATENCY_WINDOW_S,
    "itl_total_s": LATENCY_WINDOW_S,
    "itl_count": LATENCY_WINDOW_S,
}
"""Counters of engines that are added up, with the time over which their rates are taken."""
_DEMAND_FIELDS: Final[Mapping[SignalName, str]] = {
    SignalName.QUEUED: "queued",
    SignalName.QUEUED_TOKENS: "queued_tokens",
}
_DEMAND: Final = (
    *_DEMAND_FIELDS,
    SignalName.INFLIGHT,
    SignalName.REQUESTS_PER_S,
    SignalName.PROMPT_TOKENS_PER_S,
)


def _of_router(router: RouterView, name: DeploymentName, field: str, now: float) -> Signal:
    if router.report is None:
        return measured(None, source=SignalSource.ROUTER, detail=f"router {router.id} has not reported")
    demand = next((d for d in router.report.demand if d.deployment == name), None)
    value = 0 if demand is None else _field(demand, field)
    return measured(
        value, source=SignalSource.ROUTER, age_s=now - router.heard_at, stale_after_s=ROUTER_STALE_S
    )


def _field(demand: DeploymentDemand, field: str) -> int:
    value = getattr(demand, field)
    return int(value)


def _mean(parts: list[Signal]) -> Signal:
    total = together(*parts)
    if not total.known:
        return total
    return measured(total.value / len(parts), source=total.source, age_s=total.age_s, window_s=total.window_s)


def _ratio(total: Signal, count: Signal, heard: Signal) -> Signal:
    """A mean; without anything to count it is no number, as a ratio without traffic is."""
    if not total.known or not count.known:
        return count if total.known else total
    value, detail = math.nan, "no token came in that time"
    if count.value > 0:
        value, detail = total.value / count.value, ""
    return measured(
        value, source=SignalSource.AGENT, age_s=heard.age_s, window_s=count.window_s, detail=detail
    )
