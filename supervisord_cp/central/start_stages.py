"""How long the stages of a start take, by the states and phases that agents report."""

from collections.abc import Collection

from supervisord_cp.model.base import InstanceId, Value
from supervisord_cp.model.instance import START_STAGES, InstanceState, InstanceStatus, Phase
from supervisord_cp.model.reason import ReasonCode

Stages = dict[str, float]
"""Seconds in each of `START_STAGES`."""


class _UnderWay(Value, frozen=True, kw_only=True):
    """A start that is not over."""

    stage: str
    since: float
    seconds: Stages
    """Of the stages before this one."""

    def until(self, now: float) -> Stages:
        """Seconds in each stage so far."""
        here = self.seconds.get(self.stage, 0.0) + max(0.0, now - self.since)
        return {**self.seconds, self.stage: here}


class StartStages:
    """The starts under way in the whole fleet."""

    def __init__(self) -> None:
        self._under_way: dict[InstanceId, _UnderWay] = {}

    def observe(self, before: InstanceStatus | None, after: InstanceStatus, now: float) -> Stages | None:
        """Seconds in each stage of the start that this change ends; None: it ends none that was watched."""
        known = self._under_way.pop(after.id, None)
        if before is None:
            known = None  # whatever it did meanwhile was not seen
        if after.reason.code is ReasonCode.WAKING:
            return None  # that takes seconds, and says nothing of a start
        match after.state:
            case InstanceState.GATED:
                if known is not None and known.stage != InstanceState.GATED:
                    known = None  # that start came to nothing
                self._enter(after.id, InstanceState.GATED, known, now)
            case InstanceState.STARTING:
                self._enter(after.id, _stage(after.phase, known), known, now)
            case InstanceState.READY if known is not None and known.stage != InstanceState.GATED:
                seconds = known.until(now)
                return {stage: seconds.get(stage, 0.0) for stage in START_STAGES}
        return None

    def forget_all_but(self, instances: Collection[InstanceId]) -> None:
        """The others are gone, and their starts came to nothing."""
        self._under_way = {name: one for name, one in self._under_way.items() if name in instances}

    def _enter(self, name: InstanceId, stage: str, known: _UnderWay | None, now: float) -> None:
        seconds = {} if known is None else known.until(now)
        self._under_way[name] = _UnderWay(stage=stage, since=now, seconds=seconds)


def _stage(phase: Phase, known: _UnderWay | None) -> str:
    """Where no phase is told, or one after the last, the start is where it was."""
    if phase in START_STAGES:
        return phase
    return Phase.SPAWNED if known is None or known.stage == InstanceState.GATED else known.stage
