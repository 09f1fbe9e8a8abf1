"""Policies by name, as they can be used now: an immutable value that is replaced as a whole."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from supervisord_cp.builtin.routers.presets import PRESETS
from supervisord_cp.errors import Problem, UsageError
from supervisord_cp.model.fleet import PolicyUse
from supervisord_cp.plugin_host.catalog import Offer, Origin, builtin_specs
from supervisord_cp.policy.declare import PolicyKind, PolicySpec
from supervisord_cp.policy.params import ParamsError, hint, read_params

ROUTING_KINDS: Final = frozenset({PolicyKind.FILTER, PolicyKind.SCORER, PolicyKind.PICKER})
SCHEDULER_KINDS: Final = frozenset({PolicyKind.SCHEDULER})
_SORTS: Final[Mapping[frozenset[PolicyKind], str]] = {
    ROUTING_KINDS: "routing policy",
    SCHEDULER_KINDS: "scheduler",
    frozenset({PolicyKind.SCALER}): "scaling policy",
    frozenset({PolicyKind.PLACER}): "placer",
}


class Unresolved(UsageError):
    """A use of a policy that cannot be followed."""

    def __init__(
        self,
        message: str,
        *,
        param: str = "",
        hint: str = "",
        passing: bool = False,
        unloaded: bool = False,
    ) -> None:
        super().__init__(f"{message}; {hint}" if hint else message)
        self.message = message
        self.hint = hint
        self.param = param
        """The parameter that is wrong, where one is."""
        self.passing = passing
        """Whether a file can mend it: then the use itself may be right."""
        self.unloaded = unloaded
        """Whether it is there and was not loaded, which says nothing against it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A policy under its name."""

    offer: Offer
    spec: PolicySpec | None = None
    """None: not loaded, or nothing of it can be used."""
    version: str = ""
    """The digest that `spec` came from."""
    problem: Problem | None = None
    """Why its newest version is not used."""

    @property
    def kind(self) -> PolicyKind | None:
        return self.offer.kind if self.spec is None else self.spec.kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """A use of a policy with everything that it takes to call it."""

    use: PolicyUse
    spec: PolicySpec
    params: Any
    own: bool
    """Whether it is one of ours."""
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """What can be named."""

    entries: Mapping[str, Entry] = field(default_factory=dict)
    unusable: tuple[Offer, ...] = ()
    """Files that offer nothing, and why."""
    open_ended: bool = False
    """Whether files may bring more names: folders are configured."""

    def names(self, kinds: frozenset[PolicyKind]) -> list[str]:
        """Those that can be used as one of these kinds."""
        presets = PRESETS if kinds == ROUTING_KINDS else ()
        return sorted({*presets, *(name for name, entry in self.entries.items() if entry.kind in kinds)})

    def version(self, name: str) -> str:
        """What changes when the policy of this name does: "" while there is none."""
        entry = self.entries.get(name)
        if entry is None:
            return ""
        return f"{entry.version}:{entry.spec is not None}"

    def expand(self, use: PolicyUse) -> tuple[PolicyUse, ...]:
        """The steps that a routing policy's name stands for.

        Raises:
            Unresolved: parameters that the preset does not take.
        """
        preset = PRESETS.get(use.use)
        if preset is None:
            return (use,)
        try:
            return preset.steps(read_params(use.params, preset.params))
        except ParamsError as error:
            raise _wrong_params("routing policy", use, error) from error

    def resolve(self, use: PolicyUse, kinds: frozenset[PolicyKind]) -> Bound:
        """A use of a policy, ready to be called.

        Raises:
            Unresolved: no such policy of these kinds, one that cannot be used, or wrong parameters.
        """
        sort = _SORTS[kinds]
        if use.use in PRESETS:
            raise Unresolved(f'"{use.use}" is a list of routing steps, not a {sort}')
        entry = self.entries.get(use.use)
        if entry is None:
            known = self.names(kinds)
            advice = hint(use.use, known)
            raise Unresolved(
                f'no {sort} is called "{use.use}"', hint=advice, passing=self.open_ended and "?" not in advice
            )
        if entry.kind is not None and entry.kind not in kinds:
            raise Unresolved(f'"{use.use}" is a {entry.kind}, not a {sort}')
        if entry.spec is None and entry.problem is None:
            raise Unresolved(f'{sort} "{use.use}" is not loaded yet', passing=True, unloaded=True)
        if entry.spec is None:
            raise Unresolved(f'{sort} "{use.use}" cannot be used: {entry.problem}', passing=True)
        try:
            params = read_params(use.params, entry.spec.params)
        except ParamsError as error:
            raise _wrong_params(sort, use, error, own=entry.offer.origin is Origin.BUILTIN) from error
        own = entry.offer.origin is Origin.BUILTIN
        return Bound(use=use, spec=entry.spec, params=params, own=own, version=entry.version)

    def problems(self) -> Iterator[tuple[str, Problem]]:
        """What is wrong, by policy; "" for files that offer none."""
        for name, entry in self.entries.items():
            if entry.problem is not None:
                yield name, entry.problem
        for offer in self.unusable:
            if offer.problem is not None:
                yield "", offer.problem


def builtin_registry() -> Registry:
    """Our own policies alone."""
    entries = {
        name: Entry(
            offer=Offer(name=name, kind=spec.kind, origin=Origin.BUILTIN, summary=spec.summary), spec=spec
        )
        for name, spec in builtin_specs().items()
    }
    return Registry(entries=entries)


def _wrong_params(sort: str, use: PolicyUse, error: ParamsError, *, own: bool = True) -> Unresolved:
    message = f'{sort} "{use.use}" {error.message}'
    return Unresolved(message, param=error.param, hint=error.hint, passing=not own)
