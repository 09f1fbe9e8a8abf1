"""One policy of a deployment, ready to be called."""

from collections.abc import Callable
from typing import Any, Final

from msgspec.structs import replace

from supervisord_cp.core.policies.guard import Guard
from supervisord_cp.policy.context import Context
from supervisord_cp.policy.declare import PolicyKind
from supervisord_cp.policy.routing import Affinity


class Step:
    """One policy, ready to be called."""

    __slots__ = ("affinities", "call", "guard", "kind", "needs_prefix", "params", "weight")

    def __init__(
        self,
        *,
        kind: PolicyKind,
        call: Callable[..., Any],
        guard: Guard,
        weight: float = 1.0,
        params: Any = None,
        needs_prefix: bool = False,
    ) -> None:
        self.kind: Final = kind
        self.call: Final = call
        self.guard: Final = guard
        self.weight: Final = weight
        self.params: Final = params
        self.needs_prefix: Final = needs_prefix
        self.affinities: dict[Affinity, int] | None = None
        """Where its affinity is counted; None: nowhere."""

    def given(self, shared: Context[None]) -> Context[Any]:
        """The context of a decision as this policy sees it."""
        if self.params is None:
            return shared
        return replace(shared, params=self.params)

    def hook(self, name: str) -> Callable[..., Any] | None:
        """One of its optional methods."""
        found: Callable[..., Any] | None = getattr(self.call, name, None)
        return found if callable(found) else None
