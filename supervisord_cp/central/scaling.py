"""How many replicas each deployment gets: asks the scalers, applies the envelope, remembers why."""

import logging
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from supervisord_cp.builtin.placers.spread import spread
from supervisord_cp.builtin.scalers.fixed import FixedParams, fixed
from supervisord_cp.central import fleet
from supervisord_cp.central.events import EventLog
from supervisord_cp.central.memory import Memory
from supervisord_cp.central.publish import routed_deployment
from supervisord_cp.config.launch import launch_spec
from supervisord_cp.config.schema import Config, DeploymentConfig
from supervisord_cp.core.scaling.envelope import decide
from supervisord_cp.core.scaling.placement import NodeCapacity
from supervisord_cp.core.scaling.reconcile import Wanted
from supervisord_cp.model.base import DeploymentName, DeviceId, InstanceId, NodeName
from supervisord_cp.model.event import Event, Severity
from supervisord_cp.model.fleet import RoutedDeployment
from supervisord_cp.model.instance import InstanceState, InstanceStatus
from supervisord_cp.model.launch import EngineKind, LaunchSpec, revision_of
from supervisord_cp.model.reason import Reason, ReasonCode, render
from supervisord_cp.model.scaling import (
    ScaleBounds,
    ScaleDecision,
    ScaleLimits,
    ScalePlan,
    ScaleProposal,
    ScaleView,
)
from supervisord_cp.policy import declared

log = logging.getLogger(__name__)

UNBOUNDED: Final = 1_000_000
UNPLACED_FOR_S: Final = 3.0
"""Agents that are just connecting are not worth an event."""
_READY: Final = (InstanceState.READY, InstanceState.UNKNOWN, InstanceState.UNLISTED)


class Scaling:
    """Decisions of the last step, and how long starts take."""

    def __init__(self) -> None:
        self.decisions: dict[DeploymentName, ScaleDecision] = {}
        self.unplaced: dict[DeploymentName, list[Reason]] = {}
        self._unplaced_since: dict[DeploymentName, float] = {}
        self._said: dict[DeploymentName, Reason] = {}
        self.counts: dict[tuple[DeploymentName, str, str], int] = {}
        """Changes of the wanted number by (deployment, direction, reason)."""
        self._starting: dict[InstanceId, float] = {}
        self._start_s: dict[DeploymentName, float] = {}

    def policies(self) -> list[tuple[str, str, str]]:
        """(kind, name, summary) of the policies that this central can use."""
        known = [spec for spec in (declared(fixed), declared(spread)) if spec is not None]
        return [(spec.kind.value, spec.name, spec.summary) for spec in known]

    def specs(self, config: Config) -> dict[DeploymentName, LaunchSpec]:
        """The launch specification of every deployment that launches something."""
        return {
            DeploymentName(d.name): launch_spec(d) for d in config.deployments if d.engine != EngineKind.NONE
        }

    def revision(self, spec: LaunchSpec) -> str:
        return revision_of(spec)

    def configured(self, deployment: DeploymentConfig) -> int:
        """What the configuration asks for before any policy speaks."""
        if deployment.engine == EngineKind.NONE:
            return 0
        return deployment.replicas if deployment.autoscale is None else deployment.autoscale.min

    def decide(
        self,
        config: Config,
        memory: Memory,
        states: Mapping[InstanceId, InstanceState],
        events: EventLog,
    ) -> list[Wanted]:
        """The number for every deployment, those of high priority first."""
        specs = self.specs(config)
        budget = config.central.gpu_budget or None
        wanted: list[Wanted] = []
        made: dict[DeploymentName, ScaleDecision] = {}
        for deployment in sorted(config.deployments, key=lambda d: -d.priority):
            name = DeploymentName(deployment.name)
            if name not in specs:
                continue
            view = self._view(deployment, memory, states)
            limits = ScaleLimits(
                override=memory.overrides.get(name),
                gpus_per_replica=deployment.gpus,
                gpus_left=budget,
            )
            decision, _ = decide(view, _proposals(deployment, view), limits)
            if budget is not None:
                budget -= decision.wanted * deployment.gpus
            made[name] = decision
            self._note(name, decision, events)
            if name not in memory.holds:
                wanted.append(
                    Wanted(
                        deployment=name,
                        replicas=decision.wanted,
                        spec=specs[name],
                        nodes=deployment.nodes,
                    )
                )
        self.decisions = made
        return wanted

    def _view(
        self, deployment: DeploymentConfig, memory: Memory, states: Mapping[InstanceId, InstanceState]
    ) -> ScaleView:
        mine = [a for a in memory.assignments.values() if a.deployment == deployment.name and a.counts]
        ready = sum(states.get(a.id) in _READY for a in mine)
        scale = deployment.autoscale
        bounds = (
            ScaleBounds(min=0, max=UNBOUNDED) if scale is None else ScaleBounds(min=scale.min, max=scale.max)
        )
        return ScaleView(
            deployment=DeploymentName(deployment.name),
            configured=self.configured(deployment),
            bounds=bounds,
            ready=ready,
            starting=len(mine) - ready,
        )

    def _note(self, name: DeploymentName, decision: ScaleDecision, events: EventLog) -> None:
        before = self.decisions.get(name)
        if before is not None and before.wanted != decision.wanted:
            direction = "up" if decision.wanted > before.wanted else "down"
            key = (name, direction, decision.reason.code.value)
            self.counts[key] = self.counts.get(key, 0) + 1
            events.add(
                Event(
                    kind="deployment.scaled",
                    subject=name,
                    message=f"{before.wanted} -> {decision.wanted}: {render(decision.reason)}",
                    reason=decision.reason,
                    data={"before": before.wanted, "after": decision.wanted},
                )
            )

    def note_unplaced(self, made: ScalePlan, events: EventLog, now: float) -> None:
        """Remember what cannot be placed; an event when that has lasted a moment and is new."""
        unplaced: dict[DeploymentName, list[Reason]] = {}
        for item in made.unplaced:
            unplaced.setdefault(item.deployment, []).append(item.reason)
        self._unplaced_since = {name: self._unplaced_since.get(name, now) for name in unplaced}
        for name, reasons in unplaced.items():
            lasting = now - self._unplaced_since[name] >= UNPLACED_FOR_S
            if lasting and self._said.get(name) != reasons[0]:
                self._said[name] = reasons[0]
                events.add(
                    Event(
                        kind="deployment.cannot_place",
                        subject=name,
                        severity=Severity.WARNING,
                        message=render(reasons[0]),
                        reason=reasons[0],
                    )
                )
        for name in [n for n in self._said if n not in unplaced]:
            del self._said[name]
        self.unplaced = unplaced

    def capacities(
        self, nodes: Mapping[NodeName, fleet.NodeView], memory: Memory, now: float
    ) -> list[NodeCapacity]:
        """Nodes that can take replicas: connected, reporting, with what is free on them."""
        return [
            _capacity(view, memory)
            for view in nodes.values()
            if view.connected and view.acknowledged and not view.silent(now)
        ]

    def routed(self, config: Config, memory: Memory) -> tuple[RoutedDeployment, ...]:
        """The deployments for routers."""
        out = []
        for deployment in config.deployments:
            name = DeploymentName(deployment.name)
            decision = self.decisions.get(name)
            wanted = 0 if decision is None or name in memory.holds else decision.wanted
            out.append(routed_deployment(deployment, wanted, self._start_s.get(name)))
        return tuple(out)

    def observe(self, before: InstanceStatus | None, after: InstanceStatus, now: float) -> None:
        """Learn how long starts take from the states that pass by."""
        was = None if before is None else before.state
        if after.state is InstanceState.STARTING and was is not InstanceState.STARTING:
            self._starting[after.id] = now
        elif after.state is InstanceState.READY and was is InstanceState.STARTING:
            began = self._starting.pop(after.id, None)
            if began is not None:
                known = self._start_s.get(after.deployment, now - began)
                self._start_s[after.deployment] = 0.5 * known + 0.5 * (now - began)

    def start_seconds(self, name: DeploymentName) -> float | None:
        """How long a start of this deployment takes, as learned."""
        return self._start_s.get(name)


def _proposals(deployment: DeploymentConfig, view: ScaleView) -> Sequence[ScaleProposal]:
    if deployment.autoscale is None:
        return (fixed(view, FixedParams()),)
    out = []
    for use in deployment.autoscale.scalers:
        if use.use == "fixed":
            out.append(_fixed(view, use.params))
        else:
            why = Reason(code=ReasonCode.HOLD, params={"why": f"no scaler named {use.use} is loaded"})
            out.append(ScaleProposal(policy=use.use, replicas=None, reason=why))
    return out


def _fixed(view: ScaleView, written: dict[str, object]) -> ScaleProposal:
    try:
        return fixed(view, msgspec.convert(written, FixedParams))
    except msgspec.ValidationError as error:
        reason = Reason(code=ReasonCode.SCALER_FAILED, params={"policy": "fixed", "error": str(error)})
        return ScaleProposal(policy="fixed", replicas=None, reason=reason)


def _capacity(view: fleet.NodeView, memory: Memory) -> NodeCapacity:
    if view.inventory.device == "cuda":
        devices = tuple(gpu.uuid for gpu in view.gpus if fleet.usable(gpu) and not fleet.foreign(gpu))
        devices = devices if view.gpus_known else ()
    else:
        devices = view.inventory.slots
    taken: set[DeviceId] = set()
    replicas: dict[DeploymentName, int] = {}
    for assignment in memory.assignments.values():
        if assignment.node == view.name:
            taken.update(assignment.devices)
            if assignment.counts:
                replicas[assignment.deployment] = replicas.get(assignment.deployment, 0) + 1
    for status in view.instances.values():
        taken.update(status.devices)
    return NodeCapacity(
        node=view.name,
        zone=view.inventory.zone,
        devices=devices,
        taken=frozenset(taken),
        cordoned=memory.cordoned(view.name),
        cordoned_devices=memory.cordoned_devices(view.name),
        executables=view.inventory.executables,
        replicas=replicas,
    )
