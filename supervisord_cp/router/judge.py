"""Judging instances by how they answer: who goes out of rotation, and whose trial went well."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from supervisord_cp.config.schema import RouterConfig
from supervisord_cp.core.routing.ejection import Cause
from supervisord_cp.core.routing.lane import Lane
from supervisord_cp.core.routing.leases import Account
from supervisord_cp.core.routing.outliers import is_slow, peers_median, slowest
from supervisord_cp.core.routing.usage import Usage
from supervisord_cp.core.routing.vitals import Measure
from supervisord_cp.model.base import Incarnation
from supervisord_cp.router.answers import CLIENT_GONE
from supervisord_cp.router.fleet import Fleet
from supervisord_cp.router.metrics import RouterMetrics
from supervisord_cp.router.pools import Pools

if TYPE_CHECKING:
    from supervisord_cp.router.flow import Flow

LOOK_EVERY_S: Final = 2.0
_LEAST_EVENTS: Final = 8
"""Of a stream whose time per token is looked at."""
_FIRST_TOKEN: Final = Measure.FIRST_TOKEN
_TOKEN: Final = Measure.TOKEN
_WHOLE: Final = Measure.WHOLE
_ENGINE_ERRORS: Final = frozenset({500, 502, 504})


class Watcher(Protocol):
    """Who is told what happens to instances, and where one is missing."""

    def missed(self) -> None:
        """A request waits for an instance of its deployment to be there at all, and is the first to."""
        ...

    def ejected(self, account: Account, why: str, request: str) -> None:
        """It gets nothing more, until it is tried again. `request`: the id of the one that showed it."""
        ...

    def restored(self, account: Account) -> None:
        """It is in rotation again."""
        ...

    def doubted(self, account: Account, told: Callable[[str], None]) -> None:
        """It answered as a dying engine does: ask it, and tell why it is not healthy ("": it is)."""
        ...

    def released(self, account: Account) -> None:
        """A draining instance has no request of ours left."""
        ...


class Judge:
    """What is noted of an answer costs the same for every answer; instances are compared now and then."""

    def __init__(
        self, config: RouterConfig, fleet: Fleet, pools: Pools, metrics: RouterMetrics, watcher: Watcher
    ) -> None:
        self._most_failures = config.eject_failures
        self._factor = config.eject_latency_factor
        self._fleet = fleet
        self._pools = pools
        self._metrics = metrics
        self._watcher = watcher
        self._next_look = 0.0

    def eject(self, account: Account, cause: Cause, why: str, now: float, request: str = "") -> None:
        """Send nothing more to an incarnation until it has shown that it is well."""
        if self._fleet.eject(account, cause, why, now):
            self._pools.drop(account.incarnation)
            self._metrics.ejected(account.instance.deployment, cause)
            self._watcher.ejected(account, why, request)

    def began(self, flow: "Flow", account: Account, now: float) -> None:
        """An answer has begun."""
        if flow.request.stream and flow.status < 400:
            account.vitals.note(_FIRST_TOKEN, now, now - flow.dispatched_at)
        if flow.trial and flow.status < 500:
            out = self._fleet.ejections.get(account.incarnation)
            if out is not None and out.cause is Cause.CONNECTION:
                self._passed(account, now)

    def ended(self, flow: "Flow", account: Account, usage: Usage, now: float) -> None:
        """An answer that had begun has ended, one way or another."""
        if flow.broke or flow.status in _ENGINE_ERRORS:
            self._failed(flow, account, now)
        elif not flow.cut and flow.status < 500 and flow.status != CLIENT_GONE:
            account.vitals.failures = 0
            account.vitals.answered += 1
            if flow.status < 400:
                self._measure(flow, account, usage, now)
                if flow.trial:
                    self._tried(flow, account, now)

    def tick(self, now: float) -> None:
        """To be called a few times a second: now and then compares the instances of each deployment."""
        if now < self._next_look or self._factor <= 0:
            return
        self._next_look = now + LOOK_EVERY_S
        for lane in self._fleet.lanes.values():
            if len(lane.rotation.usable) > 1:
                self._compare(lane, now)

    # --- inside

    def _failed(self, flow: "Flow", account: Account, now: float) -> None:
        vitals = account.vitals
        vitals.failures += 1
        vitals.failed += 1
        if flow.trial and account.on_trial:
            self.eject(account, Cause.FAILURES, "its trial failed", now, flow.request.id)
        elif 0 < self._most_failures <= vitals.failures:
            self.eject(
                account, Cause.FAILURES, f"{vitals.failures} answers in a row failed", now, flow.request.id
            )
        elif flow.broke:
            self._watcher.doubted(account, lambda why: None)

    def _measure(self, flow: "Flow", account: Account, usage: Usage, now: float) -> None:
        if flow.held_back:  # the client was the slow one
            return
        if flow.request.stream:
            if flow.events >= _LEAST_EVENTS:
                each = (now - flow.first_byte_at) / (flow.events - 1)
                account.vitals.note(_TOKEN, now, each)
        elif usage.completion_tokens:
            account.vitals.note(_WHOLE, now, (now - flow.dispatched_at) / usage.completion_tokens)

    def _tried(self, flow: "Flow", account: Account, now: float) -> None:
        """A trial's answer is complete."""
        out = self._fleet.ejections.get(account.incarnation)
        if out is None or not out.on_trial:
            return
        if out.cause is Cause.LATENCY and self._still_slow(account, now):
            why = "it was as slow when it was tried again"
            self.eject(account, Cause.LATENCY, why, now, flow.request.id)
        else:
            self._passed(account, now)

    def _still_slow(self, account: Account, now: float) -> bool:
        lane = self._fleet.lanes.get(account.instance.deployment)
        if lane is None:
            return False
        for measure in Measure:
            own = account.vitals.latest(measure)
            peers = peers_median(_samples(lane, measure, now), account.incarnation)
            if own is not None and peers is not None and is_slow(own, peers, measure, self._factor):
                return True
        return False

    def _passed(self, account: Account, now: float) -> None:
        if self._fleet.passed(account, now):
            account.vitals.forget()
            self._watcher.restored(account)

    def _compare(self, lane: "Lane[Flow]", now: float) -> None:
        accounts = {account.incarnation: account for account in lane.rotation.warm(now)}
        for measure in Measure:
            found = slowest(_samples(lane, measure, now), measure, self._factor)
            worst_first = sorted(found.items(), key=lambda one: -one[1].quartile_s / one[1].peers_s)
            for incarnation, slow in worst_first:
                self.eject(accounts[incarnation], Cause.LATENCY, str(slow), now)


def _samples(lane: "Lane[Flow]", measure: Measure, now: float) -> dict[Incarnation, list[float]]:
    """Of all that are in rotation and not new."""
    return {a.incarnation: a.vitals.samples(measure, now) for a in lane.rotation.warm(now)}
