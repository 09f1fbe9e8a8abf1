"""Whether engines hold memory where they were put: CUDA's count of GPUs and the driver's may differ. Pure."""

from collections.abc import Iterable, Iterator, Mapping

from supervisord_cp.model.base import DeviceId, InstanceId, Value
from supervisord_cp.model.event import Event, Severity
from supervisord_cp.model.gpu import Gpu
from supervisord_cp.model.instance import InstanceStatus


class Misplaced(Value, frozen=True, kw_only=True):
    """A process of an instance holds memory of a GPU that the instance was not given."""

    instance: InstanceId
    gpu: DeviceId
    index: int
    pid: int


def misplaced(gpus: Iterable[Gpu], statuses: Mapping[InstanceId, InstanceStatus]) -> Iterator[Misplaced]:
    """Those that are; `gpus` with their holders told from strangers."""
    for gpu in gpus:
        for holder in gpu.holders:
            status = statuses.get(InstanceId(holder.instance))
            if status is not None and gpu.uuid not in status.devices:
                yield Misplaced(instance=status.id, gpu=gpu.uuid, index=gpu.index, pid=holder.pid)


def word_of(one: Misplaced) -> Event:
    """The event that tells of it."""
    return Event(
        kind="gpu.misplaced",
        subject=one.instance,
        message=f"its process {one.pid} holds memory of GPU {one.index}, which is another's",
        severity=Severity.ERROR,
        data={"gpu": one.gpu, "pid": one.pid},
    )
