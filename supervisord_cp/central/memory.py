"""What central has decided and must remember: every change is queued to the store at once."""

from collections.abc import Iterable, Mapping
from typing import TypeVar

import msgspec

from supervisord_cp.central.decisions import Decisions
from supervisord_cp.central.fleet import NodeView
from supervisord_cp.model.assignment import Assignment, BadRevision, Cordon, Forgotten, Hold, Override
from supervisord_cp.model.base import DeploymentName, DeviceId, Incarnation, InstanceId, NodeName, Value
from supervisord_cp.model.instance import InstanceStatus
from supervisord_cp.model.node import NodeInventory
from supervisord_cp.model.scaling import KeptScaling
from supervisord_cp.ports.store import Kind, StorePort

V = TypeVar("V")


class KnownNode(Value, frozen=True, kw_only=True):
    """A node as it was last seen, so that a restarted central routes to its engines before it reports."""

    inventory: NodeInventory
    instances: tuple[InstanceStatus, ...] = ()


class Memory:
    """Assignments, overrides, cordons, holds, nodes known and forgotten, engine keys, and scaling."""

    def __init__(self, store: StorePort) -> None:
        self._store = store
        self.decisions = Decisions(store)
        self.fresh = store.fresh
        self.changes = 0
        """Counts changes of assignments, so that others know when to look again."""
        self.assignments: dict[InstanceId, Assignment] = {}
        for assignment in _load(store, Kind.ASSIGNMENT, Assignment).values():
            self.assignments[assignment.id] = assignment
        self.overrides: dict[DeploymentName, Override] = {
            o.deployment: o for o in _load(store, Kind.OVERRIDE, Override).values()
        }
        self.cordons: dict[str, Cordon] = _load(store, Kind.CORDON, Cordon)
        self.holds: set[DeploymentName] = {h.deployment for h in _load(store, Kind.HOLD, Hold).values()}
        self.bad: dict[DeploymentName, BadRevision] = {
            b.deployment: b for b in _load(store, Kind.BAD_REVISION, BadRevision).values()
        }
        self.scaling: dict[DeploymentName, KeptScaling] = {
            k.deployment: k for k in _load(store, Kind.SCALING, KeptScaling).values()
        }
        self.known: dict[NodeName, KnownNode] = {
            NodeName(name): node for name, node in _load(store, Kind.NODE, KnownNode).items()
        }
        self.forgotten: dict[NodeName, Forgotten] = {
            NodeName(name): node for name, node in _load(store, Kind.FORGOTTEN, Forgotten).items()
        }
        self.keys: dict[NodeName, dict[Incarnation, str]] = {
            NodeName(name): keys for name, keys in _load(store, Kind.KEYS, dict[Incarnation, str]).items()
        }

    def assign(self, assignment: Assignment) -> None:
        self.assignments[assignment.id] = assignment
        self.changes += 1
        self._store.put(Kind.ASSIGNMENT, assignment.id, _text(assignment))

    def unassign(self, instance: InstanceId) -> None:
        if self.assignments.pop(instance, None) is not None:
            self.changes += 1
            self._store.delete(Kind.ASSIGNMENT, instance)

    def override(self, override: Override) -> None:
        self.overrides[override.deployment] = override
        self._store.put(Kind.OVERRIDE, override.deployment, _text(override))

    def drop_override(self, deployment: DeploymentName) -> None:
        if self.overrides.pop(deployment, None) is not None:
            self._store.delete(Kind.OVERRIDE, deployment)

    def expire(self, wall: float) -> list[Override]:
        """Drop and return the overrides whose time is over (`wall` in seconds since 1970)."""
        over = [o for o in self.overrides.values() if o.expires_at is not None and o.expires_at <= wall]
        for override in over:
            self.drop_override(override.deployment)
        return over

    def cordon(self, cordon: Cordon) -> None:
        key = cordon_key(cordon.node, cordon.device)
        self.cordons[key] = cordon
        self._store.put(Kind.CORDON, key, _text(cordon))

    def uncordon(self, node: NodeName, device: DeviceId | None) -> None:
        """Lift a cordon; of a whole node: its devices' too."""
        for key, cordon in list(self.cordons.items()):
            if cordon.node == node and device in (None, cordon.device):
                del self.cordons[key]
                self._store.delete(Kind.CORDON, key)

    def cordoned(self, node: NodeName) -> bool:
        return cordon_key(node, None) in self.cordons

    def cordoned_devices(self, node: NodeName) -> frozenset[DeviceId]:
        return frozenset(c.device for c in self.cordons.values() if c.node == node and c.device is not None)

    def hold(self, deployment: DeploymentName) -> None:
        self.holds.add(deployment)
        self._store.put(Kind.HOLD, deployment, _text(Hold(deployment=deployment)))

    def unhold(self, deployment: DeploymentName) -> None:
        self.holds.discard(deployment)
        self._store.delete(Kind.HOLD, deployment)

    def condemn(self, bad: BadRevision) -> None:
        """Remember that a revision did not come up."""
        self.bad[bad.deployment] = bad
        self._store.put(Kind.BAD_REVISION, bad.deployment, _text(bad))

    def absolve(self, deployment: DeploymentName) -> None:
        """The configuration asks for another revision."""
        if self.bad.pop(deployment, None) is not None:
            self._store.delete(Kind.BAD_REVISION, deployment)

    def keep_scaling(self, kept: KeptScaling) -> None:
        """Remember where the scaling of a deployment stands."""
        self.scaling[kept.deployment] = kept
        self._store.put(Kind.SCALING, kept.deployment, _text(kept))

    def forget_scaling(self, deployment: DeploymentName) -> None:
        if self.scaling.pop(deployment, None) is not None:
            self._store.delete(Kind.SCALING, deployment)

    def know(self, view: NodeView) -> None:
        """Remember a node's engines; written only when something that routing needs has changed."""
        lasting = tuple(_lasting(status) for status in view.instances.values())
        node = KnownNode(inventory=view.inventory, instances=lasting)
        if self.known.get(view.name) != node:
            self.known[view.name] = node
            self._store.put(Kind.NODE, view.name, _text(node))

    def know_keys(self, node: NodeName, keys: Mapping[Incarnation, str]) -> None:
        if self.keys.get(node, {}) != keys:
            self.keys[node] = dict(keys)
            self._store.put(Kind.KEYS, node, msgspec.json.encode(dict(keys)).decode())

    def forget_node(self, node: NodeName, seen: Iterable[InstanceId]) -> list[InstanceId]:
        """Give up a node, with its cordons and the places on it. Returns those, in order; `seen` are the
        instances that it last told of."""
        places = sorted(a.id for a in self.assignments.values() if a.node == node)
        before = self.forgotten.get(node)
        names = {*places, *seen, *(() if before is None else before.instances)}
        if names:
            self.forgotten[node] = forgotten = Forgotten(node=node, instances=tuple(sorted(names)))
            self._store.put(Kind.FORGOTTEN, node, _text(forgotten))
        for instance in places:
            self.unassign(instance)
        self.uncordon(node, None)
        self.known.pop(node, None)
        self.keys.pop(node, None)
        self._store.delete(Kind.NODE, node)
        self._store.delete(Kind.KEYS, node)
        return places

    def returned(self, node: NodeName) -> frozenset[InstanceId]:
        """A forgotten node is back: the names that its engines may have; empty for any other node."""
        forgotten = self.forgotten.pop(node, None)
        if forgotten is None:
            return frozenset()
        self._store.delete(Kind.FORGOTTEN, node)
        return frozenset(forgotten.instances)

    async def flush(self) -> None:
        """Wait until every change so far is on disk."""
        await self._store.flush()


def cordon_key(node: NodeName, device: DeviceId | None) -> str:
    return node if device is None else f"{node}:{device}"


def _lasting(status: InstanceStatus) -> InstanceStatus:
    """A status without what changes every second."""
    return msgspec.structs.replace(status, load=None, uptime_s=0.0, eta_s=None, last_exit=None)


def _text(value: Value) -> str:
    return msgspec.json.encode(value).decode()


def _load(store: StorePort, kind: Kind, type_: type[V]) -> dict[str, V]:
    """A table; an entry of another release that does not decode is left out, not fatal."""
    out: dict[str, V] = {}
    for key, text in store.load(kind).items():
        try:
            out[key] = msgspec.json.decode(text, type=type_)
        except (msgspec.ValidationError, msgspec.DecodeError):
            continue
    return out
