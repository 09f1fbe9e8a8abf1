"""The fleet as routers and policies see it: one immutable view, replaced part by part."""

from supervisord_cp.model.base import DeploymentName, Incarnation, InstanceId, NodeName, Value
from supervisord_cp.model.instance import EngineLoad, InstanceState


class PolicyUse(Value, frozen=True, kw_only=True):
    """A policy by name, with its parameters as written in the configuration."""

    use: str
    """Its name."""
    params: dict[str, object] = {}
    """What it is told; each policy documents its own."""
    weight: float = 1.0
    """How much a routing step counts next to others."""


class RoutedDeployment(Value, frozen=True, kw_only=True):
    """What a router needs to know of a deployment."""

    name: DeploymentName
    names: tuple[str, ...]
    """The served name and its aliases, the served name first."""
    router: tuple[PolicyUse, ...] = (PolicyUse(use="load_balanced"),)
    scheduler: PolicyUse = PolicyUse(use="fifo")
    allow_paths: tuple[str, ...] = ()
    max_concurrency: int = 0
    """Per replica over all routers; 0 is no limit."""
    wanted: int = 0
    """Replicas wanted now; 0 with no instance means asleep, not unknown."""
    wakes: bool = True
    """Whether waiting requests make central want a replica; False: at 0 replicas they are refused at once."""
    start_estimate_s: float | None = None
    """How long a replica takes to start, when that is known."""
    shadow: str = ""
    """A routing policy or scheduler that is asked beside the one in use."""
    slo_ttft_ms: float | None = None
    """Time to first token that requests should see."""
    compared: bool = False
    """Whether two of its revisions are compared: reports then say how its instances answer."""


class RoutedInstance(Value, frozen=True, kw_only=True):
    """What a router needs to know of an instance."""

    id: InstanceId
    deployment: DeploymentName
    incarnation: Incarnation
    """One life of its engine: another one after each start."""
    url: str
    node: NodeName = NodeName("")
    zone: str = ""
    engine: str = "vllm"
    state: InstanceState = InstanceState.UNKNOWN
    draining: bool = False
    static: bool = False
    weight: float = 1.0
    """Its share next to others."""
    max_concurrency: int = 0
    gpus: int = 1
    cost_per_gpu_hour: float | None = None
    load: EngineLoad | None = None
    """What its engine reported last; None: nothing yet."""

    @property
    def cost_per_hour(self) -> float | None:
        """Of all its GPUs; None: unknown."""
        return None if self.cost_per_gpu_hour is None else self.cost_per_gpu_hour * self.gpus

    @property
    def routable(self) -> bool:
        """Whether new requests may go there.

        `unknown` counts: an agent that is silent does not make its engines dead (fail static)."""
        return bool(
            self.url
            and not self.draining
            and not (self.load is not None and self.load.asleep)
            and self.state in (InstanceState.READY, InstanceState.UNLISTED, InstanceState.UNKNOWN)
        )


class FleetPart(Value, frozen=True, kw_only=True):
    """The instances of one node, or the static ones (node "")."""

    node: NodeName
    instances: tuple[RoutedInstance, ...] = ()


class FleetSnapshot(Value, frozen=True, kw_only=True):
    """The whole view."""

    epoch: str
    version: int
    deployments: tuple[RoutedDeployment, ...] = ()
    parts: tuple[FleetPart, ...] = ()


class FleetDelta(Value, frozen=True, kw_only=True):
    """What turns the snapshot `base` into the snapshot `version` of the same epoch."""

    epoch: str
    base: int
    version: int
    deployments: tuple[RoutedDeployment, ...] | None = None
    """None: unchanged."""
    parts: tuple[FleetPart, ...] = ()
    gone: tuple[NodeName, ...] = ()


def apply_delta(snapshot: FleetSnapshot, delta: FleetDelta) -> FleetSnapshot | None:
    """The next snapshot, or None when the delta does not fit and a full one must be asked for."""
    if (delta.epoch, delta.base) != (snapshot.epoch, snapshot.version):
        return None
    parts = {part.node: part for part in snapshot.parts}
    for node in delta.gone:
        parts.pop(node, None)
    for part in delta.parts:
        parts[part.node] = part
    return FleetSnapshot(
        epoch=delta.epoch,
        version=delta.version,
        deployments=snapshot.deployments if delta.deployments is None else delta.deployments,
        parts=tuple(parts.values()),
    )


def diff(old: FleetSnapshot, new: FleetSnapshot) -> FleetDelta:
    """The delta between two snapshots of one epoch; equal parts are left out."""
    before = {part.node: part for part in old.parts}
    after = {part.node: part for part in new.parts}
    return FleetDelta(
        epoch=new.epoch,
        base=old.version,
        version=new.version,
        deployments=None if new.deployments == old.deployments else new.deployments,
        parts=tuple(p for n, p in after.items() if before.get(n) is not p and before.get(n) != p),
        gone=tuple(node for node in before if node not in after),
    )
