"""Instances as they are observed."""

from enum import StrEnum
from typing import Final

from supervisord_cp.model.base import DeploymentName, DeviceId, Incarnation, InstanceId, Value
from supervisord_cp.model.reason import NO_REASON, Reason


class InstanceState(StrEnum):
    """The states that users see."""

    GATED = "gated"
    STARTING = "starting"
    READY = "ready"
    DEGRADED = "degraded"
    DRAINING = "draining"
    STOPPING = "stopping"
    RELEASING = "releasing"
    SLEEPING = "sleeping"
    CRASHED = "crashed"
    BACKOFF = "backoff"
    STOPPED = "stopped"
    UNKNOWN = "unknown"
    UNLISTED = "unlisted"

    @classmethod
    def _missing_(cls, value: object) -> "InstanceState":
        return cls.UNKNOWN


class Phase(StrEnum):
    """How far a start has come."""

    NONE = ""
    SPAWNED = "spawned"
    LOADING = "loading weights"
    COMPILING = "compiling"
    WARMING = "warming up"
    READY = "ready"

    @classmethod
    def _missing_(cls, value: object) -> "Phase":
        return cls.NONE


START_STAGES: Final[tuple[str, ...]] = (
    InstanceState.GATED,
    Phase.SPAWNED,
    Phase.LOADING,
    Phase.COMPILING,
    Phase.WARMING,
)
"""What an instance goes through until it is ready, the wait before its launch first; any may be left out."""


class ExitCause(StrEnum):
    """Why an engine ended. An exit that nobody asked for is a failure, with exit code 0 too."""

    REQUESTED = "requested"
    CONFIGURATION = "configuration"
    """Its flags or its installation are wrong; it ends the same way until somebody mends them."""
    MODEL_ACCESS = "model_access"
    """The model cannot be read: not there, not allowed, hub not reachable."""
    GPU_MEMORY = "gpu_memory"
    """Too little GPU memory was free."""
    KV_CACHE = "kv_cache"
    """What memory is left for the KV cache does not hold one request of the longest length."""
    PORT_TAKEN = "port_taken"
    GPU_FAULT = "gpu_fault"
    """A CUDA, driver or device error."""
    COLLECTIVE_HANG = "collective_hang"
    """The processes of one engine waited for each other in vain."""
    STALLED = "stalled"
    """Its requests ran and made no progress; the agent ended it."""
    ENGINE_DEAD = "engine_dead"
    """The engine crashed; vLLM then exits with code 0."""
    KILLED = "killed"
    """Somebody else ended it with a signal."""
    HOST_MEMORY = "host_memory"
    SPAWN_FAILED = "spawn_failed"
    START_TIMEOUT = "start_timeout"
    SLEEP_MODE = "sleep_mode"
    """It did not fall asleep or wake up as it should, or its answers changed meanwhile."""
    KEEPER_LOST = "keeper_lost"
    UNKNOWN = "unknown"

    @classmethod
    def _missing_(cls, value: object) -> "ExitCause":
        return cls.UNKNOWN


class LastExit(Value, frozen=True, kw_only=True):
    """How the previous incarnation ended."""

    code: int | None = None
    signal: int | None = None
    cause: ExitCause = ExitCause.UNKNOWN
    age_s: float = 0.0
    detail: str = ""
    """One line of evidence, such as the last error of its log; redacted."""


class EngineLoad(Value, frozen=True, kw_only=True):
    """What an engine's own metrics say. None is unknown, which is not zero."""

    running: int | None = None
    """Requests in its batch."""
    waiting: int | None = None
    """Requests in its own queue."""
    kv_cache_usage: float | None = None
    """Ratio, 0 to 1."""
    prompt_tokens_total: float | None = None
    generation_tokens_total: float | None = None
    preemptions_total: float | None = None
    iterations_total: float | None = None
    """Steps of the engine."""
    ttft_total_s: float | None = None
    """Times to first token, summed, of so many requests:"""
    ttft_count: float | None = None
    itl_total_s: float | None = None
    """Times between two tokens, summed, of so many tokens:"""
    itl_count: float | None = None
    asleep: bool | None = None
    age_ms: int = 0
    """How old the report is."""
    ranks: "tuple[EngineLoad, ...]" = ()
    """With data parallelism the figures of each rank, which hide nothing of each other; else empty."""


class InstanceStatus(Value, frozen=True, kw_only=True):
    """One instance as its agent sees it."""

    id: InstanceId
    deployment: DeploymentName
    engine: str
    revision: str
    incarnation: Incarnation = Incarnation("")
    """"" while nothing was ever spawned."""
    state: InstanceState = InstanceState.GATED
    reason: Reason = NO_REASON
    phase: Phase = Phase.NONE
    eta_s: float | None = None
    pid: int | None = None
    url: str = ""
    """`http://host:port`, "" while there is none."""
    devices: tuple[DeviceId, ...] = ()
    restart: int = 0
    """The restart count of the desired state that this incarnation satisfies."""
    restarts: int = 0
    """Unrequested exits since the instance was created."""
    uptime_s: float = 0.0
    """Of this incarnation since it became ready."""
    load: EngineLoad | None = None
    last_exit: LastExit | None = None
    served_names: tuple[str, ...] = ()
    max_concurrency: int = 0
    listed: bool = True
    """False when the desired state does not mention it."""
    can_sleep: bool = False
    """Whether this incarnation was started with vLLM's sleep mode."""
