"""The host: CPU, memory and disk."""

from pathlib import Path

import psutil

from supervisord_cp.model.base import Value
from supervisord_cp.model.node import HostLoad


class CpuTimes(Value, frozen=True, kw_only=True):
    """Seconds of all cores since the host started."""

    total: float
    idle: float


class HostReader:
    """Reads the host; `disk` is a path on the disk whose free space matters."""

    def __init__(self, disk: Path) -> None:
        self._disk = disk
        self._cpu = _cpu_times()
        self._utilization: float | None = None

    def read(self) -> HostLoad:
        """What is the case now; the CPU figure is the mean since the reading before."""
        before, self._cpu = self._cpu, _cpu_times()
        self._utilization = utilization(before, self._cpu, otherwise=self._utilization)
        memory = psutil.virtual_memory()
        return HostLoad(
            cpu_count=psutil.cpu_count() or 0,
            cpu_utilization=self._utilization,
            memory_total=memory.total,
            memory_available=memory.available,
            disk_free=_disk_free(self._disk),
        )


def utilization(before: CpuTimes, after: CpuTimes, *, otherwise: float | None) -> float | None:
    """The busy share of the time between, 0 to 1; `otherwise` when no time has passed."""
    total = after.total - before.total
    if total <= 0:
        return otherwise
    return min(1.0, max(0.0, 1.0 - (after.idle - before.idle) / total))


def _cpu_times() -> CpuTimes:
    times = psutil.cpu_times()
    # The kernel counts guests' time in user's and nice's again.
    total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    return CpuTimes(total=total, idle=times.idle + getattr(times, "iowait", 0.0))


def _disk_free(path: Path) -> int | None:
    try:
        return psutil.disk_usage(str(path)).free
    except OSError:
        return None
