"""What scaling carries from one step to the next, over restarts of central too."""

from typing import Final

from msgspec.structs import replace

from supervisord_cp.central.memory import Memory
from supervisord_cp.central.start_stages import Stages
from supervisord_cp.model.base import DeploymentName
from supervisord_cp.model.instance import InstanceState
from supervisord_cp.model.scaling import KeptScaling, ScaleRecord, ScaleState

KEEP_EVERY_S: Final = 5.0
"""How much of what a window has seen a crash may cost; changes are kept at once."""
MOST_KEPT: Final = 16
"""Deployments that are kept for their age in one step: the others wait, so that no step takes much longer."""


class ScaleStates:
    """State, time and learned figures of each deployment.

    Each deployment has a time of its own, which goes on after a restart where it was kept: what a window
    has seen counts as long as before, and neither the wall clock nor the host's uptime matters. Only how
    long nothing was asked for begins anew, because nobody watched.
    """

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._states: dict[DeploymentName, ScaleState] = {}
        self._ahead_s: dict[DeploymentName, float] = {}
        """What a deployment's time is ahead of the clock."""
        self._kept = 0
        """Deployments that this step has kept for their age."""
        self._start_s: dict[DeploymentName, float] = {}
        self._stages: dict[DeploymentName, Stages] = {}
        for name, kept in memory.scaling.items():
            if kept.start_s is not None:
                self._start_s[name] = kept.start_s
            if kept.stages:
                self._stages[name] = dict(kept.stages)

    def resume(self, name: DeploymentName, now: float) -> ScaleState:
        """The state of a deployment; `now` is the clock's."""
        state = self._states.get(name)
        if state is not None:
            return state
        kept = self._memory.scaling.get(name)
        if kept is None:
            state = ScaleState()
        else:
            self._ahead_s[name] = kept.now_s - now
            state = replace(kept.state, history=replace(kept.state.history, idle_since_s=None))
        self._states[name] = state
        return state

    def time(self, name: DeploymentName, now: float) -> float:
        """The time of a deployment, which only its state is compared with."""
        return now + self._ahead_s.get(name, 0.0)

    def wanted(self, name: DeploymentName) -> int | None:
        """The number that was decided last, in this life of central or before."""
        kept = self._memory.scaling.get(name)
        return None if kept is None else kept.wanted

    def proceed(self, record: ScaleRecord, state: ScaleState) -> None:
        """Take over what a step leaves behind."""
        name, before = record.decision.deployment, self._memory.scaling.get(record.decision.deployment)
        self._states[name] = state
        now = record.view.now_s
        changed = (
            before is None or before.wanted != record.decision.wanted or _asked(before.state) != _asked(state)
        )
        old = before is not None and not 0 <= now - before.now_s < KEEP_EVERY_S
        if changed or (old and self._kept < MOST_KEPT):
            self._kept += not changed
            self._memory.keep_scaling(
                KeptScaling(
                    deployment=name,
                    wanted=record.decision.wanted,
                    state=state,
                    now_s=now,
                    start_s=self._start_s.get(name),
                    stages=self._stages.get(name, {}),
                )
            )

    def learn_start(self, name: DeploymentName, stages: Stages) -> None:
        """The stages of a start took this long: half of what is known is made of the newest."""
        seconds = sum(stages.values()) - stages.get(InstanceState.GATED, 0.0)
        self._start_s[name] = _learned(self._start_s.get(name), seconds)
        known = self._stages.get(name, {})
        self._stages[name] = {stage: _learned(known.get(stage), took) for stage, took in stages.items()}

    def start_s(self, name: DeploymentName) -> float | None:
        """How long a start takes, as learned."""
        return self._start_s.get(name)

    def stages(self, name: DeploymentName) -> Stages:
        """Seconds in each stage of a start, as learned; empty while none was seen."""
        return self._stages.get(name, {})

    def end_step(self, names: set[DeploymentName]) -> None:
        """All of `names` have had their turn. Deployments that are not configured any more are forgotten."""
        self._kept = 0
        for name in [n for n in self._memory.scaling if n not in names]:
            self._memory.forget_scaling(name)
            self._states.pop(name, None)


def _learned(known: float | None, newest: float) -> float:
    return newest if known is None else 0.5 * known + 0.5 * newest


def _asked(state: ScaleState) -> int | None:
    """What was recommended last."""
    found = state.history.recommendations
    return found[-1].replicas if found else None
