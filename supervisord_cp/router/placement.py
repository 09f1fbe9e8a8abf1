"""When and where: a request goes to an instance with room, or waits for one in its deployment's line."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from supervisord_cp.config.schema import RouterConfig
from supervisord_cp.core.routing.ejection import Cause
from supervisord_cp.core.routing.lane import Lane
from supervisord_cp.core.routing.rejection import RejectReason
from supervisord_cp.router.fleet import Fleet
from supervisord_cp.router.metrics import RouterMetrics
from supervisord_cp.router.turns import Turns
from supervisord_cp.router.updates import QueueUpdates

if TYPE_CHECKING:
    from supervisord_cp.router.flow import Flow

_MESSAGES: Final = {
    RejectReason.NO_CAPACITY: "No instance serves this model, and none is being started.",
    RejectReason.WAKING: "An instance of this model is starting and was not ready in time.",
    RejectReason.DRAINING: "All instances of this model are being stopped.",
    RejectReason.QUEUE_FULL: "Too many requests wait for this model.",
    RejectReason.QUEUE_TIMEOUT: "No instance had room for the request in time.",
    RejectReason.DEADLINE_HOPELESS: "The request would have to wait for longer than its deadline allows.",
}
_ENDING: Final = "This router is ending, and the request would have to wait."

Reject = Callable[["Flow", RejectReason, str], None]


class Placement:
    """Looks at lanes and decides for one request, or for all that wait."""

    def __init__(
        self,
        config: RouterConfig,
        fleet: Fleet,
        metrics: RouterMetrics,
        reject: Reject,
        turns: Turns,
        missed: Callable[[], None],
    ) -> None:
        """`missed` is called when a request is the first to wait for an instance to be there at all."""
        self._missed = missed
        self._turns = turns
        self._fleet = fleet
        self._metrics = metrics
        self._reject = reject
        self._queue_timeout_s = config.queue_timeout_s
        self._hold_timeout_s = config.hold_timeout_s
        self._updates = QueueUpdates(config.queue_updates_s)
        self._ending = False

    def place(self, flow: "Flow", now: float, again: bool = False) -> None:
        """Send a request on its way, or let it wait.

        `again`: an instance has missed it; it is older than what waits, and goes first."""
        lane = flow.lane
        self._fleet.look(now)
        if flow.pin is not None:
            account = lane.pinned(flow.pin)
            out = self._fleet.ejections.get(flow.pin)
            if account is not None and (out is None or out.cause is not Cause.CONNECTION or out.on_trial):
                flow.dispatch(account, now)
                return
            flow.pin = None
        if again or not (lane.line or self._turns.others_wait(lane.line.entry)):
            account = lane.choose(flow, now, not again)
            if account is not None:
                flow.dispatch(account, now)
                return
        self._wait(flow, now, front=again)

    def pump(self, lane: "Lane[Flow]", now: float, *, in_turn: bool = True) -> None:
        """Send out what waits, from the front, as long as there is room.

        `in_turn`: leave room to processes whose turn it is. Not so a few times a second, as they may have
        no use for it: what their requests wait for may be other instances."""
        self._fleet.look(now)
        entry = lane.line.entry
        while (found := lane.next_out(now)) is not None:
            if in_turn and self._turns.passes(entry):
                return
            flow, account = found
            self._turns.served(entry, lane.line.keys)
            lane.line.serve(flow, now)
            flow.waited(now)
            self._metrics.of(lane.deployment.name).queue_wait.observe(flow.waited_s)
            flow.dispatch(account, now)

    def freed(self, lane: "Lane[Flow]", now: float) -> None:
        """A request is over: there may be room for another."""
        if lane.line:
            self.pump(lane, now)
        else:
            self._turns.freed(lane.line.entry)

    def end(self, lane: "Lane[Flow]") -> None:
        """Turn away what waits, and from now on everything that would have to wait: the router ends."""
        self._ending = True
        for flow in lane.line:
            if flow in lane.line:
                self._reject(flow, RejectReason.DRAINING, _ENDING)

    def expire(self, lane: "Lane[Flow]", now: float) -> None:
        """Turn away what has waited for too long, for room or for an instance to be there at all, and what
        the scheduler has no hope for."""
        if lane.reachable:
            limit, reason = self._queue_timeout_s, RejectReason.QUEUE_TIMEOUT
        else:
            limit, reason = 0.0 if lane.hopeless else self._hold_timeout_s, lane.absence()
        for flow in lane.line:
            if now - max(flow.first_wait_at, lane.changed_at) > limit:
                self._turn_away(flow, reason)
        for flow in lane.look_over(now):
            self._turn_away(flow, RejectReason.DEADLINE_HOPELESS)

    def tell(self, now: float) -> None:
        """Tell those that wait, and want to hear of it, how long they will."""
        self._updates.tick(now)

    def _turn_away(self, flow: "Flow", reason: RejectReason) -> None:
        """Reject it, unless one that was rejected before has made room for it."""
        if flow in flow.lane.line:
            self._reject(flow, reason, _MESSAGES[reason])

    def _wait(self, flow: "Flow", now: float, *, front: bool) -> None:
        lane = flow.lane
        if self._ending:
            self._reject(flow, RejectReason.DRAINING, _ENDING)
            return
        if lane.hopeless:
            refusal = lane.absence()
        elif not front and not lane.line.fits(flow):
            refusal = RejectReason.QUEUE_FULL
        elif lane.comes_too_late(flow, now):
            refusal = RejectReason.DEADLINE_HOPELESS
        else:
            flow.waits(now)
            entry = lane.line.entry
            first = not lane.line
            if first:
                self._turns.joined(entry)
            lane.wait(flow, now, front=front)
            if first and not lane.reachable:
                self._missed()
            self._updates.watch(flow, now)
            if self._turns.others_wait(entry):  # there may be room, and it may be our turn
                self.pump(lane, now)
            return
        self._reject(flow, refusal, _MESSAGES[refusal])
