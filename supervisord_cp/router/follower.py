"""Following central: snapshots and engine keys come in, reports go out. Without central, all goes on."""

import asyncio
import logging
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from types import MappingProxyType
from typing import Final

from msgspec.json import encode as encode_json
from msgspec.structs import replace

from supervisord_cp.adapters.central_link import CentralLink
from supervisord_cp.adapters.tokens import read_token
from supervisord_cp.core.routing.continuity import CARRY_S, missing_parts, with_carried
from supervisord_cp.errors import UsageError
from supervisord_cp.model.base import Incarnation
from supervisord_cp.model.event import Event, Severity
from supervisord_cp.model.fleet import FleetPart, FleetSnapshot, apply_delta
from supervisord_cp.model.router import RouterReport
from supervisord_cp.policy.context import QueryResults
from supervisord_cp.router.dispatch import Dispatcher
from supervisord_cp.router.memory import Remembered
from supervisord_cp.router.policies import RouterPolicies
from supervisord_cp.router.whole_view import WholeView
from supervisord_cp.version import __version__
from supervisord_cp.wire import messages as m
from supervisord_cp.wire.codec import BadMessage

log = logging.getLogger(__name__)

REPORT_EVERY_S: Final = 0.5
AGAIN_AFTER_S: Final = 1.0
FAREWELL_S: Final = 0.5
OF_THE_VIEW: Final = ("snapshot", "delta", "")
"""Kinds of messages without which the view is not the one that central has; "": nobody knows what it was."""


class Follower:
    """Keeps the dispatcher's view of the fleet that of central."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        *,
        router_id: str,
        central: str,
        token_file: Path | None,
        api_url: str,
        metrics: Callable[[], str],
        on_change: Callable[[], None] = lambda: None,
        policies: RouterPolicies | None = None,
        pid: int = 0,
        restart: Callable[[], Awaitable[str]] | None = None,
    ) -> None:
        """`pid`: of the process to signal (default: ours). `on_change`: called when there is something new
        to remember. `policies`: what is told of them. `restart` puts new processes in our place, and tells
        why it did not; None: that is not for us."""
        self._dispatcher = dispatcher
        self._router_id = router_id
        self._api_url = api_url
        self._token_file = token_file
        self._metrics = metrics
        self._on_change = on_change
        self._policies = policies
        self._pid = pid or os.getpid()
        self._restart = restart
        self._session = secrets.token_hex(8)
        self._snapshot: FleetSnapshot | None = None
        self._carried: tuple[FleetPart, ...] = ()
        self._carry_until = 0.0
        self._whole = WholeView()
        self._report_planned = False
        self._left = False
        self.keys: dict[Incarnation, str] = {}
        self._link = CentralLink(
            url=central,
            path=m.ROUTER_PATH,
            token=self._token,
            hello=lambda: m.Hello(name=router_id, session=self._session, version=__version__),
            on_message=self._on_message,
            on_up=lambda welcome: self._on_up(),
            on_call=self._on_call,
            on_unreadable=self._on_unreadable,
        )

    @property
    def snapshot(self) -> FleetSnapshot | None:
        """The view in use, what is carried over included."""
        return None if self._snapshot is None else with_carried(self._snapshot, self._carried)

    def remembered(self) -> Remembered | None:
        """What to remember over a restart: who is where, without figures that are old a second later."""
        snapshot = self.snapshot
        if snapshot is None:
            return None
        parts = tuple(
            replace(part, instances=tuple(replace(instance, load=None) for instance in part.instances))
            for part in snapshot.parts
        )
        return Remembered(snapshot=replace(snapshot, version=0, parts=parts), keys=self.keys)

    def recall(self, remembered: Remembered) -> None:
        """Start with what was remembered: good until central says otherwise."""
        self._snapshot = remembered.snapshot
        self._use_keys(remembered.keys)
        self._dispatcher.apply(remembered.snapshot)

    async def run(self) -> None:
        """Follow until cancelled. Nothing that goes wrong here ends the router: it serves without central."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._for_ever(self._link.run))
            tasks.create_task(self._for_ever(self._report_forever))

    def report_soon(self) -> None:
        """Report at once; several wishes within one turn of the event loop are one report."""
        if not self._report_planned:
            self._report_planned = True
            asyncio.get_running_loop().call_soon(self._report)

    async def leave(self) -> None:
        """Say that we end, and hold nothing any more."""
        self._report(ended=True)
        self._left = True
        await self._link.flush(FAREWELL_S)

    def tell(self, event: Event) -> None:
        """Tell central of something that happened."""
        self._link.send(m.Events(events=(event,)))

    async def _for_ever(self, part: Callable[[], Coroutine[None, None, None]]) -> None:
        while True:
            try:
                await part()
            except Exception:
                log.exception("following central failed; beginning again")
            await asyncio.sleep(AGAIN_AFTER_S)

    # --- central's messages

    def _on_up(self) -> None:
        self._whole.came()  # every connection begins with one
        self.report_soon()

    def _on_message(self, message: m.Message) -> None:
        match message:
            case m.Snapshot(snapshot=snapshot):
                self._replace(snapshot)
                self._whole_came(snapshot)
            case m.Delta(delta=delta):
                after = None if self._snapshot is None else apply_delta(self._snapshot, delta)
                if after is not None:
                    self._use(after)
                else:
                    self._miss()
            case m.EngineKeys(keys=keys):
                self._use_keys(keys)
            case m.Queries(results=results):
                queries = QueryResults(at=self._dispatcher.clock(), results=MappingProxyType(results))
                self._dispatcher.fleet.use_queries(queries)
            case _:
                log.warning("unexpected %s from central", type(message).__name__)

    def _on_unreadable(self, error: BadMessage) -> None:
        """What is used goes on in use. A kind that we do not know is of a newer central, and none of ours."""
        if error.kind not in OF_THE_VIEW:
            return
        if not self._whole.unreadable:
            self._whole.unreadable = True
            version = self._snapshot.version if self._snapshot is not None else "none"
            self._tell_of_view(
                f"central's view of the fleet cannot be read ({error}); going on with the last good one"
                f" (version {version}), and asking for a whole one until it can",
                Severity.ERROR,
            )
        self._miss()

    def _miss(self) -> None:
        self._whole.miss(asyncio.get_running_loop().time())
        self._ask_for_whole()

    def _ask_for_whole(self) -> None:
        if self._whole.due(asyncio.get_running_loop().time()):
            self._link.send(m.Resync())

    def _whole_came(self, snapshot: FleetSnapshot) -> None:
        if self._whole.unreadable:
            self._tell_of_view(f"central's view can be read again: version {snapshot.version}", Severity.INFO)
        self._whole.came()

    def _tell_of_view(self, message: str, severity: Severity) -> None:
        self.tell(Event(kind="router.view", subject=self._router_id, message=message, severity=severity))

    def _replace(self, snapshot: FleetSnapshot) -> None:
        old = self.snapshot
        if old is not None and (missing := missing_parts(old, snapshot)):
            self._carried = missing
            self._carry_until = asyncio.get_running_loop().time() + CARRY_S
            nodes = ", ".join(part.node or "static instances" for part in missing)
            log.info("central is new and does not know %s yet: kept for %.0f s", nodes, CARRY_S)
        self._use(snapshot)

    def _use(self, snapshot: FleetSnapshot) -> None:
        self._dispatcher.apply(with_carried(snapshot, self._carried))
        self._snapshot = snapshot
        self._on_change()
        self.report_soon()

    def _use_keys(self, keys: dict[Incarnation, str]) -> None:
        """A key belongs to an incarnation for life: those of the present view are kept, whatever a new
        central does not know yet."""
        present = self._dispatcher.fleet.table.incarnations()
        self.keys = {i: key for i, key in self.keys.items() if i in present} | keys
        self._dispatcher.use_keys(self.keys)
        self._on_change()

    def _end_carrying(self) -> None:
        if self._carried and asyncio.get_running_loop().time() > self._carry_until:
            self._carried = ()
            if self._snapshot is not None:
                self._use(self._snapshot)

    # --- reports

    async def _report_forever(self) -> None:
        while True:
            await asyncio.sleep(REPORT_EVERY_S)
            self._end_carrying()
            self._ask_for_whole()
            self._report()

    def _report(self, *, ended: bool = False) -> None:
        self._report_planned = False
        if self._left:
            return
        fleet = self._dispatcher.fleet
        self._link.send(
            m.RouterStatus(
                report=RouterReport(
                    router=self._router_id,
                    epoch=fleet.table.epoch,
                    version=fleet.table.version,
                    leases=fleet.leases(),
                    outcomes=fleet.outcomes(),
                    demand=tuple(lane.demand() for lane in fleet.lanes.values()),
                    ejected=fleet.ejections.incarnations,
                    rotation=fleet.out_of_rotation(self._dispatcher.clock()),
                    pid=self._pid,
                    ended=ended,
                    api_url=self._api_url,
                    policies=() if self._policies is None else self._policies.health(),
                    shadows=() if self._policies is None else self._policies.shadows(),
                )
            )
        )

    async def _on_call(
        self, method: str, params: dict[str, str | int | float | bool | None]
    ) -> AsyncIterator[str]:
        policies = self._policies
        if method == "metrics":
            yield self._metrics()
        elif method == "requests.explain":
            yield encode_json(self._dispatcher.explain(str(params.get("request", "")))).decode()
        elif method == "restart" and self._restart is not None:
            yield encode_json(await self._restart()).decode()
        elif method == "policies.reload" and policies is not None:
            yield await policies.call_reload(params)
        elif method == "policies.differences" and policies is not None:
            yield await policies.call_differences(params)
        else:
            raise LookupError(f"a router knows no method {method}")

    def _token(self) -> str:
        try:
            return read_token(self._token_file, "agent")
        except UsageError as error:
            log.error("%s", error)
            return ""
