"""Launches, supervises, scales and routes to fleets of vLLM engines on plain Linux hosts.

The Python API (`supervisord_cp.sdk`) can be imported from here; it is loaded when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from supervisord_cp.version import __version__

if TYPE_CHECKING:
    from supervisord_cp.sdk import (
        Completion,
        ControlPlaneManager,
        ExecutionInstance,
        PerformanceMetrics,
        PolicyUse,
        RequestFailed,
        RequestMetadata,
        RequestPriority,
        RequestStatus,
        SchedulingDecision,
        SchedulingPolicy,
        UnknownRequest,
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
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("supervisord_cp.sdk"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
