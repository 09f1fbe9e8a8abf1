"""The life of one instance as a value: what is wanted, what is observed, what happened before."""

from enum import StrEnum
from typing import Final

from supervisord_cp.model.base import DeviceId, Incarnation, Value
from supervisord_cp.model.instance import ExitCause, Phase
from supervisord_cp.model.launch import DesiredInstance, RunState
from supervisord_cp.model.reason import NO_REASON, Reason


class Stage(StrEnum):
    """What is observed of an instance, and so what may happen next."""

    IDLE = "idle"
    """No process, and nothing under way."""
    ADMITTING = "admitting"
    """A start is asked for and waits for devices, memory, a port or its turn."""
    ADMITTED = "admitted"
    """The start may go ahead; left at once."""
    SPAWNING = "spawning"
    """The back end is starting a process."""
    STARTING = "starting"
    """A process runs and does not serve yet."""
    ADOPTED = "adopted"
    """Served in an earlier life of the agent, runs, was not asked again yet."""
    READY = "ready"
    DEGRADED = "degraded"
    """Served, and fails its health checks."""
    FALLING_ASLEEP = "falling_asleep"
    """Serves nobody any more and is being put to sleep."""
    ASLEEP = "asleep"
    """Runs, serves nobody and holds little: its devices may be used by others."""
    WAKING = "waking"
    """Is wanted again: waits for its devices, wakes up, and has to answer as before."""
    STOPPING = "stopping"
    """Told to end; done when its whole tree is gone."""
    CRASHED = "crashed"
    """Ended unasked; its tree is being cleared away."""
    BACKOFF = "backoff"
    """Waits before the next start."""
    ABSENT = "absent"
    """Removed, and gone: the end."""


SLEEPY: Final = frozenset({Stage.FALLING_ASLEEP, Stage.ASLEEP, Stage.WAKING})
"""It was ready and is not: what its health checks say does not matter."""
RUNNING: Final = frozenset({Stage.STARTING, Stage.ADOPTED, Stage.READY, Stage.DEGRADED}) | SLEEPY
"""The main process runs and nobody has told it to end."""
LOADING: Final = frozenset({Stage.ADMITTED, Stage.SPAWNING, Stage.STARTING})
"""Counts against the limit of parallel starts."""
HOLDING: Final = RUNNING | LOADING | {Stage.STOPPING, Stage.CRASHED}
"""Processes may be alive: devices and port are in use."""


class Launch(Value, frozen=True, kw_only=True):
    """What an incarnation was started for. When the desired one differs, it is replaced."""

    revision: str
    devices: tuple[DeviceId, ...]
    restart: int = 0

    @classmethod
    def of(cls, desired: DesiredInstance) -> "Launch":
        """The launch that a desired instance asks for."""
        return cls(revision=desired.revision, devices=desired.devices, restart=desired.restart)

    def serves(self, desired: DesiredInstance) -> bool:
        """Whether an incarnation started for this is still the one that is wanted."""
        return (
            self.revision == desired.revision
            and self.devices == desired.devices
            and self.restart >= desired.restart
        )


class Run(Value, frozen=True, kw_only=True):
    """One incarnation, running or ended. Times are monotonic seconds."""

    incarnation: Incarnation
    pid: int | None
    """None once the main process has ended."""
    launch: Launch
    spawned_at: float
    stop_grace_s: float = 30.0
    ready_since: float | None = None
    exited_at: float | None = None
    """When its end was heard of; of its main process, others may be left."""
    phase: Phase = Phase.SPAWNED
    moved_at: float | None = None
    """When its start last computed or said something, as far as it was looked at."""
    io_at: float | None = None
    """And when it last read or wrote."""
    frozen: Reason = NO_REASON
    """Why its start is given up before its deadline."""
    inputs: str = ""
    """Digest of what the launch depended on besides its specification; "" is unknown."""


class Ended(Value, frozen=True, kw_only=True):
    """How an incarnation ended."""

    at: float
    """Monotonic seconds."""
    code: int | None = None
    signal: int | None = None
    cause: ExitCause = ExitCause.UNKNOWN
    detail: str = ""
    """One line of evidence; redacted."""


class Slept(Value, frozen=True, kw_only=True):
    """An incarnation that was sent to sleep and has not proved since that it is awake."""

    incarnation: Incarnation
    answer: str
    """What it answered before; after it has woken it must answer the same."""


class History(Value, frozen=True, kw_only=True):
    """What is remembered over incarnations, and over lives of the agent."""

    restarts: int = 0
    """Unrequested ends, failed starts among them, since the instance was created."""
    failures: int = 0
    """Those in a row, without healthy time between them."""
    retry_at: float | None = None
    """When the next start may be tried, monotonic seconds; None: now."""
    last: Ended | None = None
    failed: Launch | None = None
    """What the latest failure was a launch of: asking for something else starts afresh."""
    inputs: str = ""
    """And the digest of what that depended on besides; "" is unknown."""
    ended: Incarnation | None = None
    """The latest incarnation whose end is part of this history."""
    ready: Incarnation | None = None
    """The incarnation that has served, if the present one has."""
    ready_since: float | None = None
    slept: Slept | None = None


class Stopping(Value, frozen=True, kw_only=True):
    """A stop under way."""

    reason: Reason
    since: float
    grace_s: float
    fault: ExitCause | None = None
    """Set when the stop is the answer to a failure: it counts as one, and is followed by backoff."""


class Life(Value, frozen=True, kw_only=True):
    """One instance."""

    desired: DesiredInstance
    listed: bool = True
    """Whether the desired state of the node mentions it."""
    removed: bool = False
    """Central has named it as a removal."""
    halted: bool = False
    """The agent itself is going away and takes its engines with it."""
    stage: Stage = Stage.IDLE
    asked: Launch | None = None
    """What a start under way was asked for."""
    hold: Reason = NO_REASON
    """Why a start waits."""
    run: Run | None = None
    """The latest incarnation."""
    health: Reason = NO_REASON
    """What the last failed health check said."""
    health_failures: int = 0
    """Failed health checks in a row."""
    stalled: bool = False
    """It hangs, and no health check counts any more; `health` says what was seen."""
    given_up: ExitCause | None = None
    """And it may be ended, for this cause."""
    stopping: Stopping | None = None
    releasing: Reason = NO_REASON
    """What of it is still held though its processes are gone."""
    history: History = History()

    @property
    def wanted(self) -> bool:
        """Whether a serving process is wanted."""
        return self.desired.run is RunState.RUNNING and not self.removed and not self.halted

    @property
    def sleeps(self) -> bool:
        """Whether a process that there is may stay, asleep."""
        return self.desired.run is RunState.SLEEPING and not self.removed and not self.halted


class LifePolicy(Value, frozen=True, kw_only=True):
    """Numbers of the lifecycle, in seconds unless named otherwise."""

    forgive_after_s: float = 600.0
    """Healthy time after which earlier failures no longer lengthen the backoff."""
    degraded_after: int = 3
    """Failed health checks in a row that make a ready instance degraded."""
    moving_s: float = 60.0
    """How long after its last movement a start still counts as going on."""
    most_extension: float = 4.0
    """Times `start_timeout_s`: a start that only computes or talks may not take longer."""
    loading_grace_s: float = 5.0
    """The longest grace of an engine that has nothing to finish, because it never served."""
    unkillable_after_s: float = 10.0
    """How long after SIGKILL a tree that is still there counts as unkillable."""


DEFAULT_POLICY: Final = LifePolicy()
