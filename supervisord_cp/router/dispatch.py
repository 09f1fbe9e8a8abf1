"""The core of the router: admits requests, finds each an instance, lets it wait or try again, and accounts.

It knows exchanges and pools, no sockets and no listener.
"""

import itertools
import logging
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from random import Random
from typing import Final

from supervisord_cp.config.schema import RouterConfig
from supervisord_cp.core.routing.ejection import Cause
from supervisord_cp.core.routing.lane_policies import Here
from supervisord_cp.core.routing.leases import Account
from supervisord_cp.core.routing.rate import RateLimiter
from supervisord_cp.core.routing.rejection import QUEUED, RETRY_AFTER, Rejected, Rejection, RejectReason
from supervisord_cp.core.routing.retry import MAX_REFUSALS, Miss, RetryBudget, may_retry
from supervisord_cp.core.routing.usage import Usage
from supervisord_cp.model.base import Incarnation
from supervisord_cp.model.fleet import FleetSnapshot
from supervisord_cp.model.request import RouteDecision
from supervisord_cp.plugin_host.binding import Binder
from supervisord_cp.plugin_host.registry import Registry
from supervisord_cp.policy.routing import Outcome
from supervisord_cp.router import own
from supervisord_cp.router.answers import CLIENT_GONE, reject
from supervisord_cp.router.auth import ApiKeys
from supervisord_cp.router.exchange import Exchange
from supervisord_cp.router.fleet import Fleet
from supervisord_cp.router.flow import SWITCHING, Flow
from supervisord_cp.router.host import Host
from supervisord_cp.router.http1.head import RequestHead
from supervisord_cp.router.intake import check_path, take
from supervisord_cp.router.judge import Judge, Watcher
from supervisord_cp.router.learning import learned
from supervisord_cp.router.metrics import RouterMetrics
from supervisord_cp.router.observers import Observer
from supervisord_cp.router.outgoing import Credentials
from supervisord_cp.router.placement import Placement
from supervisord_cp.router.pools import Pools
from supervisord_cp.router.seat import Shared
from supervisord_cp.router.stored import Home, StoredResponses
from supervisord_cp.router.traits import traits_of
from supervisord_cp.router.turns import Turns

log = logging.getLogger(__name__)

_UNKNOWN: Final = Usage()
_STORED_ID: Final = re.compile(rb'"id"\s*:\s*"(resp_[\w.:\-]{1,128})"')
"""In the first bytes of an answer to `/v1/responses`."""


class Dispatcher(Host):
    """One per router process. All happens on the event loop, in calls of the listener and the pools."""

    def __init__(
        self,
        config: RouterConfig,
        *,
        keys: ApiKeys,
        clock: Callable[[], float],
        call_later: Callable[[float, Callable[[], None]], Callable[[], None]],
        created: int,
        rng: Random,
        watcher: Watcher,
        binder: Binder | None = None,
        here: Here = Here(),  # noqa: B008  # a constant
        shared: Shared | None = None,
        observers: Sequence[Observer] = (),
    ) -> None:
        """`clock` is monotonic seconds; `call_later` returns what cancels the call; `created` (Unix seconds)
        is what the list of models says. `binder` knows the policies; None: the built-in ones. `shared`:
        what we have in common with the other processes of this router; None: there are none. `observers`
        are told of every request."""
        super().__init__(Pools(clock), Credentials(), clock)
        self.credentials.ours = keys.required
        self.fleet = Fleet(
            queue_requests=config.queue_requests,
            queue_bytes=config.queue_bytes,
            eject_s=config.eject_s,
            warmup_s=config.warmup_s,
            rng=rng,
            binder=binder or Binder(),
            here=here,
            entries=None if shared is None else shared.entries,
        )
        self.metrics = RouterMetrics()
        self.draining = False
        self._flows: set[Flow] = set()
        self._rules = object()
        """Another one whenever the answer of `admit` may be another one for the same head."""
        self._config = config
        self._keys = keys
        self._rate = RateLimiter(config.rate_limit_rps) if shared is None else shared.rate
        self._budget = RetryBudget(clock())
        self._stored = StoredResponses()
        self._call_later = call_later
        self._created = created
        self._watcher = watcher
        self._observers = tuple(observers)
        self._judge = Judge(config, self.fleet, self.pools, self.metrics, watcher)
        turns = Turns() if shared is None else shared.turns
        self._placement = Placement(config, self.fleet, self.metrics, self._reject, turns, watcher.missed)
        self._ids = itertools.count(1)
        self._id_prefix = os.urandom(6).hex()

    @property
    def flows(self) -> Collection[Flow]:
        """The requests that are open."""
        return tuple(self._flows)

    @property
    def busy(self) -> bool:
        """Whether requests are open."""
        return bool(self._flows)

    # --- the listener's calls

    def admit(self, head: RequestHead, peer: str) -> str:
        admitted = head.admitted
        if admitted is None or admitted[0] is not self._rules:
            if traits_of(head).is_health:
                return ""
            admitted = head.admitted = (self._rules, self._admit(head))
        if self._config.rate_limit_rps > 0:
            self._check_rate(admitted[1] or peer)
        return admitted[1]

    def serve(self, exchange: Exchange) -> None:
        traits = traits_of(exchange.head)
        request_id = traits.given_id or self._new_id()
        if traits.is_health:
            own.answer_health(exchange, request_id, serving=self.fleet.known and not self.draining)
            return
        now = self.clock()
        try:
            if traits.is_models:
                own.answer_models(exchange, request_id, self.fleet.table, self._created)
                self.metrics.of("").code(200)
                return
            lane, request, asked, pin = take(exchange, self.fleet, self._stored, request_id)
        except Rejected as error:
            self._refuse(exchange, error.rejection, request_id)
            return
        decode = lane.work.decode(request.max_tokens, asked.choices)
        figures = self.metrics.of(request.deployment)
        flow = Flow(self, exchange, lane, request, figures, now, decode, asked.choices, pin)
        lane.arrived(flow, now)
        self._flows.add(flow)
        for one in self._observers:
            one.began(flow)
        self._budget.earn(flow.tokens)
        if request.deadline_ms is not None:
            flow.expiry = self._call_later(request.deadline_ms / 1000, partial(self._too_late, flow))
        self._placement.place(flow, now)

    def refuse(self, exchange: Exchange, rejection: Rejection) -> None:
        self._refuse(exchange, rejection, traits_of(exchange.head).given_id or self._new_id())

    # --- the follower's and the prober's calls

    def apply(self, snapshot: FleetSnapshot) -> None:
        """Take over a snapshot."""
        now = self.clock()
        dropped = self.fleet.apply(snapshot, now)
        self._rules = object()
        self.pools.retain(self.fleet.table.incarnations())
        for lane in dropped:
            for flow in lane.line:
                self._reject(flow, RejectReason.NO_CAPACITY, "The deployment has been removed.")
        self.pump_all()

    def use_policies(self, registry: Registry) -> None:
        """Take over policies that have changed."""
        self.fleet.use_policies(registry, self.clock())
        self.pump_all()

    def explain(self, request: str) -> list[RouteDecision]:
        """Where a request of late went, and why there."""
        now = self.clock()
        return [told for lane in self.fleet.lanes.values() for told in lane.decisions.of(request, now)]

    def use_keys(self, keys: Mapping[Incarnation, str]) -> None:
        """Take over the engines' API keys."""
        self.credentials.replace(keys)

    def eject(self, account: Account, why: str, request: str = "") -> None:
        """It does not answer: send nothing more to it until it does, and has shown that it is well.
        `request` is the id of the one that found out."""
        self._judge.eject(account, Cause.CONNECTION, why, self.clock(), request)

    def try_out(self, incarnation: Incarnation) -> None:
        """An ejected incarnation answers again: requests may show whether it is well."""
        if self.fleet.try_out(incarnation, self.clock()) is not None:
            self.pump_all()

    def pump_all(self) -> None:
        """Send out what waits wherever there is room now."""
        now = self.clock()
        for lane in self.fleet.waiting():
            self._placement.pump(lane, now)

    def tick(self) -> None:
        """To be called a few times a second: deadlines of the queue, and room that time has made."""
        now = self.clock()
        for lane in self.fleet.lanes.values():
            lane.look(now)
        for lane in self.fleet.waiting():
            self._placement.expire(lane, now)
            self._placement.pump(lane, now, in_turn=False)
        self._placement.tell(now)
        self._judge.tick(now)
        self.pools.sweep()

    def refresh_keys(self) -> None:
        """Read the clients' keys again if their file has changed."""
        if self._keys.refresh():
            self._rules = object()

    def end(self) -> None:
        """Let nothing wait any more: what waits is refused, what is on its way may finish."""
        self.draining = True
        for lane in self.fleet.lanes.values():
            self._placement.end(lane)

    def cut_all(self) -> None:
        """Break off everything that is open."""
        for flow in tuple(self._flows):
            flow.cut_off()

    # --- the flows' calls

    def missed(self, flow: Flow, miss: Miss, why: str) -> None:
        now = self.clock()
        account = flow.account
        assert account is not None
        for one in self._observers:
            one.missed(flow, miss, why)
        if miss is Miss.FULL:
            flow.refusals += 1
            account.refused(now)
        elif miss is Miss.STALE:
            self.pools.drop(account.incarnation)
        else:
            flow.losses += miss is Miss.LOST
            self.eject(account, why, flow.request.id)
        self._released(account)
        outcome = Outcome(ok=False, seconds=now - flow.dispatched_at)
        flow.lane.done(flow.request, account, outcome, now)
        died = not self.fleet.ejections.revived(account.incarnation)
        if not may_retry(
            miss,
            losses=flow.losses,
            refusals=flow.refusals,
            died=died,
            work=flow.tokens,
            budget=self._budget,
            now=now,
        ):
            self._reject(flow, RejectReason.UPSTREAM_LOST, f"The engine was lost: {why}.")
            return
        self.metrics.retry(miss)
        if miss is Miss.STALE and account.incarnation not in self.fleet.ejections:
            flow.dispatch(account, now)  # no idle connection is left: a new one tells whether it is there
        else:
            self._placement.place(flow, now, True)

    def exhausted(self, flow: Flow, why: str) -> None:
        assert flow.account is not None
        told = {"request_id": flow.request.id}
        log.error("no connection to %s can be made: %s", flow.account.instance.id, why, extra=told)
        self._reject(flow, RejectReason.NO_CAPACITY, f"The router cannot make more connections: {why}.")

    def may_be_refused(self, flow: Flow) -> bool:
        return flow.refusals + 1 < MAX_REFUSALS and flow.pin is None

    def answered(self, flow: Flow, status: int, data: bytes) -> None:
        now = self.clock()
        account = flow.account
        assert account is not None
        flow.first_byte_at = now
        figures = flow.figures
        figures.first_byte.observe(now - flow.arrived_at)
        figures.overhead.observe(max(0.0, flow.dispatched_at - flow.arrived_at - flow.waited_s))
        if account.ceiling is not None and status < 500:
            account.accepted(now)
        self._judge.began(flow, account, now)
        if flow.traits.stores and (stored := _STORED_ID.search(data)) is not None:
            home = Home(deployment=flow.request.deployment, incarnation=account.incarnation)
            self._stored.remember(stored[1].decode(), home)

    def doubted(self, flow: Flow) -> None:
        def told(why: str) -> None:
            if why:
                flow.disbelieve(why)
            else:
                flow.believe()

        assert flow.account is not None
        self._watcher.doubted(flow.account, told)

    def invalid(self, flow: Flow, why: str) -> None:
        message = f"The engine's answer is not valid HTTP: {why}."
        self._reject(flow, RejectReason.UPSTREAM_INVALID, message)

    def over(self, flow: Flow) -> None:
        now = self.clock()
        lane = flow.lane
        self._flows.discard(flow)
        status, account = flow.status, flow.account
        if lane.line:
            lane.line.remove(flow)
        figures = flow.figures
        figures.code(status)
        figures.duration.observe(now - flow.arrived_at)
        good = status < 400 and not flow.cut
        usage = _UNKNOWN
        if good:
            lane.completed += 1
            if flow.started and status != SWITCHING:
                usage = learned(flow, now)
        elif status != CLIENT_GONE:
            lane.failed += 1
        figures.cut += flow.cut
        if account is not None:
            if account.instance.draining:
                self._released(account)
            if flow.first_byte_at:
                self._judge.ended(flow, account, usage, now)
            if flow.started and lane.watched:
                self._tell_done(flow, usage, now, good=good)
        for one in self._observers:
            one.over(flow, usage, now)
        self._placement.freed(lane, now)

    # --- inside

    def _admit(self, head: RequestHead) -> str:
        key = ""
        if self._keys.required:
            values = head.values
            name = self._keys.name_of(values.get(b"authorization", b""), values.get(b"x-api-key", b""))
            if name is None:
                raise Rejected(RejectReason.BAD_API_KEY, "The API key is missing or not known.")
            key = name
        if not traits_of(head).is_models:
            check_path(head, self.fleet)
        return key

    def _new_id(self) -> str:
        """For a request whose client names none."""
        return f"{self._id_prefix}-{next(self._ids)}"

    def _refuse(self, exchange: Exchange, rejection: Rejection, request_id: str) -> None:
        self.metrics.reject(rejection.reason)
        self.metrics.of("").code(rejection.status)
        for one in self._observers:
            one.refused(exchange, rejection, request_id)
        reject(exchange, rejection, request_id)

    def _check_rate(self, client: str) -> None:
        wait = self._rate.take(client, self.clock())
        if wait:
            raise Rejected(RejectReason.RATE_LIMITED, "Too many requests.", retry_after_s=wait)

    def _too_late(self, flow: Flow) -> None:
        """The client's deadline has passed."""
        if flow.started:
            flow.cut_off()
        else:
            self._reject(flow, RejectReason.DEADLINE_EXCEEDED, "The deadline of the request has passed.")

    def _reject(self, flow: Flow, reason: RejectReason, message: str) -> None:
        self.metrics.reject(reason)
        now, lane = self.clock(), flow.lane
        place = lane.place_of(flow, now) if reason in QUEUED or flow in lane.line else None
        wait = None
        if reason in RETRY_AFTER:
            wait = lane.retry_after_s(now, None if place is None else place.position - 1)
        flow.reject(Rejection(reason=reason, message=message, retry_after_s=wait, place=place))

    def _released(self, account: Account) -> None:
        if account.instance.draining and not account.inflight:
            self._watcher.released(account)

    def _tell_done(self, flow: Flow, usage: Usage, now: float, *, good: bool) -> None:
        assert flow.account is not None
        outcome = Outcome(
            ok=good,
            seconds=now - flow.dispatched_at,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
        )
        flow.lane.done(flow.request, flow.account, outcome, now)
