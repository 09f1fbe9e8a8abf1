"""Routing policies that are several steps under one name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from msgspec import Struct

from supervisord_cp.builtin.routers.nearest import NearestParams
from supervisord_cp.builtin.routers.prefix_match import PrefixMatchParams
from supervisord_cp.builtin.routers.rendezvous import RendezvousParams
from supervisord_cp.builtin.routers.within_load import Bound, LoadBound, Slack
from supervisord_cp.model.fleet import PolicyUse


class AffinityParams(RendezvousParams, frozen=True, kw_only=True):
    """Parameters of `affinity`: those of `rendezvous` and of `within_load`."""

    bound: Bound = 1.25
    slack: Slack = 2.0


class PrefixParams(PrefixMatchParams, frozen=True, kw_only=True):
    """Parameters of `prefix`: those of `prefix_match` and of `within_load`."""

    bound: Bound = 1.25
    slack: Slack = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A name that stands for a list of steps."""

    name: str
    summary: str
    params: type
    steps: Callable[[Any], tuple[PolicyUse, ...]]
    """The steps, given the parameters."""


def _affinity(params: AffinityParams) -> tuple[PolicyUse, ...]:
    return _use("within_load", LoadBound, params), _use("rendezvous", RendezvousParams, params)


def _locality(params: NearestParams) -> tuple[PolicyUse, ...]:
    return _use("nearest", NearestParams, params), PolicyUse(use="load_balanced")


def _prefix(params: PrefixParams) -> tuple[PolicyUse, ...]:
    return _use("within_load", LoadBound, params), _use("prefix_match", PrefixMatchParams, params)


def _use(name: str, type_: type[Struct], params: Struct) -> PolicyUse:
    """One step, with those of the parameters that are its own."""
    own = {field: getattr(params, field) for field in type_.__struct_fields__}
    return PolicyUse(use=name, params=own)


PRESETS: Final[Mapping[str, Preset]] = {
    preset.name: preset
    for preset in (
        Preset(
            name="affinity",
            summary="The same instance for the same session or user, within the load bound.",
            params=AffinityParams,
            steps=_affinity,
        ),
        Preset(
            name="locality",
            summary="The same node first, then the same zone, while they are within the load bound.",
            params=NearestParams,
            steps=_locality,
        ),
        Preset(
            name="prefix",
            summary="The instance that has most of the prompt cached, within the load bound.",
            params=PrefixParams,
            steps=_prefix,
        ),
    )
}
