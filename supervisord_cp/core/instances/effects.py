"""What has to be done about an instance."""

from supervisord_cp.model.base import Value
from supervisord_cp.model.event import Event
from supervisord_cp.model.instance import ExitCause
from supervisord_cp.model.launch import DesiredInstance


class Admit(Value, frozen=True, kw_only=True):
    """Ask for permission to start; answered by `Held`, any number of times, and `Admitted`."""

    desired: DesiredInstance


class Withdraw(Value, frozen=True, kw_only=True):
    """Take that question back: neither answer may come any more."""


class Spawn(Value, frozen=True, kw_only=True):
    """Start it; answered by `Spawned` or `SpawnFailed`, once."""

    desired: DesiredInstance


class Stop(Value, frozen=True, kw_only=True):
    """Ask for the end of the whole tree; answered by `Exited` and `Gone`."""

    grace_s: float
    """Seconds between SIGTERM and SIGKILL."""
    fault: ExitCause | None = None
    """Set when it is ended because something is wrong with it."""
    why: str = ""
    """What is wrong with it, for people."""


class Sleep(Value, frozen=True, kw_only=True):
    """Put it to sleep; answered by `Answered` and `FellAsleep`, or by `SleepFailed`."""


class Wake(Value, frozen=True, kw_only=True):
    """Wake it when its devices are free; answered by `Held`, any number of times, and `Woken` or
    `SleepFailed`."""

    answer: str
    """What it has to answer."""


class SleepOn(Value, frozen=True, kw_only=True):
    """It need not wake after all; takes a `Wake` back that is still held."""


class Forget(Value, frozen=True, kw_only=True):
    """Remove every trace: the instance has ended and is not wanted any more."""


class Announce(Value, frozen=True, kw_only=True):
    """Tell people what happened."""

    event: Event


Effect = Admit | Withdraw | Spawn | Stop | Sleep | Wake | SleepOn | Forget | Announce
