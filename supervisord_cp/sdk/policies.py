"""Which policies the user of the Python API wants."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from supervisord_cp.model.fleet import PolicyUse
from supervisord_cp.plugin_host.registry import build_pipeline
from supervisord_cp.sdk.fleet import Policies

SchedulingUse: TypeAlias = str | PolicyUse
RoutingUse: TypeAlias = str | PolicyUse | Sequence[str | PolicyUse]


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """What was asked for, and what the core is told."""

    scheduling: SchedulingUse
    routing: RoutingUse
    policies: Policies


def choose(scheduling: SchedulingUse, routing: RoutingUse) -> Chosen:
    """Check what is asked for.

    Raises:
        UsageError: no such policy, or parameters that it does not take.
    """
    steps = [routing] if isinstance(routing, str | PolicyUse) else list(routing)
    router = tuple(_use(step) for step in steps)
    build_pipeline(router)
    return Chosen(
        scheduling=scheduling,
        routing=routing,
        policies=Policies(scheduler=_use(scheduling), router=router),
    )


def _use(named: str | PolicyUse) -> PolicyUse:
    return named if isinstance(named, PolicyUse) else PolicyUse(use=named)
