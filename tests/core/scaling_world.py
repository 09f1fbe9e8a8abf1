"""A deployment on virtual time: arrivals, a queue, replicas that take time to load, and the control step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from supervisord_cp.core.scaling.scalers import Scaler
from supervisord_cp.core.scaling.step import step
from supervisord_cp.model.scaling import (
    Behavior,
    ScaleBounds,
    ScaleDecision,
    ScaleLimits,
    ScaleRecord,
    ScaleState,
    ScaleView,
)
from supervisord_cp.model.signal import ReplicaPhase, ReplicaView, Signal
from tests.core.scaling_kit import HPA_DEFAULTS, START, demand, signal

TOKENS = 500.0
"""Prompt tokens of a request."""


@dataclass
class Replica:
    id: str
    ordered_at: float
    failed: bool = False


@dataclass
class World:
    """Each ready replica takes in `capacity` prompt tokens per second and loads for `load_s` before."""

    scalers: Sequence[Scaler]
    low: int = 1
    high: int = 10
    behavior: Behavior = HPA_DEFAULTS
    idle_s: float = 600.0
    load_s: float = 60.0
    capacity: float = 1000.0
    gpus_left: int | None = None
    overlay: Callable[["World"], dict[str, Signal]] = lambda world: {}
    """Signals that are not what they should be."""
    queries: Callable[["World"], dict[str, Signal]] = lambda world: {}
    now: float = START
    queued: float = 0.0
    served: float = 0.0
    """Prompt tokens of the last step."""
    arriving: float = 0.0
    replicas: list[Replica] = field(default_factory=list)
    ordered: int = 0
    state: ScaleState = field(default_factory=ScaleState)
    wanted: int | None = None
    log: list[tuple[float, ScaleDecision]] = field(default_factory=list)
    records: list[ScaleRecord] = field(default_factory=list)

    def begin(self, ready: int) -> "World":
        """With replicas that have been ready for long."""
        for _ in range(ready):
            self._order(self.now - 3600.0)
        self.ordered = 0
        self.wanted = ready
        return self

    def run(self, seconds: float, arriving: float, every: float = 1.0) -> "World":
        """Pass time under a load in prompt tokens per second, with a control step every so often."""
        end = self.now + seconds - 1e-9
        while self.now < end:
            self.now += every
            self.arriving = arriving
            work = self.queued + arriving * every
            self.served = min(work, len(self.ready) * self.capacity * every)
            self.queued = work - self.served
            self.decide()
        return self

    def decide(self) -> ScaleDecision:
        limits = ScaleLimits(behavior=self.behavior, idle_s=self.idle_s, gpus_left=self.gpus_left)
        record, self.state = step(self.view(), self.scalers, limits, self.state)
        decision = record.decision
        self.records.append(record)
        self.log.append((self.now, decision))
        self.wanted = decision.wanted
        while len(self.replicas) < self.wanted:
            self._order(self.now)
        self.replicas = self.replicas[: self.wanted]
        return decision

    def restart_central(self) -> None:
        """Everything that is only in memory is gone."""
        self.state, self.wanted = ScaleState(), None

    @property
    def ready(self) -> list[Replica]:
        return [r for r in self.replicas if not r.failed and self.now - r.ordered_at >= self.load_s]

    @property
    def numbers(self) -> list[int]:
        return [decision.wanted for _, decision in self.log]

    def changes(self) -> list[tuple[float, int]]:
        """(seconds since the start, replicas added or taken away) of every change."""
        return [(at - START, d.wanted - d.current) for at, d in self.log if d.wanted != d.current]

    def view(self) -> ScaleView:
        ready = self.ready
        busy = min(1.0, self.served / self.capacity / max(1, len(ready)))
        signals = {
            **demand(
                queued=self.queued / TOKENS,
                inflight=8.0 * busy * len(ready),
                rps=self.arriving / TOKENS,
                tokens=self.arriving,
                queued_tokens=self.queued,
                generated=self.served / 4,
            ),
            "prefill_capacity": signal(self.capacity),
        }
        return ScaleView(
            deployment="chat",
            configured=self.low,
            bounds=ScaleBounds(min=self.low, max=self.high),
            now_s=self.now,
            wanted=self.wanted,
            ready=len(ready),
            starting=len(self.replicas) - len(ready),
            replicas=tuple(self._seen(replica) for replica in self.replicas),
            signals={**signals, **self.overlay(self)},
            queries=self.queries(self),
            slo_ttft_s=2.0,
            start_s=self.load_s,
        )

    def _seen(self, replica: Replica) -> ReplicaView:
        age = self.now - replica.ordered_at
        if replica.failed:
            return ReplicaView(id=replica.id, phase=ReplicaPhase.FAILED, age_s=age)
        if age < self.load_s:
            return ReplicaView(id=replica.id, phase=ReplicaPhase.STARTING, age_s=age)
        return ReplicaView(
            id=replica.id, age_s=age, changed_s=age - self.load_s, signals={"kv_cache_usage": signal(0.3)}
        )

    def _order(self, at: float) -> None:
        self.ordered += 1
        self.replicas.append(Replica(id=f"chat-{self.ordered}", ordered_at=at))
