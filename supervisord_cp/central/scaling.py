"""How many replicas each deployment gets: asks the scalers, applies the envelope, remembers why."""

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from supervisord_cp.central.events import EventLog
from supervisord_cp.central.memory import Memory
from supervisord_cp.central.publish import routed_deployment
from supervisord_cp.central.scale_states import ScaleStates
from supervisord_cp.central.scale_view import Known, configured, limits_of, scale_view
from supervisord_cp.central.signals import Signals
from supervisord_cp.central.start_stages import StartStages
from supervisord_cp.config.launch import launch_spec
from supervisord_cp.config.schema import Config, DeploymentConfig
from supervisord_cp.core.scaling.room import Wanted
from supervisord_cp.core.scaling.scalers import Scaler, bind
from supervisord_cp.core.scaling.step import step
from supervisord_cp.errors import UsageError
from supervisord_cp.model.assignment import Assignment
from supervisord_cp.model.base import DeploymentName
from supervisord_cp.model.event import Event, Severity
from supervisord_cp.model.fleet import PolicyUse, RoutedDeployment
from supervisord_cp.model.instance import InstanceStatus
from supervisord_cp.model.launch import EngineKind, LaunchSpec, RunState, SleepLevel, revision_of
from supervisord_cp.model.reason import Reason, ReasonCode, render
from supervisord_cp.model.scaling import (
    ScaleDecision,
    ScalePlan,
    ScaleProposal,
    ScaleRecord,
    ScaleView,
)
from supervisord_cp.plugin_host.catalog import builtin_specs
from supervisord_cp.policy import PolicyKind, PolicySpec
from supervisord_cp.policy.scaling import cannot_tell

UNPLACED_FOR_S: Final = 3.0
"""Agents that are just connecting are not worth an event."""
SWEEP_S: Final = 60.0
"""How often counters of engines and routers that are gone are forgotten."""
FIXED: Final = (PolicyUse(use="fixed"),)


class Scaling:
    """Decisions of the last step with their records, and how long starts take."""

    def __init__(self, memory: Memory) -> None:
        self.decisions: dict[DeploymentName, ScaleDecision] = {}
        self.records: dict[DeploymentName, ScaleRecord] = {}
        self.unplaced: dict[DeploymentName, list[Reason]] = {}
        self.signals = Signals()
        self.known: Mapping[str, PolicySpec] = builtin_specs()
        """The policies by name."""
        self.counts: dict[tuple[DeploymentName, str, str], int] = {}
        """Changes of the wanted number by (deployment, direction, reason)."""
        self._states = ScaleStates(memory)
        self._bound: dict[DeploymentName, tuple[tuple[PolicyUse, ...], list[Scaler]]] = {}
        self._unplaced_since: dict[DeploymentName, float] = {}
        self._said: dict[DeploymentName, Reason] = {}
        self._swept_s = 0.0
        self._starts = StartStages()

    def use_policies(self, known: Mapping[str, PolicySpec]) -> None:
        """Ask these from now on."""
        self.known = known
        self._bound.clear()

    def specs(self, config: Config) -> dict[DeploymentName, LaunchSpec]:
        """The launch specification of every deployment that launches something."""
        return {
            DeploymentName(d.name): launch_spec(d) for d in config.deployments if d.engine != EngineKind.NONE
        }

    def revision(self, spec: LaunchSpec) -> str:
        return revision_of(spec)

    def decide(self, config: Config, memory: Memory, known: Known, events: EventLog) -> list[Wanted]:
        """The number for every deployment, those of high priority first."""
        specs = self.specs(config)
        budget = config.central.gpu_budget or None
        mine: dict[DeploymentName, list[Assignment]] = {}
        for assignment in memory.assignments.values():
            mine.setdefault(assignment.deployment, []).append(assignment)
        wanted: list[Wanted] = []
        before, self.decisions = self.decisions, {}
        for deployment in sorted(config.deployments, key=lambda d: -d.priority):
            name = DeploymentName(deployment.name)
            if name not in specs:
                continue
            decided = before.get(name)
            state = self._states.resume(name, known.now)
            view = scale_view(
                deployment,
                [a for a in mine.get(name, []) if not a.asleep],
                known,
                self.signals,
                wanted=None if decided is None else decided.wanted,
                kept=self._states.wanted(name),
                now_s=self._states.time(name, known.now),
                start_s=self._states.start_s(name),
                taken_in=state.history.taken_in,
            )
            limits = limits_of(deployment, memory.overrides.get(name), budget, view)
            record, state = step(view, self._scalers(deployment), limits, state)
            self._states.proceed(record, state)
            memory.decisions.keep(record)
            decision = record.decision
            if budget is not None:
                budget -= decision.wanted * deployment.gpus
            self.decisions[name], self.records[name] = decision, record
            if decided is not None and decided.wanted != decision.wanted:
                self._note(name, decided.wanted, record, events)
            if name not in memory.holds:
                wanted.append(_wanted(deployment, decision.wanted, specs[name]))
        self._states.end_step(set(specs))
        if known.now - self._swept_s >= SWEEP_S:
            self._swept_s = known.now
            self._starts.forget_all_but(known.statuses)
            self.signals.forget(known.routers, (status.incarnation for _, status in known.statuses.values()))
        return wanted

    def _scalers(self, deployment: DeploymentConfig) -> Sequence[Scaler]:
        uses = FIXED if deployment.autoscale is None else deployment.autoscale.scalers or FIXED
        name = DeploymentName(deployment.name)
        bound = self._bound.get(name)
        if bound is not None and bound[0] is uses:
            return bound[1]
        out = []
        for use in uses:
            try:
                out.append(bind(use, self.known))
            except UsageError as error:
                out.append(_unusable(use, str(error)))
        self._bound[name] = (uses, out)
        return out

    def _note(self, name: DeploymentName, before: int, record: ScaleRecord, events: EventLog) -> None:
        decision = record.decision
        direction = "up" if decision.wanted > before else "down"
        key = (name, direction, decision.reason.code.value)
        self.counts[key] = self.counts.get(key, 0) + 1
        events.add(
            Event(
                kind="deployment.scaled",
                subject=name,
                message=f"{before} -> {decision.wanted}: {render(decision.reason)}",
                reason=decision.reason,
                data={"before": before, "after": decision.wanted},
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

    def routed(
        self, config: Config, memory: Memory, compared: Collection[DeploymentName] = ()
    ) -> tuple[RoutedDeployment, ...]:
        """The deployments for routers; `compared` are those whose revisions are."""
        out = []
        stopped: dict[DeploymentName, int] = {}
        for assignment in memory.assignments.values():
            if assignment.run is RunState.STOPPED:
                stopped[assignment.deployment] = stopped.get(assignment.deployment, 0) + 1
        for deployment in config.deployments:
            name = DeploymentName(deployment.name)
            decision = self.decisions.get(name)
            asked = 0 if decision is None else decision.wanted
            wanted = max(0, asked - stopped.get(name, 0))
            held = name in memory.holds or (asked > 0 and wanted == 0)
            wanted = 0 if held else wanted
            seconds, watched = self.start_seconds(name), name in compared
            out.append(routed_deployment(deployment, wanted, seconds, held=held, compared=watched))
        return tuple(out)

    def observe(self, before: InstanceStatus | None, after: InstanceStatus, now: float) -> None:
        """Learn how long starts take from the states and phases that pass by."""
        stages = self._starts.observe(before, after, now)
        if stages is not None:
            self._states.learn_start(after.deployment, stages)

    def at_zero(self, name: DeploymentName) -> bool:
        """Whether a deployment is to have no replica."""
        decision = self.decisions.get(name)
        return decision is not None and decision.wanted == 0

    def start_seconds(self, name: DeploymentName) -> float | None:
        """How long a start of this deployment takes, as learned."""
        return self._states.start_s(name)

    def start_stages(self, name: DeploymentName) -> Mapping[str, float]:
        """Seconds in each stage of a start, as learned; empty while none was seen."""
        return self._states.stages(name)


def _wanted(deployment: DeploymentConfig, replicas: int, spec: LaunchSpec) -> Wanted:
    """What is wanted of a deployment: those that its maximum leaves room for may sleep."""
    scale = deployment.autoscale
    most = configured(deployment) if scale is None else scale.max
    return Wanted(
        deployment=DeploymentName(deployment.name),
        replicas=replicas,
        spec=spec,
        nodes=deployment.nodes,
        asleep=0 if spec.sleep is SleepLevel.NONE else max(0, most - replicas),
        sleep_s=deployment.sleep_s,
    )


def _unusable(use: PolicyUse, error: str) -> Scaler:
    """A scaler that cannot be used knows nothing: the number is held, and the reason is shown."""

    def answer(view: ScaleView) -> ScaleProposal:
        reason = Reason(code=ReasonCode.SCALER_FAILED, params={"policy": use.use, "error": error})
        return cannot_tell(use.use, reason)

    return Scaler(use=use, spec=PolicySpec(name=use.use, kind=PolicyKind.SCALER, target=answer))
