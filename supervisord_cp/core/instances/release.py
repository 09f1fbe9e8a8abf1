"""Whether the memory of an engine that is gone is back: drivers take their time. Pure."""

from collections.abc import Collection, Mapping
from typing import Final

from supervisord_cp.model.base import DeviceId
from supervisord_cp.model.gpu import Gpu, GpuHealth
from supervisord_cp.model.reason import NO_REASON, Reason, ReasonCode

TOLERANCE: Final = 64 * 1024 * 1024
"""Bytes that may stay behind: page tables and contexts of other processes move by that much."""

Baseline = Mapping[DeviceId, int]
"""Bytes of each GPU in use that no listed process held, before an engine took any."""


def baseline_of(devices: Collection[DeviceId], gpus: Mapping[DeviceId, Gpu]) -> dict[DeviceId, int]:
    """What to compare with at the end. GPUs that do not tell how much each process holds are left out."""
    found: dict[DeviceId, int] = {}
    for device in devices:
        unexplained = _unexplained(gpus.get(device))
        if unexplained is not None:
            found[device] = unexplained
    return found


def read_since(devices: Collection[DeviceId], gpus: Mapping[DeviceId, Gpu], gone_s: float) -> bool:
    """Whether all GPUs that can be read have been, since the engine's processes were gone, `gone_s` ago."""
    return all(
        gpu.age_ms / 1000 < gone_s
        for device in devices
        if (gpu := gpus.get(device)) is not None and _readable(gpu)
    )


def still_held(baseline: Baseline, gpus: Mapping[DeviceId, Gpu]) -> Reason:
    """What the driver still holds of the engine's memory; NO_REASON: nothing, or nobody can tell."""
    for device, before in baseline.items():
        unexplained = _unexplained(gpus.get(device))
        if unexplained is not None and unexplained > before + TOLERANCE:
            held = f"{(unexplained - before) / 2**30:.1f} GiB"
            return Reason(code=ReasonCode.RELEASING_MEMORY, params={"held": held, "gpu": device})
    return NO_REASON


def _unexplained(gpu: Gpu | None) -> int | None:
    """Bytes in use that no listed process holds."""
    if gpu is None or gpu.memory_used is None or not _readable(gpu):
        return None
    if not all(holder.bytes for holder in gpu.holders):
        return None  # it lists processes and does not tell what they hold
    return gpu.memory_used - sum(holder.bytes for holder in gpu.holders)


def _readable(gpu: Gpu) -> bool:
    return gpu.health not in (GpuHealth.UNKNOWN, GpuHealth.LOST)
