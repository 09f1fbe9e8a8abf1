"""What central has decided and remembers: places of instances, overrides and cordons."""

from enum import StrEnum

from supervisord_cp.model.base import DeploymentName, DeviceId, InstanceId, NodeName, Value
from supervisord_cp.model.launch import LaunchSpec, RunState
from supervisord_cp.model.reason import NO_REASON, Reason


class Leave(StrEnum):
    """What happens to an instance once its requests are done."""

    REMOVE = "remove"
    SLEEP = "sleep"
    STOP = "stop"
    RESTART = "restart"


class Leaving(Value, frozen=True, kw_only=True):
    """An instance that is drained first: every removal, for whatever cause, takes this way."""

    to: Leave
    reason: Reason = NO_REASON
    deadline_s: float = 300.0
    """How long its requests may take, counted from when routers were told."""
    waiting: bool = False
    """It still serves: its turn comes when the deployment's other instances are ready."""


class Assignment(Value, frozen=True, kw_only=True):
    """A place for an instance: which node, which devices, which revision."""

    id: InstanceId
    deployment: DeploymentName
    node: NodeName
    devices: tuple[DeviceId, ...]
    revision: str
    spec: LaunchSpec | None = None
    """None: found running with a revision that central has never seen; kept as it is."""
    run: RunState = RunState.RUNNING
    restart: int = 0
    leaving: Leaving | None = None
    released: bool = False
    """Its requests are done (or their deadline has passed): the agent may remove it."""
    max_concurrency: int = 0
    lost: bool = False
    """Its node is silent and its engine does not answer: replaced elsewhere where there is room, removed
    nowhere. It counts again when its node is back."""

    @property
    def draining(self) -> bool:
        """Whether routers send nothing new to it."""
        return self.leaving is not None and not self.leaving.waiting

    @property
    def counts(self) -> bool:
        """Whether it is one of the replicas that are wanted: not removed, not asleep, not lost."""
        if self.leaving is None:
            return not self.lost and self.run is not RunState.SLEEPING
        return not self.lost and self.leaving.to not in (Leave.REMOVE, Leave.SLEEP)

    @property
    def asleep(self) -> bool:
        """Whether it is to sleep, and nothing else is wanted of it."""
        return self.run is RunState.SLEEPING and self.leaving is None

    @property
    def reserve(self) -> bool:
        """Whether it sleeps, or drains to that end."""
        if self.leaving is None:
            return self.run is RunState.SLEEPING
        return self.leaving.to is Leave.SLEEP


class Override(Value, frozen=True, kw_only=True):
    """A number of replicas set by hand, or learned from what was found running."""

    deployment: DeploymentName
    replicas: int
    learned: bool = False
    expires_at: float | None = None
    """Seconds since 1970, because it outlives the process; None: never."""


class Cordon(Value, frozen=True, kw_only=True):
    """Nothing new is placed on this node, or on this one of its devices."""

    node: NodeName
    device: DeviceId | None = None


class Forgotten(Value, frozen=True, kw_only=True):
    """A node that was given up. Its engines may run on where nobody sees them, so that their names are
    given to no others: should it come back, each is still told from all the rest."""

    node: NodeName
    instances: tuple[InstanceId, ...]


class BadRevision(Value, frozen=True, kw_only=True):
    """A revision that did not come up, or is worse; its predecessor is wanted instead until the configuration
    changes."""

    deployment: DeploymentName
    revision: str
    good: LaunchSpec
    reason: Reason = NO_REASON


class Hold(Value, frozen=True, kw_only=True):
    """A deployment that an operator has stopped."""

    deployment: DeploymentName
