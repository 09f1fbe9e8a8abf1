"""When a request goes: the deployment's scheduler, and first come, first served in its place."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from msgspec.structs import replace

from supervisord_cp.core.policies.guard import Guard
from supervisord_cp.model.request import Candidate
from supervisord_cp.policy.answers import finite_rank, kept_candidates, one_line, yes_or_no
from supervisord_cp.policy.context import QueueContext
from supervisord_cp.policy.scheduling import WaitingRequest

FIRST: Final = float("-inf")
"""The rank of a request that the scheduler has none for: nobody waits for ever because a policy failed."""


class Scheduling:
    """One scheduler in use."""

    def __init__(
        self,
        guard: Guard,
        call: Callable[..., Any],
        *,
        params: Any = None,
        refresh_s: float = 0.0,
        needs_prefix: bool = False,
    ) -> None:
        self._guard: Final = guard
        self._rank: Final = call
        self._instances: Final[Callable[..., Any] | None] = getattr(call, "instances", None)
        self._hopeless: Final[Callable[..., Any] | None] = getattr(call, "hopeless", None)
        self._on_arrival: Final[Callable[..., Any] | None] = getattr(call, "on_arrival", None)
        self._describe: Final[Callable[..., Any] | None] = getattr(call, "describe", None)
        self._params: Final = params
        self.refresh_s: Final = refresh_s
        self.needs_prefix: Final = needs_prefix
        self.restricts: Final = self._instances is not None
        """Whether it says which instances a request may go to."""
        self.counts: Final = self._on_arrival is not None
        """Whether it wants to see every request that comes."""

    @property
    def name(self) -> str:
        return self._guard.name

    @property
    def fails(self) -> bool:
        """Whether first come, first served stands in for it."""
        return self._guard.is_open

    @property
    def refuses(self) -> bool:
        """Whether it may find a request hopeless."""
        return self._hopeless is not None

    def arrived(self, waiting: WaitingRequest, context: QueueContext[None]) -> None:
        """A request has come."""
        if self._on_arrival is not None:
            self._guard.tell(self._on_arrival, context.now, waiting, self._given(context))

    def rank(self, waiting: WaitingRequest, context: QueueContext[None]) -> float:
        """The place of a request among those of its key."""
        found = self._guard.ask(self._rank, finite_rank, context.now, waiting, self._given(context))
        return FIRST if found is None else found

    def instances(
        self, waiting: WaitingRequest, candidates: Sequence[Candidate], context: QueueContext[None]
    ) -> Sequence[Candidate]:
        """Where it may go; all of them when there is no answer."""
        if self._instances is None:
            return candidates
        found = self._guard.ask(
            self._instances, kept_candidates, context.now, waiting, candidates, self._given(context)
        )
        return candidates if found is None else found

    def hopeless(self, waiting: WaitingRequest, context: QueueContext[None]) -> bool:
        """Whether to refuse it."""
        if self._hopeless is None:
            return False
        found = self._guard.ask(self._hopeless, yes_or_no, context.now, waiting, self._given(context))
        return bool(found)

    def described(self, now: float) -> str:
        """What it says of its state, "" when nothing."""
        if self._describe is None:
            return ""
        return self._guard.ask(self._describe, one_line, now) or ""

    def retire(self) -> None:
        """It is no longer in use."""
        self._guard.retire()

    def _given(self, shared: QueueContext[None]) -> QueueContext[Any]:
        if self._params is None:
            return shared
        return replace(shared, params=self._params)
