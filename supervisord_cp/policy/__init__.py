"""The public API for authors of policies: everything that a policy file imports is here.

Policies are asked at two points of a request (*schedule*: when, *route*: where) and once per control
step of a deployment (*scale*: how many, *place*: on which GPUs). Inputs are immutable. What tests of a
policy need is in `supervisord_cp.policy.testing`.
"""

from supervisord_cp.model.base import DeploymentName, DeviceId, Incarnation, InstanceId, NodeName, Value
from supervisord_cp.model.fleet import RoutedInstance
from supervisord_cp.model.instance import EngineLoad, InstanceState
from supervisord_cp.model.reason import Reason, ReasonCode
from supervisord_cp.model.request import Candidate, RequestPriority, RoutingRequest
from supervisord_cp.model.scaling import ScaleBounds, ScaleProposal, ScaleView, Tolerance
from supervisord_cp.model.signal import (
    MISSING,
    ReplicaPhase,
    ReplicaView,
    Signal,
    SignalName,
    SignalSource,
    SignalState,
    measured,
    together,
)
from supervisord_cp.policy.context import Context, Pace, QueueContext
from supervisord_cp.policy.declare import (
    API_VERSION,
    PolicyKind,
    PolicySpec,
    declared,
    filter,  # noqa: A004
    picker,
    placer,
    policy,
    scaler,
    scheduler,
    scorer,
)
from supervisord_cp.policy.placing import NodeRoom, Placer, PlaceView
from supervisord_cp.policy.routing import Affinity, Filter, Hooks, Outcome, Picker, Scorer
from supervisord_cp.policy.scaling import (
    cannot_tell,
    is_at_rest,
    is_idle,
    pending_replicas,
    whole_replicas,
    why_unknown,
)
from supervisord_cp.policy.scheduling import Scheduler, SchedulerHooks, WaitingRequest

__all__ = [
    "API_VERSION",
    "MISSING",
    "Affinity",
    "Candidate",
    "Context",
    "DeploymentName",
    "DeviceId",
    "EngineLoad",
    "Filter",
    "Hooks",
    "Incarnation",
    "InstanceId",
    "InstanceState",
    "NodeName",
    "NodeRoom",
    "Outcome",
    "Pace",
    "Picker",
    "PlaceView",
    "Placer",
    "PolicyKind",
    "PolicySpec",
    "QueueContext",
    "Reason",
    "ReasonCode",
    "ReplicaPhase",
    "ReplicaView",
    "RequestPriority",
    "RoutedInstance",
    "RoutingRequest",
    "ScaleBounds",
    "ScaleProposal",
    "ScaleView",
    "Scheduler",
    "SchedulerHooks",
    "Scorer",
    "Signal",
    "SignalName",
    "SignalSource",
    "SignalState",
    "Tolerance",
    "Value",
    "WaitingRequest",
    "cannot_tell",
    "declared",
    "filter",
    "is_at_rest",
    "is_idle",
    "measured",
    "pending_replicas",
    "picker",
    "placer",
    "policy",
    "scaler",
    "scheduler",
    "scorer",
    "together",
    "whole_replicas",
    "why_unknown",
]
