"""Routers: what they are sent (snapshots and deltas) and what they report."""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from msgspec.structs import replace

from supervisord_cp.central.fleet import NodeView
from supervisord_cp.central.publish import node_part
from supervisord_cp.clock import Clock
from supervisord_cp.model.assignment import Assignment
from supervisord_cp.model.base import Incarnation, InstanceId, NodeName, Value
from supervisord_cp.model.fleet import FleetPart, FleetSnapshot, RoutedDeployment, RoutedInstance, diff
from supervisord_cp.model.router import OutOfRotation, RouterReport
from supervisord_cp.model.signal import NamedResult
from supervisord_cp.wire.messages import Delta, EngineKeys, Message, Queries, Snapshot

LIVE_S: Final = 10.0
"""A router that has been silent for this long no longer holds up a drain."""
BETWEEN_PUBLICATIONS_S: Final = 0.1

Send = Callable[[Message], bool]


class RouterView(Value, frozen=True, kw_only=True):
    """What is known of one router."""

    id: str
    connected: bool
    version: str = ""
    heard_at: float = 0.0
    report: RouterReport | None = None


class Routers:
    """The current snapshot and everybody who follows it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.views: dict[str, RouterView] = {}
        self._send: dict[str, Send] = {}
        self._sent: dict[str, FleetSnapshot] = {}
        self._parts: dict[NodeName, FleetPart] = {}
        self._deployments: tuple[RoutedDeployment, ...] = ()
        self._keys: dict[NodeName, dict[Incarnation, str]] = {}
        self.snapshot: FleetSnapshot | None = None
        self._queries: dict[str, NamedResult] = {}
        self._queried_at = 0.0
        self._published_at = -1.0
        self._changed = False
        """Whether the next snapshot differs from the last one,"""
        self._urgent = False
        """and in what decides where requests may go."""

    # what is to be told

    def update_node(self, view: NodeView, assignments: Mapping[InstanceId, Assignment], now: float) -> None:
        """Take over a node's instances."""
        self.update_part(node_part(view, assignments, now))

    def update_part(self, part: FleetPart) -> None:
        old = self._parts.get(part.node)
        if old != part:
            self._parts[part.node] = part
            self._changed = True
            if old is None or _rotation(old) != _rotation(part):
                self._urgent = True

    def forget_node(self, node: NodeName) -> None:
        """It is no part of the fleet any more."""
        if self._parts.pop(node, None) is not None:
            self._changed = self._urgent = True
        self.update_keys(node, {})

    def update_deployments(self, deployments: tuple[RoutedDeployment, ...]) -> None:
        if deployments != self._deployments:
            self._deployments = deployments
            self._changed = self._urgent = True

    def update_keys(self, node: NodeName, keys: dict[Incarnation, str]) -> None:
        """Take over the engine keys of a node (or of the static instances, node "")."""
        if self._keys.get(node, {}) == keys:
            return
        self._keys[node] = keys
        for send in self._send.values():
            send(EngineKeys(keys=self._all_keys()))

    def update_queries(self, results: Mapping[str, NamedResult]) -> None:
        """Take over what named PromQL expressions say now, and tell it."""
        self._queries, self._queried_at = dict(results), self._clock.now()
        for send in self._send.values():
            send(self._queries_now())

    def _queries_now(self) -> Queries:
        by_s = self._clock.now() - self._queried_at
        return Queries(
            results={
                name: NamedResult(
                    total=result.total.older(by_s),
                    instances={id_: signal.older(by_s) for id_, signal in result.instances.items()},
                )
                for name, result in self._queries.items()
            }
        )

    def publish(self, epoch: str) -> int:
        """Make the snapshot that is true now and send it where it is new; returns its version.

        At most ten a second, unless something has changed that decides where requests may go.
        """
        old = self.snapshot
        if old is None or self._changed:
            now = self._clock.now()
            if old is None or self._urgent or now - self._published_at >= BETWEEN_PUBLICATIONS_S:
                self._published_at = now
                self._changed = self._urgent = False
                self.snapshot = FleetSnapshot(
                    epoch=epoch,
                    version=1 if old is None else old.version + 1,
                    deployments=self._deployments,
                    parts=tuple(self._parts.values()),
                )
                for router in list(self._send):
                    self._tell(router)
        return 0 if self.snapshot is None else self.snapshot.version

    def _tell(self, router: str) -> None:
        if self.snapshot is None:
            return
        sent = self._sent.get(router)
        message: Message
        if sent is None or sent.epoch != self.snapshot.epoch:
            message = Snapshot(snapshot=self.snapshot)
        else:
            message = Delta(delta=diff(sent, self.snapshot))
        if self._send[router](message):
            self._sent[router] = self.snapshot
        else:
            self._sent.pop(router, None)

    def _all_keys(self) -> dict[Incarnation, str]:
        return {inc: key for keys in self._keys.values() for inc, key in keys.items()}

    # who follows

    def connected(self, router: str, version: str, send: Send) -> None:
        """A router has been welcomed."""
        self._send[router] = send
        self._sent.pop(router, None)
        self.views[router] = RouterView(
            id=router, connected=True, version=version, heard_at=self._clock.now()
        )
        send(EngineKeys(keys=self._all_keys()))
        if self._queries:
            send(self._queries_now())
        self._tell(router)

    def resync(self, router: str) -> None:
        """A router has missed something."""
        self._sent.pop(router, None)
        self._tell(router)

    def gone(self, router: str) -> None:
        """A router's connection has ended; it may go on serving."""
        self._send.pop(router, None)
        self._sent.pop(router, None)
        if (view := self.views.get(router)) is not None:
            self.views[router] = replace(view, connected=False)

    def reported(self, report: RouterReport) -> bool:
        """Take in a report; True when an open lease count or the applied version has changed. One that says
        that it is the last is the end of its router."""
        view = self.views.get(report.router)
        if view is None:
            return False
        if report.ended:
            self.gone(report.router)
            del self.views[report.router]
            return True
        before = view.report
        self.views[report.router] = replace(view, connected=True, heard_at=self._clock.now(), report=report)
        return before is None or (before.version, before.leases) != (report.version, report.leases)

    def live_reports(self, now: float) -> Iterable[RouterReport]:
        """Of routers that are connected or were a moment ago."""
        for view in self.views.values():
            if view.connected or now - view.heard_at < LIVE_S:
                yield view.report or RouterReport(router=view.id)

    def ejections(self, now: float) -> dict[Incarnation, list[tuple[str, OutOfRotation]]]:
        """What live routers have put out of rotation by themselves, with the router's id."""
        found: dict[Incarnation, list[tuple[str, OutOfRotation]]] = {}
        for report in self.live_reports(now):
            for out in report.rotation:
                found.setdefault(out.incarnation, []).append((report.router, out))
        return found

    def serving(self, address: str) -> int | None:
        """The pid of the connected router that serves an address (`HOST:PORT`), if one does."""
        for view in self.views.values():
            report = view.report
            if view.connected and report is not None and report.api_url.endswith(f"//{address}"):
                return report.pid or None
        return None

    def addresses(self) -> dict[str, str]:
        """One router that is connected for each address that is served, by its id without the number of the
        process: what all processes of an address are asked, one of them is asked."""
        return {view.id.partition("/")[0]: view.id for view in self.views.values() if view.connected}

    def instances(self) -> list[RoutedInstance]:
        """Every instance that routers know of, as it is now."""
        return [instance for part in self._parts.values() for instance in part.instances]


def _rotation(part: FleetPart) -> list[tuple[str, str, bool]]:
    return [(i.incarnation, i.url, i.routable) for i in part.instances]
