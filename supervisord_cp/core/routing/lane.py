"""One deployment as the router serves it: its instances, its waiting line, its learned figures."""

import math
from collections.abc import Sequence
from random import Random
from typing import Final, Generic

from supervisord_cp.core.routing.ejection import Ejections
from supervisord_cp.core.routing.estimate import WorkEstimate
from supervisord_cp.core.routing.leases import Account, Ledger
from supervisord_cp.core.routing.pipeline import Pipeline
from supervisord_cp.core.routing.queue import Item, WaitingLine
from supervisord_cp.core.routing.rejection import RejectReason
from supervisord_cp.model.base import Incarnation
from supervisord_cp.model.fleet import RoutedDeployment, RoutedInstance
from supervisord_cp.model.instance import InstanceState
from supervisord_cp.model.request import RoutingRequest
from supervisord_cp.model.router import DeploymentDemand
from supervisord_cp.policy.routing import RouteContext

_NOTABLE: Final = 0.01
_LEAVING: Final = (InstanceState.DRAINING, InstanceState.STOPPING)
_COMING: Final = (
    InstanceState.GATED,
    InstanceState.STARTING,
    InstanceState.CRASHED,
    InstanceState.BACKOFF,
    InstanceState.SLEEPING,
    InstanceState.RELEASING,
)


class Lane(Generic[Item]):
    """Its parts change with the snapshot; it itself lives as long as the deployment."""

    def __init__(
        self, deployment: RoutedDeployment, pipeline: Pipeline, line: WaitingLine[Item], rng: Random
    ) -> None:
        self.deployment = deployment
        self.pipeline = pipeline
        self.line: Final = line
        self.work: Final = WorkEstimate()
        self.arrivals = 0
        self.prompt_tokens = 0
        self.completed = 0
        self.failed = 0
        self.changed_at = 0.0
        """When waiting for room became waiting for an instance, or the other way round."""
        self._instances: tuple[RoutedInstance, ...] = ()
        self._accounts: dict[Incarnation, Account] = {}
        self._routable: list[Account] = []
        self._usable: list[Account] = []
        self._context = RouteContext(rng=rng, request_tokens=self.work.request_tokens)

    def refresh(
        self, instances: Sequence[RoutedInstance], ledger: Ledger, ejections: Ejections, now: float
    ) -> None:
        """Take over the snapshot's instances and who is ejected."""
        was_reachable = self.reachable
        self._instances = tuple(instances)
        found = [account for i in instances if (account := ledger.get(i.incarnation)) is not None]
        self._accounts = {account.incarnation: account for account in found}
        self._routable = [account for account in found if account.instance.routable]
        self._usable = [account for account in self._routable if account.incarnation not in ejections]
        if self.reachable is not was_reachable:
            self.changed_at = now

    @property
    def inflight(self) -> int:
        """Open leases on its instances, draining ones too."""
        return sum(account.inflight for account in self._accounts.values())

    @property
    def reachable(self) -> bool:
        """Whether an instance is there that takes requests, full or not."""
        return bool(self._usable)

    def has_room(self, now: float) -> bool:
        """Whether a request could go out now."""
        return any(account.has_room(now) for account in self._usable)

    def choose(self, request: RoutingRequest, now: float, *, fail_open: bool = False) -> Account | None:
        """Where the request goes; None when no instance has room.

        `fail_open`: when every instance is ejected, choose among them all the same (suspect ourselves).
        """
        accounts = self._usable or (self._routable if fail_open else self._usable)
        roomy = [account for account in accounts if account.has_room(now)]
        if len(roomy) < 2:
            return roomy[0] if roomy else None
        chosen = self.pipeline.choose(request, [account.candidate for account in roomy], self._known())
        return self._accounts[chosen.instance.incarnation]

    def _known(self) -> RouteContext:
        """The context of a decision; made again when a mean has moved, not for every request."""
        tokens = self.work.request_tokens
        if abs(tokens - self._context.request_tokens) > _NOTABLE * tokens:
            self._context = RouteContext(rng=self._context.rng, request_tokens=tokens)
        return self._context

    def pinned(self, incarnation: Incarnation) -> Account | None:
        """The account of one incarnation, if it still serves (draining too: what it stores is there only)."""
        account = self._accounts.get(incarnation)
        if account is None or not account.instance.url:
            return None
        return account if account.instance.routable or account.instance.draining else None

    @property
    def hopeless(self) -> bool:
        """Whether waiting is of no use: nothing runs, nothing starts, and waiting makes nothing start."""
        deployment = self.deployment
        return not (self._instances or deployment.wanted or deployment.wakes)

    def absence(self) -> RejectReason:
        """What to tell a request that has waited in vain for an instance."""
        states = [instance.state for instance in self._instances]
        if self.deployment.wanted > 0 or any(state in _COMING for state in states):
            return RejectReason.WAKING
        if any(instance.draining or instance.state in _LEAVING for instance in self._instances):
            return RejectReason.DRAINING
        return RejectReason.NO_CAPACITY

    def estimated_wait_s(self, now: float) -> float | None:
        """How long a request that joins the line now will wait; None when nobody can tell."""
        if not self._usable:
            return self.deployment.start_estimate_s
        slots = sum(account.slots(now) for account in self._usable)
        return self.work.seconds * (len(self.line) + 1) / max(1, slots)

    def retry_after_s(self, now: float) -> int:
        """The same as whole seconds for `Retry-After`, between 1 and 600."""
        wait = self.estimated_wait_s(now)
        return 5 if wait is None else max(1, min(600, math.ceil(wait)))

    def demand(self) -> DeploymentDemand:
        """What the router reports of it."""
        return DeploymentDemand(
            deployment=self.deployment.name,
            queued=len(self.line),
            queued_tokens=self.line.tokens,
            inflight=self.inflight,
            arrivals_total=self.arrivals,
            prompt_tokens_total=self.prompt_tokens,
            completed_total=self.completed,
            failed_total=self.failed,
        )
