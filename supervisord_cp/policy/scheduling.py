"""What a scheduler is given and what it answers.

A scheduler orders the requests of a deployment that wait because no instance has room. It is a function
that gives a request its rank, or a class whose instances are called so, made once per deployment with its
parameters when it declares any. Requests leave in the order of their ranks, equal ones in the order of
arrival. A rank is asked for when a request begins to wait, and again each `refresh_s` when the scheduler
declares that. Ageing needs no refresh: a rank that grows with the time of arrival is overtaken by no more
than the requests of a bounded time.

Fair share between API keys is outside of all that: keys take turns, and a scheduler orders each key's own.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from supervisord_cp.model.base import Value
from supervisord_cp.model.request import Candidate, RoutingRequest
from supervisord_cp.policy.context import QueueContext


class WaitingRequest(Value, frozen=True, kw_only=True):
    """A request that is to be sent to an instance."""

    request: RoutingRequest
    arrived: float
    """On the clock of `context.now`."""
    decode_tokens: int = 0
    """Tokens expected as the answer."""

    @property
    def tokens(self) -> int:
        """Work, prompt and answer."""
        return self.request.prompt_tokens + self.decode_tokens

    @property
    def deadline(self) -> float | None:
        """When the client gives up, on the clock of `context.now`."""
        deadline_ms = self.request.deadline_ms
        return None if deadline_ms is None else self.arrived + deadline_ms / 1000


class Scheduler(Protocol):
    """The rank of a request, a finite number; the smallest goes first."""

    def __call__(self, waiting: WaitingRequest, context: QueueContext[Any]) -> float: ...


class SchedulerHooks(Protocol):
    """What a scheduler class may have besides; each method by itself is optional."""

    def on_arrival(self, waiting: WaitingRequest, context: QueueContext[Any]) -> None:
        """A request has come, before anything is decided for it."""
        ...

    def instances(
        self, waiting: WaitingRequest, candidates: Sequence[Candidate], context: QueueContext[Any]
    ) -> Sequence[Candidate]:
        """Which instances may have the request, full ones among them: while those have no room it waits,
        and others go first. An empty answer counts as all of them."""
        ...

    def hopeless(self, waiting: WaitingRequest, context: QueueContext[Any]) -> bool:
        """Whether a request that waits had better be refused at once."""
        ...

    def describe(self) -> str:
        """One line on the state that it is in; a new line becomes an event."""
        ...
