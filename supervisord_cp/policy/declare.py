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
    needs_prefix: bool = False
    """Whether it reads `RoutingRequest.prefix`, which is worked out for those who ask only."""
    refresh_s: float = 0.0
    """How often a scheduler is asked again about requests that wait already; 0: never."""
    api: int = API_VERSION

    @property
    def summary(self) -> str:
        """The first sentence of its docstring."""
        return summary_of(self.target.__doc__)


def summary_of(docstring: str | None) -> str:
    """The first sentence of a docstring, in one line."""
    paragraph = " ".join((docstring or "").strip().partition("\n\n")[0].split())
    sentence, end, _ = paragraph.partition(". ")
    return sentence + end.strip()


def policy(
    kind: PolicyKind,
    name: str,
    *,
    params: type | None = None,
    memory: type | None = None,
    needs_prefix: bool = False,
    refresh_s: float = 0.0,
    api: int = API_VERSION,
) -> Callable[[Target], Target]:
    """Declare the decorated function or class a policy of that kind and name."""

    def declare(target: Target) -> Target:
        spec = PolicySpec(
            name=name,
            kind=kind,
            target=target,
            params=params,
            memory=memory,
            needs_prefix=needs_prefix,
            refresh_s=refresh_s,
            api=api,
        )
        setattr(target, ATTRIBUTE, spec)
        return target

    return declare


def scheduler(
    name: str,
    *,
    params: type | None = None,
    needs_prefix: bool = False,
    refresh_s: float = 0.0,
    api: int = API_VERSION,
) -> Callable[[Target], Target]:
    """Declare what orders the requests that wait: see `Scheduler`."""
    return policy(
        PolicyKind.SCHEDULER, name, params=params, needs_prefix=needs_prefix, refresh_s=refresh_s, api=api
    )


def filter(  # noqa: A001  # the word of the trade; a policy file has little use for the built-in one
    name: str, *, params: type | None = None, needs_prefix: bool = False, api: int = API_VERSION
) -> Callable[[Target], Target]:
    """Declare what leaves instances out: see `Filter`."""
    return policy(PolicyKind.FILTER, name, params=params, needs_prefix=needs_prefix, api=api)


def scorer(
    name: str, *, params: type | None = None, needs_prefix: bool = False, api: int = API_VERSION
) -> Callable[[Target], Target]:
    """Declare what rates instances: see `Scorer`."""
    return policy(PolicyKind.SCORER, name, params=params, needs_prefix=needs_prefix, api=api)


def picker(
    name: str, *, params: type | None = None, needs_prefix: bool = False, api: int = API_VERSION
) -> Callable[[Target], Target]:
    """Declare what chooses one instance: see `Picker`."""
    return policy(PolicyKind.PICKER, name, params=params, needs_prefix=needs_prefix, api=api)


def scaler(
    name: str, *, params: type | None = None, memory: type | None = None, api: int = API_VERSION
) -> Callable[[Target], Target]:
    """Declare what proposes a number of replicas: see `supervisord_cp.policy.scaling`."""
    return policy(PolicyKind.SCALER, name, params=params, memory=memory, api=api)


def placer(name: str, *, params: type | None = None, api: int = API_VERSION) -> Callable[[Target], Target]:
    """Declare what chooses the node of a replica: see `supervisord_cp.policy.placing`."""
    return policy(PolicyKind.PLACER, name, params=params, api=api)


def declared(target: object) -> PolicySpec | None:
    """The declaration of a function or class, if it has one."""
    spec = getattr(target, ATTRIBUTE, None)
    return spec if isinstance(spec, PolicySpec) else None
