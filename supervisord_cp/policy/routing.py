"""What a routing policy is given and what it answers.

A routing policy is a function, or a class whose instances are called so (made once, with its parameters
when it declares any; it may keep memory of its own, bounded). Steps run in order: filters narrow the
candidates, scorers are summed by weight, one picker chooses.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

from supervisord_cp.model.request import Candidate, RoutingRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteContext:
    """What is known besides the request and the candidates."""

    rng: Random
    """The only source of chance."""
    request_tokens: float = 384.0
    """Tokens, prompt and answer, of the deployment's mean request."""


class Filter(Protocol):
    """Leaves out candidates. An empty answer counts as none of them being left out."""

    def __call__(
        self, request: RoutingRequest, candidates: Sequence[Candidate], context: RouteContext
    ) -> Sequence[Candidate]: ...


class Scorer(Protocol):
    """One finite number per candidate, in their order; more is better."""

    def __call__(
        self, request: RoutingRequest, candidates: Sequence[Candidate], context: RouteContext
    ) -> Sequence[float]: ...


class Picker(Protocol):
    """The index of the candidate to use. `scores` are 0 where no scorer was configured."""

    def __call__(
        self,
        request: RoutingRequest,
        candidates: Sequence[Candidate],
        scores: Sequence[float],
        context: RouteContext,
    ) -> int: ...
