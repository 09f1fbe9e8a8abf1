"""GPUs: what they are and what was last read from them."""

from enum import StrEnum

from supervisord_cp.model.base import DeviceId, Value


class GpuHealth(StrEnum):
    """What the agent thinks of a GPU."""

    HEALTHY = "healthy"
    SUSPECT = "suspect"
    QUARANTINED = "quarantined"
    LOST = "lost"
    UNKNOWN = "unknown"

    @classmethod
    def _missing_(cls, value: object) -> "GpuHealth":
        return cls.UNKNOWN


class GpuUse(StrEnum):
    """What a GPU (or a CPU slot) is used for."""

    FREE = "free"
    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"
    FOREIGN = "foreign"
    CORDONED = "cordoned"


class Holder(Value, frozen=True, kw_only=True):
    """A process that holds memory of a GPU."""

    pid: int
    owner: str
    command: str
    bytes: int
    instance: str = ""
    """The instance whose process tree it belongs to; "" is a stranger."""


class Gpu(Value, frozen=True, kw_only=True):
    """One GPU with its last sample. None is unknown, which is not zero."""

    uuid: DeviceId
    index: int
    name: str = ""
    memory_total: int | None = None
    memory_used: int | None = None
    utilization: float | None = None
    """Ratio, 0 to 1."""
    temperature_c: float | None = None
    power_w: float | None = None
    health: GpuHealth = GpuHealth.HEALTHY
    holders: tuple[Holder, ...] = ()
    age_ms: int = 0
