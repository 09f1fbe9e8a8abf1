"""What engines are put on: GPUs, or slots of a host without."""

import asyncio
import socket
from typing import Final

from supervisord_cp.agent.roster import Identity
from supervisord_cp.config.schema import AgentConfig
from supervisord_cp.model.base import DeviceId
from supervisord_cp.ports.gpu import GpuPort, GpuReading

FIRST_READING_S: Final = 10.0
"""How long the first reading may take; a driver that is silent for longer has GPUs, but hangs."""
LOOK_S: Final = 0.05


class NoGpus:
    """Stands where GPUs are not to be looked for."""

    async def start(self) -> None:
        """There is nothing to start."""

    def read(self) -> GpuReading:
        """None."""
        return GpuReading(gpus=())

    async def stop(self) -> None:
        """There is nothing to stop."""


async def identify(config: AgentConfig, gpu: GpuPort) -> Identity:
    """Who this node is. Waits for the first reading of its GPUs, within reason."""
    kind = config.device
    if kind == "auto":
        kind = "cpu" if await _has_none(gpu) else "cuda"
    return Identity(
        name=config.name or socket.gethostname(),
        device_kind=kind,
        slots=tuple(DeviceId(f"slot-{number}") for number in range(config.slots)) if kind == "cpu" else (),
    )


async def _has_none(gpu: GpuPort) -> bool:
    """Whether there is no GPU. Not knowing is not that."""
    try:
        async with asyncio.timeout(FIRST_READING_S):
            while (reading := gpu.read()).gpus is None:
                await asyncio.sleep(LOOK_S)
    except TimeoutError:
        return False
    return not reading.gpus
