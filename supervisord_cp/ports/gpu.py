"""Reading GPUs and the host."""

from typing import Protocol

from supervisord_cp.model.base import Value
from supervisord_cp.model.gpu import Gpu
from supervisord_cp.model.node import HostLoad
from supervisord_cp.model.reason import NO_REASON, Reason


class GpuReading(Value, frozen=True, kw_only=True):
    """All GPUs of the host. `None` means unknown (a hung driver), an empty tuple means none.

    A GPU that was seen once stays in the reading: `lost` when the driver no longer has it, `unknown`
    when it was not read for too long; its last figures stay with their age. Only MIG devices go away,
    because they are made and unmade on purpose.
    """

    gpus: tuple[Gpu, ...] | None
    reason: Reason = NO_REASON
    """Why GPUs are unknown, none, or not read any more."""


class GpuPort(Protocol):
    """GPUs, read by somebody who may hang without harm to the caller."""

    async def start(self) -> None:
        """Begin to read; returns before the first reading is there."""
        ...

    def read(self) -> GpuReading:
        """The last reading, at once; samples carry their ages."""
        ...

    async def stop(self) -> None:
        """Stop reading; returns also when the reader cannot be ended."""
        ...


class HostPort(Protocol):
    """CPU, memory and disk of the host."""

    def read(self) -> HostLoad:
        """What is the case now; the CPU figure is the mean since the reading before."""
        ...
