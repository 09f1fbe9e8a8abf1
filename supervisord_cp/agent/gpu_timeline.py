"""The last minute of the node's GPUs, for those who ask what a GPU did before an engine ended."""

import asyncio
from collections import deque
from collections.abc import Collection
from typing import Final

from supervisord_cp.clock import Clock
from supervisord_cp.core.instances.xids import ends_engines, meaning_of
from supervisord_cp.model.base import DeviceId
from supervisord_cp.model.capsule import GpuSample
from supervisord_cp.model.gpu import Gpu
from supervisord_cp.ports.gpu import GpuPort

KEPT_S: Final = 60.0
APART_S: Final = 0.9
XIDS_S: Final = 30.0
"""An engine can outlive what the driver reports by some seconds."""
FRESH_S: Final = 2.0
LOOK_S: Final = 0.05


class GpuTimeline:
    """Keeps readings. Wants to be asked for a sample about once a second."""

    def __init__(self, gpu: GpuPort, clock: Clock) -> None:
        self._gpu = gpu
        self._clock = clock
        self._readings: deque[tuple[float, tuple[Gpu, ...]]] = deque()

    def sample(self, *, again: bool = False) -> None:
        """Keep the present reading; unknown ones are left out. `again`: however soon after the last one."""
        now = self._clock.now()
        if not again and self._readings and now - self._readings[-1][0] < APART_S:
            return
        gpus = self._gpu.read().gpus
        if gpus and not (again and self._readings and self._readings[-1][1] == gpus):
            self._readings.append((now, gpus))
        while self._readings and now - self._readings[0][0] > KEPT_S:
            self._readings.popleft()

    async def seen_since_now(self, devices: Collection[DeviceId]) -> None:
        """Wait until these have been read once more, for `FRESH_S` at most: what has just happened to them
        is known then. Not at all where nothing is read of them."""
        began = self._clock.now()
        for _ in range(round(FRESH_S / LOOK_S)):
            ages = [gpu.age_ms for gpu in self._gpu.read().gpus or () if gpu.uuid in devices]
            if not ages or max(ages) <= (self._clock.now() - began) * 1000:
                break
            await asyncio.sleep(LOOK_S)
        self.sample(again=True)

    def xids(self, devices: Collection[DeviceId]) -> tuple[str, ...]:
        """Xids of these devices within the last `XIDS_S` that explain the end of an engine, in words."""
        now, readings = self._clock.now(), tuple(self._readings)
        earlier = [gpus for at, gpus in readings if now - at > XIDS_S] or [gpus for _, gpus in readings[:1]]
        counted = {gpu.uuid: gpu.signs.xids for gpus in earlier[-1:] for gpu in gpus}
        return tuple(
            f"Xid {xid} on GPU {gpu.index}: {meaning_of(xid).words}"
            for _, gpus in readings[-1:]
            for gpu in gpus
            if gpu.uuid in devices
            for xid, count in gpu.signs.xids.items()
            if count > counted.get(gpu.uuid, {}).get(xid, 0) and ends_engines(xid)
        )

    def of(self, devices: Collection[DeviceId]) -> tuple[GpuSample, ...]:
        """What is kept of these devices, the oldest first."""
        now = self._clock.now()
        return tuple(
            GpuSample(
                before_s=round(now - at + gpu.age_ms / 1000, 1),
                uuid=gpu.uuid,
                memory_used=gpu.memory_used,
                utilization=gpu.utilization,
                temperature_c=gpu.temperature_c,
                power_w=gpu.power_w,
                health=gpu.health,
            )
            for at, gpus in tuple(self._readings)
            for gpu in gpus
            if gpu.uuid in devices
        )
