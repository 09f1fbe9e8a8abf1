"""How many replicas: what a policy sees and proposes, what limits made of it, and what is to be done."""

from enum import StrEnum
from typing import Final

from supervisord_cp.model.assignment import Override
from supervisord_cp.model.base import DeploymentName, DeviceId, InstanceId, NodeName, Value
from supervisord_cp.model.launch import LaunchSpec
from supervisord_cp.model.reason import NO_REASON, Reason
from supervisord_cp.model.signal import MISSING, ReplicaView, Signal, SignalName, together

DEFAULT_TOLERANCE: Final = 0.1


class ScaleBounds(Value, frozen=True, kw_only=True):
    """Limits of a deployment."""

    min: int = 0
    max: int = 0


class Tolerance(Value, frozen=True, kw_only=True):
    """Ratio of change that is ignored, by direction."""

    up: float = DEFAULT_TOLERANCE
    down: float = DEFAULT_TOLERANCE

    def covers(self, ratio: float) -> bool:
        """Whether `ratio` (used / target) is too close to 1 to act on."""
        return 1.0 - self.down <= ratio <= 1.0 + self.up


class ScaleView(Value, frozen=True, kw_only=True):
    """What a scaler may know of a deployment."""

    deployment: DeploymentName
    configured: int
    """`replicas` of the configuration."""
    bounds: ScaleBounds
    now_s: float = 0.0
    """Monotonic seconds; only differences mean anything."""
    wall_s: float | None = None
    """Seconds since 1970 in UTC, for calendars alone; None: unknown."""
    wanted: int | None = None
    """The number decided last; None: nothing was decided yet."""
    ready: int = 0
    starting: int = 0
    """Every other replica that counts: starting, not fit, waiting for its next try."""
    draining: int = 0
    replicas: tuple[ReplicaView, ...] = ()
    """What is known of single replicas; where it is empty the numbers above say all there is."""
    signals: dict[str, Signal] = {}
    """Built-in signals of the deployment by name (`SignalName`)."""
    queries: dict[str, Signal] = {}
    """Named PromQL results; the series of one result are summed."""
    tolerance: Tolerance = Tolerance()
    max_concurrency: int = 0
    """Requests at once per replica; 0 is no limit."""
    slo_ttft_s: float | None = None
    """Time to first token that requests should see."""
    start_s: float | None = None
    """How long a start takes, as learned."""
    params: dict[str, object] = {}
    """Parameters as written, for a scaler that declares no type for them."""

    @property
    def current(self) -> int:
        """What a decision starts from: the number decided last, else what there is."""
        return self.ready + self.starting if self.wanted is None else self.wanted

    def signal(self, name: str) -> Signal:
        """A built-in signal."""
        found = self.signals.get(name)
        if found is not None:
            return found
        if name == SignalName.CONCURRENCY:
            return together(self.signal(SignalName.QUEUED), self.signal(SignalName.INFLIGHT))
        return MISSING

    def query(self, name: str) -> Signal:
        """A named PromQL result."""
        return self.queries.get(name, MISSING)


class ScaleProposal(Value, frozen=True, kw_only=True):
    """What a policy thinks is right, before any limit. None: it cannot tell."""

    policy: str
    replicas: float | None
    reason: Reason = NO_REASON
    at_least: int | None = None
    """A minimum that holds for now, as if it were configured."""
    at_most: int | None = None
    """A maximum that holds for now, as if it were configured."""


class SelectPolicy(StrEnum):
    """Which of several rate limits counts."""

    MAX = "Max"
    """The one that allows most change."""
    MIN = "Min"
    """The one that allows least change."""
    DISABLED = "Disabled"
    """No change in this direction."""


class RateKind(StrEnum):
    """What a rate limit is a number of."""

    PODS = "Pods"
    PERCENT = "Percent"


class RatePolicy(Value, frozen=True, kw_only=True):
    """One rate limit, as in HPA v2."""

    type: RateKind
    value: int
    period_s: float = 60.0


class DirectionRules(Value, frozen=True, kw_only=True):
    """Behaviour in one direction. None and () stand for HPA's defaults of that direction."""

    stabilization_window_s: float | None = None
    select_policy: SelectPolicy = SelectPolicy.MAX
    policies: tuple[RatePolicy, ...] = ()
    tolerance: float | None = None


class Behavior(Value, frozen=True, kw_only=True):
    """How fast replicas come and go, in the words of HPA v2. Field for field what the configuration has."""

    scale_up: DirectionRules = DirectionRules()
    scale_down: DirectionRules = DirectionRules()

    @property
    def tolerance(self) -> Tolerance:
        """What is ignored in each direction."""
        up, down = self.scale_up.tolerance, self.scale_down.tolerance
        return Tolerance(
            up=DEFAULT_TOLERANCE if up is None else up, down=DEFAULT_TOLERANCE if down is None else down
        )


class ShrinkCheck(Value, frozen=True, kw_only=True):
    """What fewer replicas would have to carry, and what one of them can."""

    load: Signal
    per_replica: Signal
    fill: float = 0.8
    """How full the remaining ones may become; 0 to 1."""


class ScaleLimits(Value, frozen=True, kw_only=True):
    """What the envelope holds a deployment to, besides its bounds."""

    behavior: Behavior | None = None
    """None: the number is given, not measured, and takes effect as it is."""
    idle_s: float = 0.0
    """How long nothing was asked for before the last replica goes."""
    shrink_check: ShrinkCheck | None = None
    gpus_per_replica: int = 1
    gpus_left: int | None = None
    """GPUs of the fleet's budget that this deployment may have, those that it has included; None: all."""
    gpu_share: int | None = None
    """GPUs that this deployment may have at most, whatever is left; None: all."""
    override: Override | None = None


class Limit(Value, frozen=True, kw_only=True):
    """A limit that changed the number."""

    reason: Reason
    before: int
    after: int


class ScaleDecision(Value, frozen=True, kw_only=True):
    """The number of replicas that a deployment gets, and why. Re-computable from its inputs."""

    deployment: DeploymentName
    wanted: int
    current: int = 0
    """The number it started from."""
    proposals: tuple[ScaleProposal, ...] = ()
    limits: tuple[Limit, ...] = ()
    reason: Reason = NO_REASON
    held: bool = False
    """Bad data kept the number as it was, or from going down."""


class Recommendation(Value, frozen=True, kw_only=True):
    """A number that was asked for, and when it was asked for last."""

    replicas: int
    at_s: float


class ScaleEvent(Value, frozen=True, kw_only=True):
    """A change that was made: replicas added (above 0) or taken away (below 0)."""

    change: int
    at_s: float


class Carried(Value, frozen=True, kw_only=True):
    """What one replica was seen to carry while nothing waited."""

    signal: str
    """The signal of the demand."""
    per_replica: float


class ScaleHistory(Value, frozen=True, kw_only=True):
    """What the envelope remembers of a deployment. Bounded; times are monotonic seconds of one clock."""

    recommendations: tuple[Recommendation, ...] = ()
    """One for each number, with the latest time."""
    events: tuple[ScaleEvent, ...] = ()
    carried: Carried | None = None
    taken_in: float | None = None
    """Prompt tokens per second that one replica was seen to take in while requests waited."""
    idle_since_s: float | None = None
    woken: bool = False
    """Ordered at zero because requests waited, and nothing was ready since."""
    last_s: float | None = None
    """When it was last continued."""


class ScaleState(Value, frozen=True, kw_only=True):
    """All that is carried from one control step of a deployment to the next."""

    history: ScaleHistory = ScaleHistory()
    memories: dict[str, object] = {}
    """What each scaler remembers, as JSON values, by its place in the list and its name (`0:kpa`)."""


class KeptScaling(Value, frozen=True, kw_only=True):
    """What is kept of a deployment's scaling while central is not there."""

    deployment: DeploymentName
    wanted: int
    state: ScaleState
    now_s: float
    """The time of `state`. After a restart time goes on from here: windows stand still meanwhile."""
    start_s: float | None = None
    """How long a start takes, as learned."""
    stages: dict[str, float] = {}
    """Seconds in each stage of a start, as learned: `gated` and the phases."""


class ScalerCall(Value, frozen=True, kw_only=True):
    """One question to one scaler."""

    use: str
    params: dict[str, object] = {}
    memory: object = None
    """What it remembered before, as JSON values; None: nothing."""
    failed: str = ""
    """The error that stood in for its answer."""


class ScaleRecord(Value, frozen=True, kw_only=True):
    """A decision with everything that it was made from."""

    view: ScaleView
    limits: ScaleLimits
    history: ScaleHistory
    calls: tuple[ScalerCall, ...]
    """In the order of the decision's proposals."""
    decision: ScaleDecision


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
    sleep: bool = False
    """It sleeps instead."""
    wait: bool = False
    """It serves on until what is started in its place is ready."""


class Wake(Value, frozen=True, kw_only=True, tag="wake", tag_field="do"):
    """Let an instance serve again that sleeps, or was about to."""

    instance: InstanceId
    deployment: DeploymentName


Action = Start | Retire | Wake


class Unplaced(Value, frozen=True, kw_only=True):
    """A replica that is wanted and cannot be placed."""

    deployment: DeploymentName
    reason: Reason


class ScalePlan(Value, frozen=True, kw_only=True):
    """What is to be done next for the whole fleet."""

    actions: tuple[Action, ...] = ()
    unplaced: tuple[Unplaced, ...] = ()
