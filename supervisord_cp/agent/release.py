"""Waiting for GPU memory of engines that are gone."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from typing import Final

from supervisord_cp.clock import Clock
from supervisord_cp.core.instances.release import Baseline, baseline_of, read_since, still_held
from supervisord_cp.model.base import DeviceId
from supervisord_cp.model.gpu import Gpu
from supervisord_cp.model.reason import NO_REASON, Reason
from supervisord_cp.ports.gpu import GpuPort

PATIENCE_S: Final = 60.0
"""Memory that is not back by then may be somebody else's; whoever needs it waits for it at the gate."""
READING_S: Final = 3.0
"""Without a reading for so long nobody can tell: a driver that hangs does not delay a restart."""
LOOK_S: Final = 0.1


class MemoryReturn:
    """Tells whether memory is back. On a node without GPUs it always is."""

    def __init__(self, gpu: GpuPort, clock: Clock) -> None:
        self._gpu = gpu
        self._clock = clock

    def baseline(self, devices: Collection[DeviceId]) -> Baseline:
        """What is in use before an engine takes memory; to be asked for when it is spawned."""
        return baseline_of(devices, self._gpus())

    async def awaited(self, baseline: Baseline) -> AsyncIterator[Reason]:
        """What is still held, each time that changes; ends when the memory is back.

        To be asked when the last process of an engine is gone.
        """
        since, said = self._clock.now(), NO_REASON
        while (gone_s := self._clock.now() - since) < PATIENCE_S:
            gpus = self._gpus()
            if read_since(baseline, gpus, gone_s):
                reason = still_held(baseline, gpus)
                if reason == NO_REASON:
                    return
                if reason != said:
                    said = reason
                    yield reason
            elif gone_s > READING_S:
                return
            await asyncio.sleep(LOOK_S)

    def _gpus(self) -> Mapping[DeviceId, Gpu]:
        return {gpu.uuid: gpu for gpu in self._gpu.read().gpus or ()}
