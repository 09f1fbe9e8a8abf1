"""The last minute of the node's GPUs, for those who ask what a GPU did before an engine ended."""

from collections import deque
from collections.abc import Collection
from typing import Final

from supervisord_cp.clock import Clock
from supervisord_cp.model.base import DeviceId
from supervisord_cp.model.capsule import GpuSample
from supervisord_cp.model.gpu import Gpu
from supervisord_cp.ports.gpu import GpuPort

KEPT_S: Final = 60.0
APART_S: Final = 0.9


class GpuTimeline:
    """Keeps readings. Wants to be asked for a sample about once a second."""

    def __init__(self, gpu: GpuPort, clock: Clock) -> None:
        self._gpu = gpu
        self._clock = clock
        self._readings: deque[tuple[float, tuple[Gpu, ...]]] = deque()

    def sample(self) -> None:
        """Keep the present reading; unknown ones are left out."""
        now = self._clock.now()
        if self._readings and now - self._readings[-1][0] < APART_S:
            return
        if gpus := self._gpu.read().gpus:
            self._readings.append((now, gpus))
        while self._readings and now - self._readings[0][0] > KEPT_S:
            self._readings.popleft()

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
