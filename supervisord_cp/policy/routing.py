"""What a routing policy is given and what it answers.

A routing policy is a function, or a class whose instances are called so. A class is made once per
deployment, with its parameters when it declares any, and may keep memory of its own (bounded); it may have
any of the methods of `Hooks` and is then told what becomes of requests. Steps run in order: filters narrow
the candidates, scorers are summed by weight, one picker chooses.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Protocol

from supervisord_cp.model.base import Incarnation, Value
from supervisord_cp.model.request import Candidate, RoutingRequest
from supervisord_cp.policy.context import Context


class Filter(Protocol):
    """Leaves out candidates. An empty answer counts as none of them being left out."""

    def __call__(
        self, request: RoutingRequest, candidates: Sequence[Candidate], context: Context[Any]
    ) -> Sequence[Candidate]: ...


class Scorer(Protocol):
    """One finite number per candidate, in their order; more is better."""

    def __call__(
        self, request: RoutingRequest, candidates: Sequence[Candidate], context: Context[Any]
    ) -> Sequence[float]: ...


class Picker(Protocol):
    """The index of the candidate to use. `scores` are 0 where no scorer was configured."""

    def __call__(
        self,
        request: RoutingRequest,
        candidates: Sequence[Candidate],
        scores: Sequence[float],
        context: Context[Any],
    ) -> int: ...


class Outcome(Value, frozen=True, kw_only=True):
    """How a request ended on an instance."""

    ok: bool
    """Whether the client has the whole answer, and it is no error."""
    seconds: float
    """Since it was dispatched."""
    prompt_tokens: int = 0
    """As the engine counted; 0: it did not say."""
    completion_tokens: int = 0


class Affinity(StrEnum):
    """Whether a request went where its session, or the beginning of its prompt, was before."""

    HIT = "hit"
    MOVED = "moved"
    """Another instance had it, or more of it: that one is full, above the load bound, or leaving."""
    NEW = "new"
    """No instance had it."""


class Hooks(Protocol):
    """What a class may have besides; each method by itself is optional."""

    def on_dispatch(
        self, request: RoutingRequest, candidate: Candidate, context: Context[Any]
    ) -> Affinity | None:
        """A request goes to an instance, whoever chose it. A policy that keeps requests together says
        whether it did, and that is counted; others, and for requests that nothing ties, None."""
        ...

    def on_first_byte(self, request: RoutingRequest, candidate: Candidate, context: Context[Any]) -> None:
        """Its prompt has been worked through."""
        ...

    def on_complete(
        self, request: RoutingRequest, candidate: Candidate, outcome: Outcome, context: Context[Any]
    ) -> None:
        """It is done with, one way or another."""
        ...

    def on_instance_reset(self, incarnation: Incarnation) -> None:
        """An incarnation is gone or has gone to sleep, and with it whatever it had cached."""
        ...

    def describe(self) -> str:
        """One line on the state that it is in; a new line becomes an event."""
        ...
