"""Roll-outs: which revision of a deployment is wanted, and when a new one goes back to the one before it.

A new revision is compared with its predecessor from the first answer on, until it has given enough of them or
a while has passed since the last replica of the predecessor went. A restart of central ends a comparison.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from msgspec.structs import replace

from supervisord_cp.central.memory import Memory
from supervisord_cp.central.scale_view import Known
from supervisord_cp.core.scaling.rollback import failed_revision
from supervisord_cp.core.scaling.room import Wanted
from supervisord_cp.core.scaling.verdict import ENOUGH, clearly_worse, together
from supervisord_cp.model.assignment import Assignment, BadRevision
from supervisord_cp.model.base import DeploymentName, Incarnation, InstanceId
from supervisord_cp.model.event import Severity
from supervisord_cp.model.instance import InstanceState
from supervisord_cp.model.launch import LaunchSpec, revision_of
from supervisord_cp.model.reason import Reason, ReasonCode
from supervisord_cp.model.router import Outcomes

ON_TRIAL_S: Final = 1800.0
"""How long a revision is compared after the last replica of its predecessor has gone."""

Note = Callable[..., None]


@dataclass(slots=True, kw_only=True)
class _Trial:
    """A new revision and what is known of how it and its predecessor answer."""

    revision: str
    good: LaunchSpec
    """The predecessor."""
    alone_since: float | None = None
    """When the last replica of the predecessor had gone."""
    revisions: dict[Incarnation, str] = field(default_factory=dict)
    outcomes: dict[tuple[str, Incarnation], Outcomes] = field(default_factory=dict)
    """What each router said last."""

    def take(self, deployment: DeploymentName, known: Known) -> None:
        for _, status in known.statuses.values():
            if status.deployment == deployment and status.incarnation:
                self.revisions[status.incarnation] = status.revision
        for router in known.routers.values():
            for outcome in () if router.report is None else router.report.outcomes:
                if outcome.incarnation in self.revisions:
                    self.outcomes[router.id, outcome.incarnation] = outcome

    def of(self, revision: str) -> Outcomes:
        mine = (o for (_, name), o in self.outcomes.items() if self.revisions[name] == revision)
        return together(mine)


class Rollouts:
    """Which revisions have served, which are on trial, and which are given up."""

    def __init__(self, memory: Memory, note: Note) -> None:
        self._memory = memory
        self._note = note
        self._proven: dict[DeploymentName, set[str]] = {}
        self._trials: dict[DeploymentName, _Trial] = {}

    @property
    def compared(self) -> Collection[DeploymentName]:
        """Deployments of which routers have to say how their instances answer."""
        return self._trials.keys()

    def served(self, deployment: DeploymentName, revision: str) -> None:
        """A replica of this revision has become ready."""
        self._proven.setdefault(deployment, set()).add(revision)

    def apply(self, wanted: list[Wanted], known: Known) -> list[Wanted]:
        """What is wanted, with predecessors in the place of revisions that did not come up or are worse."""
        mine: dict[DeploymentName, list[Assignment]] = {}
        for assignment in self._memory.assignments.values():
            mine.setdefault(assignment.deployment, []).append(assignment)
        names = {item.deployment for item in wanted}
        for gone in [name for name in self._trials if name not in names]:
            del self._trials[gone]
        return [self._one(item, mine.get(item.deployment, []), known) for item in wanted]

    def _one(self, item: Wanted, mine: Sequence[Assignment], known: Known) -> Wanted:
        revision = revision_of(item.spec)
        bad = self._memory.bad.get(item.deployment)
        if bad is not None and bad.revision != revision:
            self._memory.absolve(item.deployment)
            bad = None
        if bad is None:
            bad = self._judged(item.deployment, revision, mine, known)
        if bad is None:
            return item
        self._trials.pop(item.deployment, None)
        return replace(item, spec=bad.good)

    def _judged(
        self, name: DeploymentName, revision: str, mine: Sequence[Assignment], known: Known
    ) -> BadRevision | None:
        ready = InstanceState.READY
        for served in {a.revision for a in mine if known.states.get(a.id) is ready}:
            self.served(name, served)
        proven = frozenset(self._proven.get(name, ()))
        bad = None
        if revision not in proven:
            bad = failed_revision(mine, revision, _failures(mine, known), proven)
        if bad is not None:
            reason = Reason(code=ReasonCode.ROLLED_BACK, params={"revision": revision})
            bad = replace(bad, reason=reason)
        else:
            bad = self._compared(name, revision, mine, known)
        if bad is not None:
            self._memory.condemn(bad)
            self._note("deployment.rolled_back", name, severity=Severity.ERROR, reason=bad.reason)
        return bad

    def _compared(
        self, name: DeploymentName, revision: str, mine: Sequence[Assignment], known: Known
    ) -> BadRevision | None:
        trial = self._trial(name, revision, mine, known)
        if trial is None:
            return None
        trial.take(name, known)
        new = trial.of(revision)
        reason = clearly_worse(new, trial.of(revision_of(trial.good)))
        if reason is not None:
            return BadRevision(deployment=name, revision=revision, good=trial.good, reason=reason)
        if new.total >= ENOUGH or (
            trial.alone_since is not None and known.now - trial.alone_since >= ON_TRIAL_S
        ):
            del self._trials[name]
        return None

    def _trial(
        self, name: DeploymentName, revision: str, mine: Sequence[Assignment], known: Known
    ) -> _Trial | None:
        """The trial of the revision that is wanted, begun when there is another one to compare it with."""
        trial = self._trials.get(name)
        older = [a for a in mine if a.revision != revision and a.spec is not None and not a.lost]
        if trial is None or trial.revision != revision:
            self._trials.pop(name, None)
            proven = self._proven.get(name, ())
            before = next((a for a in older if a.revision in proven), None)
            if before is None or before.spec is None:
                return None
            trial = self._trials[name] = _Trial(revision=revision, good=before.spec)
            params: dict[str, str | int | float] = {"revision": revision, "before": before.revision}
            self._note("deployment.rollout", name, reason=Reason(code=ReasonCode.ROLLING_OUT, params=params))
        if older:
            trial.alone_since = None
        elif trial.alone_since is None:
            trial.alone_since = known.now
            reason = Reason(code=ReasonCode.ROLLED_OUT, params={"revision": revision})
            self._note("deployment.rolled_out", name, reason=reason)
        return trial


def _failures(mine: Sequence[Assignment], known: Known) -> Mapping[InstanceId, int]:
    found = {a.id: known.statuses.get(a.id) for a in mine}
    return {name: entry[1].restarts for name, entry in found.items() if entry is not None}
