"""What decides for one deployment of a router."""

from dataclasses import dataclass
from typing import Any

from supervisord_cp.core.routing.pipeline import Pipeline
from supervisord_cp.core.routing.scheduling import Scheduling
from supervisord_cp.core.routing.shadow import RouterShadow, SchedulerShadow
from supervisord_cp.model.base import Value


class Here(Value, frozen=True, kw_only=True):
    """Where the router runs."""

    node: str = ""
    zone: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LanePolicies:
    """What decides for one deployment."""

    router: Pipeline
    scheduler: Scheduling
    shadow: RouterShadow | SchedulerShadow[Any] | None = None
    """What is asked beside one of them."""

    @property
    def needs_prefix(self) -> bool:
        """Whether any of them reads the prompt's prefix."""
        shadow = None if self.shadow is None else self.shadow.policy
        return any(used.needs_prefix for used in (self.router, self.scheduler, shadow) if used is not None)
