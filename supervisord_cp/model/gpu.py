"""GPUs: what they are and what was last read from them."""

from enum import StrEnum

from supervisord_cp.model.base import DeviceId, Value
from supervisord_cp.model.reason import NO_REASON, Reason


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
    BACKOFF = "backoff"
    """Kept for an instance that crashed and is not tried at this moment."""


class Slowdown(StrEnum):
    """Why a GPU runs slower than it could, when that is no normal operation."""

    HARDWARE = "hardware"
    HARDWARE_THERMAL = "hardware_thermal"
    SOFTWARE_THERMAL = "software_thermal"
    POWER_BRAKE = "power_brake"
    UNKNOWN = "unknown"

    @classmethod
    def _missing_(cls, value: object) -> "Slowdown":
        return cls.UNKNOWN


class RecoveryAction(StrEnum):
    """What the driver says has to be done before a GPU is well again."""

    NONE = "none"
    GPU_RESET = "gpu_reset"
    NODE_REBOOT = "node_reboot"
    DRAIN_P2P = "drain_p2p"
    DRAIN_AND_RESET = "drain_and_reset"
    RECOVER_IMEX = "recover_imex"
    BUS_RESET = "bus_reset"
    SYSTEM_REBOOT = "system_reboot"
    UNKNOWN = "unknown"

    @classmethod
    def _missing_(cls, value: object) -> "RecoveryAction":
        return cls.UNKNOWN


class GpuSigns(Value, frozen=True, kw_only=True):
    """What the driver says of a GPU's condition. None is unknown, or not offered by this GPU."""

    slowdowns: tuple[Slowdown, ...] = ()
    ecc_uncorrected: int | None = None
    """Uncorrectable memory errors since the driver was loaded."""
    remap_pending: bool | None = None
    """Memory rows wait for a reset to be replaced by spare ones."""
    remap_failed: bool | None = None
    """Memory rows could not be replaced."""
    recovery: RecoveryAction | None = None
    xids: dict[int, int] = {}
    """How often each Xid (the driver's number of an error) was seen, since the agent began to look."""


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
    health_reason: Reason = NO_REASON
    health_age_ms: int = 0
    """How long its health has been what it is."""
    signs: GpuSigns = GpuSigns()
    parent: DeviceId | None = None
    """The GPU that a MIG device is cut from."""
    holders: tuple[Holder, ...] = ()
    age_ms: int = 0
