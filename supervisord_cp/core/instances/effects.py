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


class Forget(Value, frozen=True, kw_only=True):
    """Remove every trace: the instance has ended and is not wanted any more."""


class Announce(Value, frozen=True, kw_only=True):
    """Tell people what happened."""

    event: Event


Effect = Admit | Withdraw | Spawn | Stop | Forget | Announce
