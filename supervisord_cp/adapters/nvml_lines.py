"""What the probe says, one JSON line a sweep, and what its lines add up to."""

from collections import Counter
from collections.abc import Mapping
from typing import Final

import msgspec

from supervisord_cp.model.base import DeviceId, Value
from supervisord_cp.model.gpu import Gpu, GpuHealth

UNNAMED_PREFIX: Final = "index-"
MIG_PREFIX: Final = "MIG-"


class Unreadable(Value, frozen=True, kw_only=True):
    """A GPU that is counted but cannot be opened, so that not even its UUID can be read."""

    index: int
    health: GpuHealth
    error: str = ""


class Xid(Value, frozen=True, kw_only=True):
    """An error that the driver has reported."""

    gpu: DeviceId
    """The whole GPU; all MIG devices cut from it are concerned."""
    code: int


class ProbeLine(Value, frozen=True, kw_only=True):
    """One sweep over all GPUs."""

    gpus: tuple[Gpu, ...] = ()
    """Ages count from the moment each was read to the moment the line was written."""
    unreadable: tuple[Unreadable, ...] = ()
    xids: tuple[Xid, ...] = ()
    """Those since the line before."""
    partitioned: tuple[DeviceId, ...] = ()
    """GPUs in MIG mode: their MIG devices are listed instead of them."""
    absent: str = ""
    """Why there is no GPU on this host at all; "" when there may be."""
    error: str = ""
    """Why nothing could be read."""


class Sample(Value, frozen=True, kw_only=True):
    """A GPU and the monotonic moment, in seconds, at which it was read."""

    gpu: Gpu
    at: float


Samples = Mapping[DeviceId, Sample]


def fold(known: Samples, line: ProbeLine, now: float) -> dict[DeviceId, Sample]:
    """What is known after one more line. GPUs do not vanish: one that is missing is lost."""
    fresh = {gpu.uuid: Sample(gpu=gpu, at=now - gpu.age_ms / 1000) for gpu in line.gpus}
    unreadable = {entry.index: entry.health for entry in line.unreadable}
    missing: dict[DeviceId, Sample] = {}
    for uuid, sample in known.items():
        if uuid in fresh or uuid in line.partitioned or uuid.startswith(UNNAMED_PREFIX):
            continue
        health = unreadable.get(sample.gpu.index)
        if health is None and uuid.startswith(MIG_PREFIX):
            continue
        gpu = msgspec.structs.replace(sample.gpu, health=health or GpuHealth.LOST)
        missing[uuid] = Sample(gpu=gpu, at=sample.at)
    named = {sample.gpu.index for sample in missing.values()}
    unnamed = (_unnamed(entry) for entry in line.unreadable if entry.index not in named)
    found = fresh | missing | {gpu.uuid: Sample(gpu=gpu, at=now) for gpu in unnamed}
    return {uuid: _counted(sample, known.get(uuid), line.xids) for uuid, sample in found.items()}


def view(known: Samples, now: float, stale_after_s: float) -> tuple[Gpu, ...]:
    """The GPUs as of `now`, by index. What was not read for too long is unknown, unless it is lost."""
    gpus = (_aged(sample, now, stale_after_s) for sample in known.values())
    return tuple(sorted(gpus, key=lambda gpu: (gpu.index, gpu.uuid)))


def _counted(sample: Sample, before: Sample | None, xids: tuple[Xid, ...]) -> Sample:
    """The sample with all Xids of its GPU so far."""
    gpu = sample.gpu
    counts = Counter(before.gpu.signs.xids if before is not None else {})
    counts.update(xid.code for xid in xids if xid.gpu in (gpu.uuid, gpu.parent))
    if not counts:
        return sample
    signs = msgspec.structs.replace(gpu.signs, xids=dict(counts))
    return Sample(gpu=msgspec.structs.replace(gpu, signs=signs), at=sample.at)


def _unnamed(entry: Unreadable) -> Gpu:
    return Gpu(uuid=DeviceId(f"{UNNAMED_PREFIX}{entry.index}"), index=entry.index, health=entry.health)


def _aged(sample: Sample, now: float, stale_after_s: float) -> Gpu:
    age_s = max(0.0, now - sample.at)
    health = sample.gpu.health
    if age_s > stale_after_s and health is not GpuHealth.LOST:
        health = GpuHealth.UNKNOWN
    return msgspec.structs.replace(sample.gpu, age_ms=round(age_s * 1000), health=health)
