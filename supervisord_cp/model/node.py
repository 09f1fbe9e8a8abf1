"""Nodes as their agents report them."""

from supervisord_cp.model.base import DeviceId, InstanceId, NodeName, Value
from supervisord_cp.model.gpu import Gpu
from supervisord_cp.model.instance import InstanceStatus
from supervisord_cp.model.launch import Generation
from supervisord_cp.model.reason import NO_REASON, Reason


class HostLoad(Value, frozen=True, kw_only=True):
    """The host itself."""

    cpu_count: int = 0
    cpu_utilization: float | None = None
    """Ratio over all cores, 0 to 1."""
    memory_total: int | None = None
    memory_available: int | None = None
    disk_free: int | None = None
    """Bytes free where logs and state are written."""


class NodeReport(Value, frozen=True, kw_only=True):
    """One report of an agent. A delta carries only what changed since the report before it."""

    node: NodeName
    sequence: int
    """Counts from 1 within one connection; a gap makes central ask for a full report."""
    full: bool
    generation: Generation | None = None
    """The desired state that the agent has taken over."""
    instances: tuple[InstanceStatus, ...] = ()
    gone: tuple[InstanceId, ...] = ()
    """Instances that ceased to exist since the report before."""
    gpus: tuple[Gpu, ...] | None = None
    """None in a delta: unchanged."""
    gpu_reason: Reason = NO_REASON
    """Why GPUs are unknown, when they are."""
    host: HostLoad | None = None


class NodeInventory(Value, frozen=True, kw_only=True):
    """What an agent says of its node when it connects."""

    node: NodeName
    zone: str = ""
    boot_id: str = ""
    session: str = ""
    """Random for each life of the agent process."""
    advertise: str = "127.0.0.1"
    metrics_url: str = ""
    """Where Prometheus finds the agent's own metrics, "" when nowhere."""
    device: str = "cpu"
    """`cuda` or `cpu`."""
    slots: tuple[DeviceId, ...] = ()
    """CPU slots; empty on a cuda node."""
    executables: tuple[str, ...] = ()
    """What the node's own policy allows to be launched, besides the fake engine."""
    gpu_cost_per_hour: float | None = None
    version: str = ""
