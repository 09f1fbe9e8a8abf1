"""Policies by name: the built-in ones."""

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module
from pkgutil import iter_modules
from typing import Final

import msgspec

import supervisord_cp.builtin.routers as routers
from supervisord_cp.builtin.routers.best_score import best_score
from supervisord_cp.core.routing.pipeline import FailureListener, Pipeline, Step
from supervisord_cp.errors import UsageError
from supervisord_cp.model.fleet import PolicyUse
from supervisord_cp.policy.declare import PolicyKind, PolicySpec, declared

ROUTING_KINDS: Final = frozenset({PolicyKind.FILTER, PolicyKind.SCORER, PolicyKind.PICKER})


def builtin_routing() -> Mapping[str, PolicySpec]:
    """The built-in routing policies by name."""
    return {spec.name: spec for spec in _declared_in(routers)}


def build_pipeline(
    uses: Sequence[PolicyUse], on_failure: FailureListener = lambda name, why: None
) -> Pipeline:
    """The steps that a deployment's `router` names, ready to be called.

    Raises:
        UsageError: an unknown policy, or parameters that it does not take.
    """
    known = builtin_routing()
    steps = [_step(use, known) for use in uses]
    return Pipeline(steps, pick=best_score, on_failure=on_failure)


def _step(use: PolicyUse, known: Mapping[str, PolicySpec]) -> Step:
    spec = known.get(use.use)
    if spec is None or spec.kind not in ROUTING_KINDS:
        near = get_close_matches(use.use, known, n=1)
        hint = f'did you mean "{near[0]}"?' if near else "known: " + ", ".join(sorted(known))
        raise UsageError(f'no routing policy is called "{use.use}"; {hint}')
    target = spec.target
    if isinstance(target, type):
        target = target(_params(use, spec)) if spec.params else target()
    if use.params and spec.params is None:
        raise UsageError(f'routing policy "{use.use}" takes no parameters')
    return Step(name=use.use, kind=spec.kind, call=target, weight=use.weight)


def _params(use: PolicyUse, spec: PolicySpec) -> object:
    assert spec.params is not None
    try:
        return msgspec.convert(use.params, spec.params)
    except msgspec.ValidationError as error:
        raise UsageError(f'parameters of routing policy "{use.use}": {error}') from error


def _declared_in(package: object) -> Iterator[PolicySpec]:
    path, name = getattr(package, "__path__", ()), getattr(package, "__name__", "")
    for module in iter_modules(path, prefix=f"{name}."):
        for value in vars(import_module(module.name)).values():
            spec = declared(value)
            if spec is not None:
                yield spec
