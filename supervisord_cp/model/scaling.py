"""How many replicas: what a policy proposes, what limits made of it, and what is to be done."""

from supervisord_cp.model.base import DeploymentName, DeviceId, InstanceId, NodeName, Value
from supervisord_cp.model.launch import LaunchSpec
from supervisord_cp.model.reason import NO_REASON, Reason


class ScaleBounds(Value, frozen=True, kw_only=True):
    """Limits of a deployment."""

    min: int = 0
    max: int = 0


class ScaleView(Value, frozen=True, kw_only=True):
    """What a scaler may know of a deployment."""

    deployment: DeploymentName
    configured: int
    """`replicas` of the configuration."""
    bounds: ScaleBounds
    ready: int = 0
    starting: int = 0
    params: dict[str, object] = {}


class ScaleProposal(Value, frozen=True, kw_only=True):
    """What a policy thinks is right, before any limit. None: it cannot tell."""

    policy: str
    replicas: float | None
    reason: Reason = NO_REASON


class Limit(Value, frozen=True, kw_only=True):
    """A limit that changed the number."""

    reason: Reason
    before: int
    after: int


class ScaleDecision(Value, frozen=True, kw_only=True):
    """The number of replicas that a deployment gets, and why. Re-computable from its inputs."""

    deployment: DeploymentName
    wanted: int
    proposals: tuple[ScaleProposal, ...] = ()
    limits: tuple[Limit, ...] = ()
    reason: Reason = NO_REASON


class Start(Value, frozen=True, kw_only=True, tag="start", tag_field="do"):
    """Place a new instance."""

    instance: InstanceId
    deployment: DeploymentName
    node: NodeName
    devices: tuple[DeviceId, ...]
    spec: LaunchSpec
    revision: str


class Retire(Value, frozen=True, kw_only=True, tag="retire", tag_field="do"):
    """Drain an instance, then stop and remove it."""

    instance: InstanceId
    deployment: DeploymentName
    reason: Reason


Action = Start | Retire


class Unplaced(Value, frozen=True, kw_only=True):
    """A replica that is wanted and cannot be placed."""

    deployment: DeploymentName
    reason: Reason


class ScalePlan(Value, frozen=True, kw_only=True):
    """What is to be done next for the whole fleet."""

    actions: tuple[Action, ...] = ()
    unplaced: tuple[Unplaced, ...] = ()
