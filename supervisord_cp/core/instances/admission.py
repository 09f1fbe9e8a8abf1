"""Whether a start may go ahead now, and if not, what it waits for. Pure."""

from collections.abc import Collection, Mapping
from typing import Final

from supervisord_cp.model.base import DeviceId, InstanceId, Value
from supervisord_cp.model.gpu import Gpu, GpuHealth
from supervisord_cp.model.launch import DesiredInstance
from supervisord_cp.model.reason import NO_REASON, Reason, ReasonCode, render

UNUSABLE: Final = frozenset({GpuHealth.QUARANTINED, GpuHealth.LOST})
HOLDERS_SHOWN: Final = 3


class Occupancy(Value, frozen=True, kw_only=True):
    """What the other instances of the node use now."""

    devices: Mapping[DeviceId, InstanceId]
    """Devices on which processes may be alive, and whose."""
    loading: int
    """Starts under way."""


def admission(
    desired: DesiredInstance,
    *,
    occupancy: Occupancy,
    known_devices: Collection[DeviceId] | None,
    gpus: Mapping[DeviceId, Gpu],
    max_loading: int,
    waking: Collection[int] | None = None,
) -> Reason:
    """Why the start has to wait; NO_REASON: it may go ahead.

    `known_devices` is None when the node cannot tell which devices it has (a hung driver): an engine
    cannot be pinned then. A GPU whose free memory is unknown does not hold a start up: the engine itself
    checks, and an unknown is not a no. `waking` are the processes of one that sleeps on these devices: what
    they hold is not in its way, and it does not load.
    """
    for device in desired.devices:
        if known_devices is None:
            return _awaiting_device(f"{device}: the GPU driver does not answer")
        if device not in known_devices:
            return _awaiting_device(f"{device}, which this node does not have")
        if (holder := occupancy.devices.get(device)) is not None and holder != desired.id:
            return _awaiting_device(f"{device}, which {holder} still uses")
        gpu = gpus.get(device)
        if gpu is None:
            continue
        if gpu.health in UNUSABLE:
            why = render(gpu.health_reason)
            return _awaiting_device(f"{device}, which is {gpu.health}" + (f" ({why})" if why else ""))
        if (short := _memory(desired, gpu, waking=waking)) is not NO_REASON:
            return short
    if waking is None and max_loading > 0 and occupancy.loading >= max_loading:
        return Reason(code=ReasonCode.AWAITING_START_SLOT, params={"limit": max_loading})
    return NO_REASON


def _awaiting_device(words: str) -> Reason:
    return Reason(code=ReasonCode.AWAITING_DEVICE, params={"device": words})


def _memory(desired: DesiredInstance, gpu: Gpu, *, waking: Collection[int] | None) -> Reason:
    """vLLM refuses to start unless its share of the whole memory is free; so do we, before it loads."""
    share = desired.spec.memory_share
    if share is None or gpu.memory_total is None or gpu.memory_used is None:
        return NO_REASON
    if gpu.health is GpuHealth.UNKNOWN:
        return NO_REASON  # old figures
    needed, free = share * gpu.memory_total, gpu.memory_total - gpu.memory_used
    free += sum(holder.bytes for holder in gpu.holders if holder.pid in (waking or ()))
    if free >= needed:
        return NO_REASON
    params: dict[str, str | int | float] = {
        "needed": _gib(needed),
        "free": _gib(free),
        "gpu": gpu.uuid,
        "holders": _holders(gpu),
    }
    return Reason(code=ReasonCode.AWAITING_MEMORY, params=params)


def _holders(gpu: Gpu) -> str:
    """The processes that hold most of it."""
    if not gpu.holders:
        return "no process that the driver lists"
    most = sorted(gpu.holders, key=lambda holder: -holder.bytes)[:HOLDERS_SHOWN]
    words = [
        f"{holder.instance or f'pid {holder.pid}'} ({holder.owner or '?'}, {_gib(holder.bytes)})"
        for holder in most
    ]
    more = len(gpu.holders) - len(most)
    return ", ".join(words) + (f" and {more} more" if more else "")


def _gib(amount: float) -> str:
    return f"{amount / 2**30:.1f} GiB"
