"""Xid events of all GPUs: what the probe listens for between two sweeps."""

import ctypes
import time
from typing import Final

import pynvml as nvml

from supervisord_cp.adapters.nvml_calls import Handle
from supervisord_cp.adapters.nvml_lines import Xid
from supervisord_cp.model.base import DeviceId

PAUSE_S: Final = 0.05
"""Between an event and the sweep that follows it: a storm of events is no storm of sweeps."""
MOST_AT_ONCE: Final = 1000


class XidEvents:
    """Listens from its making on. Without support for events it hears nothing, and only sleeps."""

    def __init__(self) -> None:
        self._names: dict[int | None, DeviceId] = {}
        """By handle: a lost GPU does not tell its UUID any more."""
        try:
            self._set = nvml.nvmlEventSetCreate()
        except nvml.NVMLError:
            self._set = None
            return
        for index in range(nvml.nvmlDeviceGetCount()):
            try:
                self._register(nvml.nvmlDeviceGetHandleByIndex(index))
            except nvml.NVMLError:
                continue  # lost, or without events; the sweep tells which

    def _register(self, handle: Handle) -> None:
        self._names[_address(handle)] = DeviceId(nvml.nvmlDeviceGetUUID(handle))
        nvml.nvmlDeviceRegisterEvents(handle, nvml.nvmlEventTypeXidCriticalError, self._set)

    def wait(self, seconds: float) -> tuple[Xid, ...]:
        """What happens within that time; returns soon after the first event."""
        deadline = time.monotonic() + seconds
        seen: list[Xid] = []
        while len(seen) < MOST_AT_ONCE and (xid := self._next(0.0 if seen else seconds)) is not None:
            seen.append(xid)
        time.sleep(PAUSE_S if seen else max(0.0, deadline - time.monotonic()))
        return tuple(seen)

    def _next(self, seconds: float) -> Xid | None:
        """The next Xid within that time. An error of the wait itself says nothing of any GPU."""
        if self._set is None:
            return None
        try:
            event = nvml.nvmlEventSetWait_v2(self._set, max(0, int(seconds * 1000)))
        except nvml.NVMLError:
            return None
        name = self._names.get(_address(event.device))
        return None if name is None else Xid(gpu=name, code=int(event.eventData))


def _address(handle: Handle) -> int | None:
    return ctypes.cast(handle, ctypes.c_void_p).value
