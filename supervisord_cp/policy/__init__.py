"""The public API for authors of policies: everything that a policy file imports is here.

Policies are asked at two points of a request (*schedule*: when, *route*: where) and once per control
step of a deployment (*scale*: how many, *place*: on which GPUs). Inputs are immutable.
"""

from supervisord_cp.model.base import DeploymentName, DeviceId, InstanceId, NodeName
from supervisord_cp.model.fleet import RoutedInstance
from supervisord_cp.model.instance import EngineLoad, InstanceState
from supervisord_cp.model.reason import Reason, ReasonCode
from supervisord_cp.model.request import Candidate, RequestPriority, RoutingRequest
from supervisord_cp.model.scaling import ScaleProposal, ScaleView
from supervisord_cp.policy.declare import API_VERSION, PolicyKind, PolicySpec, declared, policy
from supervisord_cp.policy.placing import NodeRoom, Placer, PlaceView
from supervisord_cp.policy.routing import Filter, Picker, RouteContext, Scorer

__all__ = [
    "API_VERSION",
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
    "RequestPriority",
    "RouteContext",
    "RoutedInstance",
    "RoutingRequest",
    "ScaleProposal",
    "ScaleView",
    "Scorer",
    "declared",
    "policy",
]
