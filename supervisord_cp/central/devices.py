"""GPUs and CPU slots as the control API shows them: what they are used for, and by whom. Pure."""

from collections.abc import Mapping
from typing import Any, Final

from supervisord_cp.central import fleet
from supervisord_cp.central.controller import Controller
from supervisord_cp.model.base import DeviceId
from supervisord_cp.model.gpu import Gpu, GpuUse
from supervisord_cp.model.instance import InstanceState
from supervisord_cp.model.reason import code_of, render

Json = dict[str, Any]

_USES: Final[Mapping[InstanceState, GpuUse]] = {
    InstanceState.READY: GpuUse.SERVING,
    InstanceState.DEGRADED: GpuUse.SERVING,
    InstanceState.STOPPING: GpuUse.DRAINING,
    InstanceState.RELEASING: GpuUse.DRAINING,
    InstanceState.CRASHED: GpuUse.BACKOFF,
    InstanceState.BACKOFF: GpuUse.BACKOFF,
}


def gpu(controller: Controller, view: fleet.NodeView, gpu: Gpu) -> Json:
    """One GPU as INTERFACE names its fields."""
    use, instance = gpu_use(controller, view, gpu)
    return {
        "uuid": gpu.uuid,
        "index": gpu.index,
        "name": gpu.name,
        "memory_total": gpu.memory_total,
        "memory_used": gpu.memory_used,
        "utilization": gpu.utilization,
        "temperature_c": gpu.temperature_c,
        "power_w": gpu.power_w,
        "health": gpu.health,
        "health_reason": code_of(gpu.health_reason),
        "health_message": render(gpu.health_reason),
        "health_age_s": round(gpu.health_age_ms / 1000, 1),
        "slowdowns": list(gpu.signs.slowdowns),
        "xids": {str(xid): count for xid, count in sorted(gpu.signs.xids.items())},
        "parent": gpu.parent,
        "use": use,
        "instance": instance,
        "age_ms": gpu.age_ms,
        "holders": [
            {"pid": h.pid, "owner": h.owner, "command": h.command, "bytes": h.bytes, "instance": h.instance}
            for h in gpu.holders
        ],
    }


def slot(controller: Controller, view: fleet.NodeView, slot: DeviceId) -> Json:
    """One slot of a CPU node."""
    use, instance = device_use(controller, view, slot)
    return {"id": slot, "use": use, "instance": instance}


def gpu_use(controller: Controller, view: fleet.NodeView, gpu: Gpu) -> tuple[GpuUse, str]:
    """What a GPU is used for, and by which instance ("": none of ours)."""
    use, instance = device_use(controller, view, gpu.uuid)
    return (GpuUse.FOREIGN if use is GpuUse.FREE and fleet.foreign(gpu) else use), instance


def device_use(controller: Controller, view: fleet.NodeView, device: DeviceId) -> tuple[GpuUse, str]:
    """What a GPU or CPU slot is used for by us, and by which instance."""
    for status in view.instances.values():
        if device in status.devices:
            assignment = controller.memory.assignments.get(status.id)
            if assignment is not None and assignment.draining:
                return GpuUse.DRAINING, status.id
            if status.state is InstanceState.SLEEPING:
                continue  # it leaves its devices to others
            if status.state is not InstanceState.STOPPED:
                return _USES.get(status.state, GpuUse.STARTING), status.id
    if controller.memory.cordoned(view.name) or device in controller.memory.cordoned_devices(view.name):
        return GpuUse.CORDONED, ""
    return GpuUse.FREE, ""
