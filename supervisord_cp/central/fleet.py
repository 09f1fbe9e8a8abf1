"""The fleet as it is observed: one immutable view per node, folded from its agent's reports."""

from collections.abc import Mapping
from typing import Final

from supervisord_cp.model.base import InstanceId, NodeName, Value
from supervisord_cp.model.gpu import Gpu, GpuHealth
from supervisord_cp.model.instance import InstanceState, InstanceStatus
from supervisord_cp.model.launch import Generation
from supervisord_cp.model.node import HostLoad, NodeInventory, NodeReport
from supervisord_cp.model.reason import NO_REASON, Reason, ReasonCode

SILENT_AFTER_S: Final = 3.0
FOREIGN_BYTES: Final = 512 * 1024 * 1024
ILL: Final = frozenset({GpuHealth.QUARANTINED, GpuHealth.LOST})
"""No engine is started on such a GPU."""


class NodeView(Value, frozen=True, kw_only=True):
    """What is known of one node."""

    inventory: NodeInventory
    connected: bool = False
    reported_at: float | None = None
    """Central's monotonic time of the last report; None: not in this life of central."""
    sequence: int = 0
    acknowledged: int = 0
    """Sequence of the first full report of this connection; 0: none yet."""
    generation: Generation | None = None
    instances: Mapping[InstanceId, InstanceStatus] = {}
    gpus: tuple[Gpu, ...] = ()
    gpus_known: bool = True
    gpu_reason: Reason = NO_REASON
    host: HostLoad | None = None

    @property
    def name(self) -> NodeName:
        return self.inventory.node

    def age_s(self, now: float) -> float | None:
        """Seconds since the last report."""
        return None if self.reported_at is None else max(0.0, now - self.reported_at)

    def silent(self, now: float) -> bool:
        """Whether what it last said may be out of date."""
        age = self.age_s(now)
        return age is None or age > SILENT_AFTER_S


def connect(old: NodeView | None, inventory: NodeInventory) -> NodeView:
    """The view when an agent has said hello: what was known stays until its full report comes."""
    return NodeView(
        inventory=inventory,
        connected=True,
        reported_at=None if old is None else old.reported_at,
        instances={} if old is None else old.instances,
        gpus=() if old is None else old.gpus,
    )


def fold(view: NodeView, report: NodeReport, now: float) -> NodeView | None:
    """The view after a report, or None when one before it was lost and a full one is needed."""
    if not report.full and (report.sequence != view.sequence + 1 or not view.acknowledged):
        return None
    instances = {} if report.full else dict(view.instances)
    instances.update({status.id: status for status in report.instances})
    for gone in report.gone:
        instances.pop(gone, None)
    unknown_gpus = report.gpus is None and report.gpu_reason.code is not ReasonCode.NONE
    return NodeView(
        inventory=view.inventory,
        connected=True,
        reported_at=now,
        sequence=report.sequence,
        acknowledged=view.acknowledged or report.sequence,
        generation=report.generation,
        instances=instances,
        gpus=view.gpus if report.gpus is None else report.gpus,
        gpus_known=not unknown_gpus,
        gpu_reason=report.gpu_reason,
        host=report.host or view.host,
    )


def shown_state(status: InstanceStatus, view: NodeView, now: float) -> tuple[InstanceState, Reason]:
    """The state to show: unknown when the node is silent, unlisted when nobody asked for it."""
    age = view.age_s(now)
    if age is None:
        return InstanceState.UNKNOWN, Reason(code=ReasonCode.NODE_NOT_HEARD, params={"node": view.name})
    if view.silent(now):
        params: dict[str, str | int | float] = {"node": view.name, "seconds": int(age)}
        return InstanceState.UNKNOWN, Reason(code=ReasonCode.NODE_SILENT, params=params)
    if not status.listed and status.state is InstanceState.READY:
        return InstanceState.UNLISTED, Reason(code=ReasonCode.NOT_LISTED)
    return status.state, status.reason


def shown_states(view: NodeView, now: float) -> dict[InstanceId, InstanceState]:
    """The states of a node's instances, as `shown_state` has each."""
    if view.silent(now):
        return dict.fromkeys(view.instances, InstanceState.UNKNOWN)
    states = {name: status.state for name, status in view.instances.items()}
    for name, status in view.instances.items():
        if not status.listed:
            states[name] = shown_state(status, view, now)[0]
    return states


def usable(gpu: Gpu) -> bool:
    """Whether a GPU may be given to an engine."""
    return gpu.health is GpuHealth.HEALTHY


def foreign(gpu: Gpu) -> bool:
    """Whether strangers hold enough of its memory that an engine should not be put there."""
    if not gpu.holders:
        return False
    return sum(holder.bytes for holder in gpu.holders if not holder.instance) > FOREIGN_BYTES
