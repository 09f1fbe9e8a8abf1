"""The fleet as this router serves it: the snapshot it follows, the leases it holds, who it has found dead."""

import logging
from collections.abc import Iterable
from random import Random
from typing import TYPE_CHECKING, Final

from supervisord_cp.core.routing.ejection import Cause, Ejections, may_eject
from supervisord_cp.core.routing.lane import Lane
from supervisord_cp.core.routing.lane_policies import Here, LanePolicies
from supervisord_cp.core.routing.leases import Account, Ledger
from supervisord_cp.core.routing.queue import WaitingLine
from supervisord_cp.core.routing.sharing import Entries
from supervisord_cp.core.routing.table import RoutingTable, index
from supervisord_cp.model.base import DeploymentName, Incarnation
from supervisord_cp.model.fleet import FleetSnapshot, RoutedDeployment
from supervisord_cp.model.router import LeaseCount, Outcomes, OutOfRotation
from supervisord_cp.plugin_host.binding import Binder
from supervisord_cp.plugin_host.registry import Registry
from supervisord_cp.policy.context import NO_RESULTS, QueryResults

if TYPE_CHECKING:
    from supervisord_cp.router.flow import Flow

log = logging.getLogger(__name__)

LOOK_S: Final = 0.002
"""What other processes have open is at most this old when an instance is chosen,"""
LOOK_EACH_S: Final = 20e-6
"""and so much for each instance: looking costs a microsecond or two. Limits are always looked up anew."""
_LINE: Final = "line "
"""Before the names of lines, which are no incarnations."""


class Fleet:
    """Changes with snapshots and with what connections tell; asks nobody and waits for nothing."""

    def __init__(
        self,
        *,
        queue_requests: int,
        queue_bytes: int,
        eject_s: float = 10.0,
        warmup_s: float = 0.0,
        rng: Random,
        binder: Binder,
        here: Here = Here(),  # noqa: B008  # a constant
        entries: Entries | None = None,
    ) -> None:
        """`entries`: what the other processes of this router have; None: there are none."""
        self.table = RoutingTable()
        self.ledger = Ledger(entries)
        self._entries = entries
        self._look_at = 0.0
        self.ejections: Final = Ejections(eject_s)
        self.lanes: dict[DeploymentName, Lane[Flow]] = {}
        self.known = False
        """Whether there has been a snapshot."""
        self.binder: Final = binder
        self._queue_requests = queue_requests
        self._queue_bytes = queue_bytes
        self._warmup_s = warmup_s
        self._rng = rng
        self._here = here
        self._queries = NO_RESULTS
        self._bound: dict[DeploymentName, tuple[object, ...]] = {}
        """The versions of the policies that lanes have."""

    def apply(self, snapshot: FleetSnapshot, now: float) -> "list[Lane[Flow]]":
        """Take over a snapshot, as a whole or not at all. Returns the lanes of deployments that it no
        longer has."""
        table = index(snapshot)
        policies = {name: self._rebound(deployment) for name, deployment in table.deployments.items()}
        self.table = table
        self.known = True
        self.ledger.sync(table.limits())
        self.ejections.keep(table.incarnations())
        dropped = [lane for name, lane in self.lanes.items() if name not in table.deployments]
        if self._entries is not None:
            for lane in dropped:
                self._entries.drop(f"{_LINE}{lane.deployment.name}")
        self.lanes = {
            name: self._lane(deployment, policies[name], now)
            for name, deployment in table.deployments.items()
        }
        for name in self.lanes:
            self._refresh(name, now)
        return dropped

    def look(self, now: float) -> None:
        """See what the other processes have open, if that was not done just now."""
        if self._entries is not None and now >= self._look_at:
            self._look_at = now + LOOK_S + LOOK_EACH_S * len(self.table.incarnations())
            self.ledger.look()

    def use_policies(self, registry: Registry, now: float) -> None:
        """Policies, or versions of them, have come or gone: deployments that name them take them over."""
        self.binder.registry = registry
        for lane in self.lanes.values():
            self._lane(lane.deployment, self._rebound(lane.deployment), now)

    def use_queries(self, queries: QueryResults) -> None:
        """Named PromQL results have come."""
        self._queries = queries
        for lane in self.lanes.values():
            lane.queries = queries

    def lane(self, model: str) -> "Lane[Flow] | None":
        """The deployment that clients call so."""
        name = self.table.names.get(model)
        return None if name is None else self.lanes.get(name)

    def only_lane(self) -> "Lane[Flow] | None":
        """The deployment, when there is one only."""
        return next(iter(self.lanes.values())) if len(self.lanes) == 1 else None

    def eject(self, account: Account, cause: Cause, why: str, now: float) -> bool:
        """Send nothing more to an incarnation. False when it was out already, is gone, or enough are out."""
        if account.incarnation not in self.table.incarnations():
            return False
        lane = self.lanes.get(account.instance.deployment)
        if lane is not None:
            others = [a for a in lane.rotation.routable if a is not account]
            out = sum(a.incarnation in self.ejections for a in others)
            if not may_eject(cause, len(lane.rotation.routable), out):
                return False
        if not self.ejections.eject(account.incarnation, now, cause, why):
            return False
        account.vitals.forget()
        self._refresh(account.instance.deployment, now)
        return True

    def try_out(self, incarnation: Incarnation, now: float) -> Account | None:
        """It says that it is well: its account, when it is on trial from now on."""
        account = self.ledger.get(incarnation)
        if not self.ejections.try_out(incarnation, now) or account is None:
            return None
        self._refresh(account.instance.deployment, now)
        return account

    def passed(self, account: Account, now: float) -> bool:
        """A request has shown that it is well. True when it is in rotation again."""
        if not self.ejections.passed(account.incarnation, now):
            return False
        self._refresh(account.instance.deployment, now)
        return True

    def to_probe(self, now: float) -> list[Account]:
        """Ejected incarnations to be tried now."""
        accounts = (self.ledger.get(incarnation) for incarnation in self.ejections.due(now))
        return [account for account in accounts if account is not None and account.instance.routable]

    def leases(self) -> tuple[LeaseCount, ...]:
        """Open work per incarnation; those without any are left out."""
        return tuple(
            LeaseCount(incarnation=account.incarnation, requests=account.inflight, tokens=account.tokens)
            for account in self.ledger.accounts()
            if account.inflight
        )

    def outcomes(self) -> tuple[Outcomes, ...]:
        """How the instances of those deployments answer whose revisions are compared."""
        compared = {name for name, lane in self.lanes.items() if lane.deployment.compared}
        if not compared:
            return ()
        return tuple(
            account.vitals.outcomes(account.incarnation)
            for account in self.ledger.accounts()
            if account.instance.deployment in compared
        )

    def out_of_rotation(self, now: float) -> tuple[OutOfRotation, ...]:
        """What is out or on trial, and why."""
        return tuple(
            OutOfRotation(
                incarnation=out.incarnation,
                cause=out.cause,
                why=out.why,
                for_s=round(now - out.since, 1),
                times=out.times,
                on_trial=out.on_trial,
                trials_left=out.trials_left,
            )
            for out in self.ejections.all()
        )

    def waiting(self) -> "Iterable[Lane[Flow]]":
        """Lanes with requests in line."""
        return [lane for lane in self.lanes.values() if lane.line]

    def _refresh(self, name: DeploymentName, now: float) -> None:
        lane = self.lanes.get(name)
        if lane is not None:
            lane.decisions.snapshot_version = self.table.version
            lane.refresh(self.table.instances[name], self.ledger, self.ejections, now)

    def _rebound(self, deployment: RoutedDeployment) -> LanePolicies | None:
        """The policies of a deployment, made anew; None: its lane has them already."""
        if deployment.name in self.lanes and self.binder.version(deployment) == self._bound[deployment.name]:
            return None
        return self._policies(deployment)

    def _lane(self, deployment: RoutedDeployment, policies: LanePolicies | None, now: float) -> "Lane[Flow]":
        lane = self.lanes.get(deployment.name)
        if lane is None:
            assert policies is not None
            entry = None if self._entries is None else self._entries.row(f"{_LINE}{deployment.name}")
            line: WaitingLine[Flow] = WaitingLine(
                most=self._queue_requests, most_bytes=self._queue_bytes, entry=entry
            )
            lane = Lane(deployment, policies, line, self._rng, self._here, warmup_s=self._warmup_s)
            lane.queries = self._queries
        elif policies is not None:
            lane.use(policies, now)
        self._bound[deployment.name] = self.binder.version(deployment)
        lane.deployment = deployment
        return lane

    def _policies(self, deployment: RoutedDeployment) -> LanePolicies:
        """The policies of a deployment, made anew; what cannot be used is told."""
        before = self.binder.book.problems.get(deployment.name, ())
        policies = self.binder.bind(deployment, self._rng)
        for problem in self.binder.book.problems.get(deployment.name, ()):
            if problem not in before:
                log.error("deployment %s: %s", deployment.name, problem)
        return policies
