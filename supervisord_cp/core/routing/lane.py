"""One deployment as the router serves it: its instances, its line, its policies, its learned figures."""

import math
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any, Final, Generic

from msgspec.structs import replace

from supervisord_cp.core.routing.choice import Choice
from supervisord_cp.core.routing.decisions import Decisions
from supervisord_cp.core.routing.ejection import Ejections
from supervisord_cp.core.routing.estimate import WorkEstimate
from supervisord_cp.core.routing.lane_policies import Here, LanePolicies
from supervisord_cp.core.routing.leases import Account, Ledger
from supervisord_cp.core.routing.pipeline import Pipeline
from supervisord_cp.core.routing.queue import Item, WaitingLine
from supervisord_cp.core.routing.rejection import QueuePlace, RejectReason
from supervisord_cp.core.routing.rotation import Rotation
from supervisord_cp.core.routing.scheduled_line import ScheduledLine
from supervisord_cp.core.routing.shadow import RouterShadow, SchedulerShadow
from supervisord_cp.model.base import Incarnation
from supervisord_cp.model.fleet import RoutedDeployment, RoutedInstance
from supervisord_cp.model.instance import InstanceState
from supervisord_cp.model.request import RoutingRequest
from supervisord_cp.model.router import DeploymentDemand
from supervisord_cp.policy.context import NO_RESULTS, Context, QueueContext
from supervisord_cp.policy.routing import Outcome

LOOK_AHEAD: Final = 32
"""Requests that are looked at when the first one must wait for instances that others do not want."""
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
        self,
        deployment: RoutedDeployment,
        policies: LanePolicies,
        line: WaitingLine[Item],
        rng: Random,
        here: Here = Here(),  # noqa: B008  # a constant
        *,
        warmup_s: float = 0.0,
    ) -> None:
        """`warmup_s`: how long a new instance gets less than its share."""
        self.deployment = deployment
        self.policies = policies
        self.line: Final = ScheduledLine(line, policies.scheduler, _beside(policies.shadow))
        self.work: Final = WorkEstimate()
        self.decisions: Final = Decisions()
        self.arrivals = 0
        self.prompt_tokens = 0
        self.inflight_s = 0.0
        """Requests in flight, summed up over time."""
        self._looked_at: float | None = None
        self.completed = 0
        self.failed = 0
        self.changed_at = 0.0
        """When waiting for room became waiting for an instance, or the other way round."""
        self.queries = NO_RESULTS
        """Named PromQL results, for policies."""
        self._rng: Final = rng
        self._here: Final = here
        self._instances: tuple[RoutedInstance, ...] = ()
        self._accounts: dict[Incarnation, Account] = {}
        self.rotation: Final = Rotation(warmup_s)
        self._take_over(policies)

    @property
    def watched(self) -> bool:
        """Whether policies want to know what becomes of requests."""
        return bool(self._watching)

    def use(self, policies: LanePolicies, now: float) -> None:
        """From now on these decide."""
        self.policies = policies
        self._router.retire()
        if self._shadow is not None:
            self._shadow.retire()
        self.line.use(policies.scheduler, _beside(policies.shadow), self._queue_context(now))
        self._take_over(policies)

    def refresh(
        self, instances: Sequence[RoutedInstance], ledger: Ledger, ejections: Ejections, now: float
    ) -> None:
        """Take over the snapshot's instances and who is ejected."""
        was_reachable = self.reachable
        before, asleep = self._accounts, _asleep(self._instances)
        self._instances = tuple(instances)
        found = [account for i in instances if (account := ledger.get(i.incarnation)) is not None]
        self._accounts = {account.incarnation: account for account in found}
        self.rotation.refresh(found, ejections, now)
        if self.reachable is not was_reachable:
            self.changed_at = now
        for incarnation in (before.keys() - self._accounts.keys()) | (_asleep(instances) - asleep):
            self._forget(incarnation, now)

    @property
    def inflight(self) -> int:
        """Open leases on its instances, draining ones too."""
        return sum(account.inflight for account in self._accounts.values())

    @property
    def reachable(self) -> bool:
        """Whether an instance is there that takes requests, full or not."""
        return bool(self.rotation.usable or self.rotation.trying)

    def has_room(self, now: float) -> bool:
        """Whether a request could go out now."""
        return any(account.has_room(now) for account in self.rotation.offered(now))

    def choose(self, item: Item, now: float, fail_open: bool = False, may_try: bool = True) -> Account | None:
        """Where a request goes; None when no instance that may have it has room.

        `fail_open`: when every instance is ejected, choose among them all the same (suspect ourselves).
        `may_try`: an instance that is on trial may have it, and does when nobody else tries it.
        """
        accounts = self.rotation.offered(now, may_try)
        if fail_open and not accounts and not self.reachable:
            accounts = self.rotation.routable
        if len(accounts) > 1 and self.line.scheduling.restricts:
            accounts = self._allowed(item, accounts, now)
        candidates = tuple([offer for account in accounts if (offer := account.offer(now)) is not None])
        if not candidates:
            return None
        request = item.request
        if len(candidates) == 1:
            choice = Choice(candidate=candidates[0], candidates=candidates)
            self.decisions.note(request.id, now, choice, candidates, ())
        else:
            context = self._context(now)
            router = self._router
            choice = router.choose(request, candidates, context)
            if self._shadow is not None:
                self._shadow.compare(request, candidates, choice.candidate, context)
            if self.rotation.trying and self.rotation.usable:
                choice = self._with_trial(choice)
            self.decisions.note(request.id, now, choice, candidates, router.names)
        for account in accounts:
            if account.candidate is choice.candidate:
                return account
        return self._accounts[choice.candidate.instance.incarnation]

    def look(self, now: float) -> None:
        """To be called a few times a second: many requests that begin and end together look like none between
        two of them, so what is told is the mean of many looks. Old decisions are forgotten."""
        if self._looked_at is not None:
            self.inflight_s += self.inflight * (now - self._looked_at)
        self._looked_at = now
        self.decisions.forget(now)

    def arrived(self, item: Item, now: float) -> None:
        """A request has come."""
        self.arrivals += 1
        self.prompt_tokens += item.prompt_tokens
        if self.line.scheduling.counts:
            self.line.scheduling.arrived(item.waiting, self._queue_context(now))

    def wait(self, item: Item, now: float, *, front: bool = False) -> None:
        """Let a request wait; `front` for one that was on its way before."""
        self.line.add(item, self._queue_context(now), front=front)

    def next_out(self, now: float) -> tuple[Item, Account] | None:
        """The request that can leave the line now, and where it goes; None: nobody can."""
        item = self.line.first()
        if item is None:
            return None
        may_try = not (self.rotation.trying and self.line.returned(item))
        account = self.choose(item, now, may_try=may_try)
        if account is not None:
            return item, account
        if self.line.scheduling.restricts and self.has_room(now):
            for item in self.line.next_ones(LOOK_AHEAD):
                if (account := self.choose(item, now)) is not None:
                    return item, account
        return None

    def look_over(self, now: float) -> list[Item]:
        """Have the line put in order again where that is due; those of it that had better be refused."""
        context = self._queue_context(now)
        self.line.refresh(context)
        return self.line.hopeless(context)

    def comes_too_late(self, item: Item, now: float) -> bool:
        """Whether a request that would have to wait cannot be answered in time."""
        context = self._queue_context(now)
        if self.line.scheduling.hopeless(item.waiting, context):
            return True
        deadline = item.waiting.deadline
        if deadline is None:
            return False
        wait = self.estimated_wait_s(now, self.line.ahead(item, context))
        return wait is not None and now + wait > deadline

    def pinned(self, incarnation: Incarnation) -> Account | None:
        """The account of one incarnation, if it still serves (draining too: what it stores is there only)."""
        account = self._accounts.get(incarnation)
        if account is None or not account.instance.url:
            return None
        return account if account.instance.routable or account.instance.draining else None

    # --- what becomes of requests, for policies that want to know

    def dispatched(self, request: RoutingRequest, account: Account, now: float) -> None:
        """A request goes to an instance."""
        for pipeline in self._watching:
            pipeline.dispatched(request, account.candidate, self._context(now))

    def first_byte(self, request: RoutingRequest, account: Account, now: float) -> None:
        """Its answer begins."""
        for pipeline in self._watching:
            pipeline.first_byte(request, account.candidate, self._context(now))

    def done(self, request: RoutingRequest, account: Account, outcome: Outcome, now: float) -> None:
        """It is done with there."""
        for pipeline in self._watching:
            pipeline.completed(request, account.candidate, outcome, self._context(now))

    # --- figures

    @property
    def hopeless(self) -> bool:
        """Whether waiting is of no use: nothing stays, nothing starts, and waiting makes nothing start."""
        if self.deployment.wanted or self.deployment.wakes:
            return False
        return all(instance.draining or instance.state in _LEAVING for instance in self._instances)

    def absence(self) -> RejectReason:
        """What to tell a request that has waited in vain for an instance."""
        states = [instance.state for instance in self._instances]
        if self.deployment.wanted > 0 or any(state in _COMING for state in states):
            return RejectReason.WAKING
        if any(instance.draining or instance.state in _LEAVING for instance in self._instances):
            return RejectReason.DRAINING
        return RejectReason.NO_CAPACITY

    def estimated_wait_s(self, now: float, ahead: int | None = None) -> float | None:
        """How long a request that joins the line now will wait, with so many before it (default: all);
        None when nobody can tell."""
        if not self.reachable:
            return self.deployment.start_estimate_s
        before = len(self.line) if ahead is None else ahead
        return self.work.seconds * (before + 1) / max(1, self._slots(now))

    def retry_after_s(self, now: float, ahead: int | None = None) -> int:
        """The same as whole seconds for `Retry-After`, between 1 and 600."""
        wait = self.estimated_wait_s(now, ahead)
        return 5 if wait is None else max(1, min(600, math.ceil(wait)))

    def place_of(self, item: Item, now: float) -> QueuePlace:
        """Where a request stands in the line, or would stand."""
        if item in self.line:
            position = self.line.position(item)
        else:
            position = self.line.ahead(item, self._queue_context(now)) + 1
        return QueuePlace(position=position, wait_s=self.estimated_wait_s(now, position - 1))

    def demand(self) -> DeploymentDemand:
        """What the router reports of it."""
        return DeploymentDemand(
            deployment=self.deployment.name,
            queued=len(self.line),
            queued_tokens=self.line.tokens,
            inflight=self.inflight,
            inflight_s_total=self.inflight_s,
            arrivals_total=self.arrivals,
            prompt_tokens_total=self.prompt_tokens,
            completed_total=self.completed,
            failed_total=self.failed,
        )

    # --- inside

    def _take_over(self, policies: LanePolicies) -> None:
        """What is asked for every request, ready to hand."""
        self.needs_prefix = policies.needs_prefix
        self._router = policies.router
        self._shadow = policies.shadow if isinstance(policies.shadow, RouterShadow) else None
        self._watching = tuple(_watching(policies))

    def _allowed(self, item: Item, accounts: Sequence[Account], now: float) -> list[Account]:
        """Where the scheduler lets a request go."""
        candidates = tuple(account.candidate for account in accounts)
        kept = self.line.scheduling.instances(item.waiting, candidates, self._queue_context(now))
        allowed = {candidate.instance.incarnation for candidate in kept}
        return [account for account in accounts if account.incarnation in allowed]

    def _with_trial(self, choice: Choice) -> Choice:
        """The same with an instance that is on trial as the pick, if the filters have left one."""
        for candidate in choice.candidates:
            if self._accounts[candidate.instance.incarnation].on_trial:
                return replace(choice, candidate=candidate)
        return choice

    def _forget(self, incarnation: Incarnation, now: float) -> None:
        self._router.reset(incarnation, now)
        if self._shadow is not None:
            self._shadow.policy.reset(incarnation, now)

    def _slots(self, now: float) -> int:
        return sum(account.slots(now) for account in self._serving)

    @property
    def _serving(self) -> Sequence[Account]:
        """Those that take requests; on trial only where nobody else does."""
        return self.rotation.usable or self.rotation.trying

    def _context(self, now: float) -> Context[None]:
        work = self.work
        return Context(
            now=now,
            random=self._rng,
            params=None,
            request_tokens=work.request_tokens,
            request_s=work.seconds,
            node=self._here.node,
            zone=self._here.zone,
            pace=work.pace,
            queries=self.queries,
        )

    def _queue_context(self, now: float) -> QueueContext[None]:
        work, slo_ms = self.work, self.deployment.slo_ttft_ms
        return QueueContext(
            now=now,
            random=self._rng,
            params=None,
            request_tokens=work.request_tokens,
            request_s=work.seconds,
            node=self._here.node,
            zone=self._here.zone,
            pace=work.pace,
            queries=self.queries,
            queued=len(self.line),
            queued_tokens=self.line.tokens,
            inflight=self.inflight,
            slots=self._slots(now) if all(account.limited for account in self._serving) else 0,
            slo_ttft_s=None if slo_ms is None else slo_ms / 1000,
        )


def _asleep(instances: Sequence[RoutedInstance]) -> set[Incarnation]:
    """Those that have given up their caches, although they will come back as the same incarnation."""
    return {i.incarnation for i in instances if i.state is InstanceState.SLEEPING}


def _watching(policies: LanePolicies) -> Iterator[Pipeline]:
    """Those that are told of every request."""
    if policies.router.watches:
        yield policies.router
    if isinstance(policies.shadow, RouterShadow) and policies.shadow.policy.watches:
        yield policies.shadow.policy


def _beside(shadow: RouterShadow | SchedulerShadow[Any] | None) -> SchedulerShadow[Any] | None:
    return shadow if isinstance(shadow, SchedulerShadow) else None
