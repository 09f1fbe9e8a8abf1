"""The public API for authors of policies: everything that a policy file imports is here.

Policies are asked at two points of a request (*schedule*: when, *route*: where) and once per control
step of a deployment (*scale*: how many, *place*: on which GPUs). Inputs are immutable.
"""

from supervisord_cp.model.base import DeploymentName, DeviceId, InstanceId, NodeName, Value
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
from supervisord_cp.policy.declare import API_VERSION, PolicyKind, PolicySpec, declared, policy
from supervisord_cp.policy.placing import NodeRoom, Placer, PlaceView
from supervisord_cp.policy.routing import Filter, Picker, RouteContext, Scorer
from supervisord_cp.policy.scaling import (
    cannot_tell,
    is_at_rest,
    is_idle,
    pending_replicas,
    whole_replicas,
    why_unknown,
)

__all__ = [
    "API_VERSION",
    "MISSING",
    "Candidate",
    "DeploymentName",
    "DeviceId",
    "EngineLoad",
    "Filter",
    "InstanceId",
    "InstanceState",
    "NodeName",
    "NodeRoom",
    "Picker",
    "PlaceView",
    "Placer",
    "PolicyKind",
    "PolicySpec",
    "Reason",
    "ReasonCode",
    "ReplicaPhase",
    "ReplicaView",
    "RequestPriority",
    "RouteContext",
    "RoutedInstance",
    "RoutingRequest",
    "ScaleBounds",
    "ScaleProposal",
    "ScaleView",
    "Scorer",
    "Signal",
    "SignalName",
    "SignalSource",
    "SignalState",
    "Tolerance",
    "Value",
    "cannot_tell",
    "declared",
    "is_at_rest",
    "is_idle",
    "measured",
    "pending_replicas",
    "policy",
    "together",
    "whole_replicas",
    "why_unknown",
]
