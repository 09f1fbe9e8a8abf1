"""What is kept of an abnormal end, in one file."""

from supervisord_cp.model.base import DeploymentName, DeviceId, Incarnation, InstanceId, Value
from supervisord_cp.model.gpu import GpuHealth
from supervisord_cp.model.instance import ExitCause, Phase


class GpuSample(Value, frozen=True, kw_only=True):
    """A GPU at one moment before the end. None is unknown."""

    before_s: float
    """Seconds between the sample and the end."""
    uuid: DeviceId
    memory_used: int | None = None
    utilization: float | None = None
    """Ratio, 0 to 1."""
    temperature_c: float | None = None
    power_w: float | None = None
    health: GpuHealth = GpuHealth.UNKNOWN


class Capsule(Value, frozen=True, kw_only=True):
    """One abnormal end with its evidence. Texts are redacted."""

    instance: InstanceId
    deployment: DeploymentName
    incarnation: Incarnation
    revision: str
    """The digest of its launch specification."""
    engine: str
    model: str
    devices: tuple[DeviceId, ...] = ()
    at: str = ""
    """When, by the host's own clock (ISO 8601, UTC): for people who look into other logs."""
    cause: ExitCause = ExitCause.UNKNOWN
    evidence: str = ""
    code: int | None = None
    signal: int | None = None
    phase: Phase = Phase.NONE
    """How far its start had come."""
    served: bool = False
    oom_kills: int = 0
    """Processes that the kernel killed for want of memory just before: its own, or where they cannot be
    told apart the host's."""
    gpus: tuple[GpuSample, ...] = ()
    """Its GPUs in the last minute, the oldest first."""
    stacks: str = ""
    """What its processes were doing when it was given up."""
    log_tail: str = ""
