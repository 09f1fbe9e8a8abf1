"""The Python API: a control plane within your own program, for vLLM servers that run already.

`from control_plane import ControlPlaneManager, ExecutionInstance, RequestMetadata`
"""

from supervisord_cp.model.fleet import PolicyUse
from supervisord_cp.model.request import RequestPriority
from supervisord_cp.sdk.control_plane import ControlPlaneManager
from supervisord_cp.sdk.errors import RequestFailed, UnknownRequest
from supervisord_cp.sdk.scheduling import SchedulingPolicy
from supervisord_cp.sdk.types import (
    Completion,
    ExecutionInstance,
    PerformanceMetrics,
    RequestMetadata,
    RequestStatus,
    SchedulingDecision,
)

__all__ = [
    "Completion",
    "ControlPlaneManager",
    "ExecutionInstance",
    "PerformanceMetrics",
    "PolicyUse",
    "RequestFailed",
    "RequestMetadata",
    "RequestPriority",
    "RequestStatus",
    "SchedulingDecision",
    "SchedulingPolicy",
    "UnknownRequest",
]
