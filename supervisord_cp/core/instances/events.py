"""What can happen to an instance."""

from supervisord_cp.core.instances.life import Launch
from supervisord_cp.model.base import Incarnation, Value
from supervisord_cp.model.instance import ExitCause, Phase
from supervisord_cp.model.launch import DesiredInstance
from supervisord_cp.model.reason import Reason


class Wanted(Value, frozen=True, kw_only=True):
    """The desired state mentions the instance."""

    desired: DesiredInstance


class Unlisted(Value, frozen=True, kw_only=True):
    """The desired state no longer mentions it. It is kept."""


class Removed(Value, frozen=True, kw_only=True):
    """Central names it as a removal."""


class Halted(Value, frozen=True, kw_only=True):
    """The agent goes away and takes its engines with it."""


class Held(Value, frozen=True, kw_only=True):
    """A start has to wait."""

    reason: Reason


class Admitted(Value, frozen=True, kw_only=True):
    """A start may go ahead."""


class Spawned(Value, frozen=True, kw_only=True):
    """The process runs."""

    incarnation: Incarnation
    pid: int
    stop_grace_s: float = 30.0
    inputs: str = ""
    """Digest of what the launch depended on besides its specification; "" is unknown."""


class SpawnFailed(Value, frozen=True, kw_only=True):
    """The process could not be started; nothing of it is left."""

    detail: str
    cause: ExitCause = ExitCause.SPAWN_FAILED
    inputs: str = ""


class Adopted(Value, frozen=True, kw_only=True):
    """An incarnation of an earlier life of the agent was found, running or ended."""

    incarnation: Incarnation
    pid: int
    launch: Launch
    stop_grace_s: float = 30.0
    inputs: str = ""


class InputsSeen(Value, frozen=True, kw_only=True):
    """What a launch depends on besides its specification was looked at: program, model, node."""

    inputs: str
    """Its digest."""


class PhaseSeen(Value, frozen=True, kw_only=True):
    """Its log announces a phase of the start."""

    phase: Phase


class Moved(Value, frozen=True, kw_only=True):
    """A start goes on: it reads or writes (`io`), or it computes or says something."""

    io: bool = False


class Frozen(Value, frozen=True, kw_only=True):
    """A start has not moved for longer than it is known to need."""

    reason: Reason


class ProbeOk(Value, frozen=True, kw_only=True):
    """It answers that it serves."""


class ProbeFailed(Value, frozen=True, kw_only=True):
    """It does not."""

    reason: Reason


class Stalled(Value, frozen=True, kw_only=True):
    """It hangs: it is out of rotation from here on, and is ended once `GivenUp` follows."""

    reason: Reason


class GivenUp(Value, frozen=True, kw_only=True):
    """What a hung engine was doing has been looked at: nothing is lost with it any more."""


class Answered(Value, frozen=True, kw_only=True):
    """What it answers to the canary question, before it is put to sleep."""

    text: str


class FellAsleep(Value, frozen=True, kw_only=True):
    """It sleeps."""


class Woken(Value, frozen=True, kw_only=True):
    """It is awake, and answers as before."""


class SleepFailed(Value, frozen=True, kw_only=True):
    """It does not fall asleep, or not wake up, or not answer as before: nobody knows what it is now."""

    reason: Reason


class Exited(Value, frozen=True, kw_only=True):
    """Its main process has ended."""

    code: int | None = None
    signal: int | None = None
    requested: bool = False
    """Whether a stop was asked for before, by this life of the agent or an earlier one."""
    age_s: float = 0.0


class Releasing(Value, frozen=True, kw_only=True):
    """No process of its tree is left, but its GPU memory is not back. Comes before `Gone`, if at all."""

    reason: Reason


class Gone(Value, frozen=True, kw_only=True):
    """No process of its tree is left, nor anything that it held. Comes after `Exited`."""

    cause: ExitCause = ExitCause.UNKNOWN
    """Why it ended, if the end was not asked for."""
    detail: str = ""


class Tick(Value, frozen=True, kw_only=True):
    """The time that `wake_at` named has come."""


LifeEvent = (
    Wanted
    | Unlisted
    | Removed
    | Halted
    | Held
    | Admitted
    | Spawned
    | SpawnFailed
    | Adopted
    | InputsSeen
    | PhaseSeen
    | Moved
    | Frozen
    | ProbeOk
    | ProbeFailed
    | Stalled
    | GivenUp
    | Answered
    | FellAsleep
    | Woken
    | SleepFailed
    | Exited
    | Releasing
    | Gone
    | Tick
)
