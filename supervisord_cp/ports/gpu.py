"""Reading GPUs and the host."""

from typing import Protocol

from supervisord_cp.model.base import Value
from supervisord_cp.model.gpu import Gpu
from supervisord_cp.model.node import HostLoad
from supervisord_cp.model.reason import NO_REASON, Reason


class GpuReading(Value, frozen=True, kw_only=True):
    """All GPUs of the host. `None` means unknown (a hung driver), an empty tuple means none."""

    gpus: tuple[Gpu, ...] | None
    reason: Reason = NO_REASON


class GpuPort(Protocol):
    """GPUs, read by somebody who may hang without harm to the caller."""

    async def start(self) -> None: ...

    def read(self) -> GpuReading:
        """The last reading, at once; samples carry their ages."""
        ...

    async def stop(self) -> None: ...


class HostPort(Protocol):
    """CPU, memory and disk of the host."""

    def read(self) -> HostLoad: ...
