"""Which policies the user of the Python API wants: named ones, and objects of the user's own."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

from supervisord_cp.errors import UsageError
from supervisord_cp.model.fleet import PolicyUse
from supervisord_cp.plugin_host.catalog import Offer, Origin
from supervisord_cp.plugin_host.registry import (
    ROUTING_KINDS,
    SCHEDULER_KINDS,
    Entry,
    Registry,
    Unresolved,
    builtin_registry,
)
from supervisord_cp.policy import PolicyKind, PolicySpec, declared
from supervisord_cp.sdk.scheduling import REFRESH_S, Adapter, SchedulingPolicy

OWN: Final = "own:"
"""Begins the names of objects, so that they take none of ours."""

Named: TypeAlias = str | PolicyUse
Declared: TypeAlias = Callable[..., Any]
"""A function or class with a decorator of `supervisord_cp.policy`."""
SchedulingUse: TypeAlias = Named | SchedulingPolicy | Declared
RoutingUse: TypeAlias = Named | Declared | Sequence[Named | Declared]
Adapt: TypeAlias = Callable[[SchedulingPolicy], Adapter]


@dataclass(frozen=True, kw_only=True)
class Policies:
    """What decides for every model."""

    scheduler: PolicyUse
    router: tuple[PolicyUse, ...]
    registry: Registry
    """Where their names are looked up."""

    @property
    def scheduler_name(self) -> str:
        """For people."""
        return self.scheduler.use.removeprefix(OWN)

    @property
    def router_name(self) -> str:
        """For people."""
        return " + ".join(use.use.removeprefix(OWN) for use in self.router)


def choose(scheduling: SchedulingUse, routing: RoutingUse, adapt: Adapt) -> Policies:
    """Look up what is asked for.

    Raises:
        UsageError: no such policy, or parameters that it does not take.
    """
    own: dict[str, PolicySpec] = {}
    scheduler = _use(scheduling, own, adapt)
    steps = [*routing] if isinstance(routing, Sequence) and not isinstance(routing, str) else [routing]
    router = tuple(_use(step, own, adapt) for step in steps)
    known = builtin_registry()
    registry = Registry(entries={**known.entries, **_entries(own)})
    try:
        registry.resolve(scheduler, SCHEDULER_KINDS)
        for use in router:
            for step in registry.expand(use):
                registry.resolve(step, ROUTING_KINDS)
    except Unresolved as error:
        raise UsageError(str(error)) from error
    return Policies(scheduler=scheduler, router=router, registry=registry)


def _use(wanted: object, own: dict[str, PolicySpec], adapt: Adapt) -> PolicyUse:
    match wanted:
        case str():
            return PolicyUse(use=wanted)
        case PolicyUse():
            return wanted
        case SchedulingPolicy():
            name = wanted.name or type(wanted).__name__
            spec = PolicySpec(name=name, kind=PolicyKind.SCHEDULER, target=adapt(wanted), refresh_s=REFRESH_S)
        case _:
            found = declared(wanted)
            if found is None:
                raise UsageError(
                    f"{wanted!r} is no policy: a name, a PolicyUse, a SchedulingPolicy, or what a decorator"
                    " of supervisord_cp.policy was put on"
                )
            spec = found
    name = f"{OWN}{spec.name}"
    own[name] = replace(spec, name=name)
    return PolicyUse(use=name)


def _entries(own: Mapping[str, PolicySpec]) -> dict[str, Entry]:
    """An object is a version of its own: another one of the same name replaces it."""
    return {
        name: Entry(
            offer=Offer(name=name, kind=spec.kind, origin=Origin.PACKAGE, summary=spec.summary),
            spec=spec,
            version=str(id(spec.target)),
        )
        for name, spec in own.items()
    }
