"""Declaring a policy: one decorated function or class per file."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, TypeVar

API_VERSION: Final = 1
ATTRIBUTE: Final = "__supervisord_cp_policy__"

Target = TypeVar("Target", bound=Callable[..., Any])


class PolicyKind(StrEnum):
    """What a policy decides."""

    SCHEDULER = "scheduler"
    FILTER = "filter"
    SCORER = "scorer"
    PICKER = "picker"
    SCALER = "scaler"
    PLACER = "placer"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySpec:
    """A declared policy."""

    name: str
    kind: PolicyKind
    target: Callable[..., Any]
    params: type | None = None
    """A frozen dataclass or msgspec struct; its defaults are the policy's defaults."""
    memory: type | None = None
    """The same for what a scaler remembers; its defaults are the memory of a new one."""
    api: int = API_VERSION

    @property
    def summary(self) -> str:
        """The first line of its docstring."""
        return (self.target.__doc__ or "").strip().partition("\n")[0]


def policy(
    kind: PolicyKind,
    name: str,
    *,
    params: type | None = None,
    memory: type | None = None,
    api: int = API_VERSION,
) -> Callable[[Target], Target]:
    """Declare the decorated function or class a policy of that kind and name."""

    def declare(target: Target) -> Target:
        spec = PolicySpec(name=name, kind=kind, target=target, params=params, memory=memory, api=api)
        setattr(target, ATTRIBUTE, spec)
        return target

    return declare


def declared(target: object) -> PolicySpec | None:
    """The declaration of a function or class, if it has one."""
    spec = getattr(target, ATTRIBUTE, None)
    return spec if isinstance(spec, PolicySpec) else None
