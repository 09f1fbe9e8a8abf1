"""Calls of NVML whose refusals are part of the answer: what a GPU does not offer, what is wrong with it."""

from collections.abc import Callable
from types import MappingProxyType
from typing import Any, Final, TypeVar

import pynvml as nvml

from supervisord_cp.model.gpu import GpuHealth

T = TypeVar("T")
Handle = Any
"""An NVML device handle: an opaque pointer."""

FIELD_ABSENT: Final = frozenset(
    {
        nvml.NVML_ERROR_NOT_SUPPORTED,
        nvml.NVML_ERROR_NO_PERMISSION,
        nvml.NVML_ERROR_FUNCTION_NOT_FOUND,
        nvml.NVML_ERROR_NO_DATA,
        nvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
    }
)
HEALTH_OF_ERROR: Final = MappingProxyType(
    {
        nvml.NVML_ERROR_GPU_IS_LOST: GpuHealth.LOST,
        nvml.NVML_ERROR_RESET_REQUIRED: GpuHealth.QUARANTINED,
    }
)
SEVERITY: Final = (
    GpuHealth.HEALTHY,
    GpuHealth.UNKNOWN,
    GpuHealth.SUSPECT,
    GpuHealth.QUARANTINED,
    GpuHealth.LOST,
)


class Asker:
    """Asks one device, and remembers the worst that its refusals say of its health."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self.health = GpuHealth.HEALTHY

    def __call__(self, call: Callable[[Handle], T]) -> T | None:
        """The answer; None: it does not offer it, or something is wrong."""
        try:
            return call(self._handle)
        except nvml.NVMLError as error:
            self.health = max(self.health, health_of(error), key=SEVERITY.index)
            return None


def health_of(error: nvml.NVMLError) -> GpuHealth:
    """What a refusal says of the GPU."""
    if error.value in FIELD_ABSENT:
        return GpuHealth.HEALTHY
    return HEALTH_OF_ERROR.get(error.value, GpuHealth.UNKNOWN)
