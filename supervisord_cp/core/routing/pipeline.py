"""Where a request goes: filters, weighted scores, one pick. A policy that fails is passed over."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

from supervisord_cp.model.base import Value
from supervisord_cp.model.request import Candidate, RoutingRequest
from supervisord_cp.policy.declare import PolicyKind
from supervisord_cp.policy.routing import Picker, RouteContext


class Step(Value, frozen=True, kw_only=True):
    """One policy, ready to be called."""

    name: str
    kind: PolicyKind
    call: Callable[..., Any]
    weight: float = 1.0


FailureListener = Callable[[str, str], None]
"""Called with a policy's name and what it did wrong."""


class Pipeline:
    """The steps of one deployment."""

    def __init__(
        self, steps: Sequence[Step], *, pick: Picker, on_failure: FailureListener = lambda name, why: None
    ) -> None:
        """`pick` chooses when no step does, or when that step fails."""
        self._filters: Final = [step for step in steps if step.kind is PolicyKind.FILTER]
        self._scorers: Final = [step for step in steps if step.kind is PolicyKind.SCORER]
        self._picker: Final = next((step for step in steps if step.kind is PolicyKind.PICKER), None)
        self._pick: Final = pick
        self._on_failure: Final = on_failure

    def choose(
        self, request: RoutingRequest, candidates: Sequence[Candidate], context: RouteContext
    ) -> Candidate:
        """One of the candidates; there must be at least one."""
        for step in self._filters:
            candidates = self._filtered(step, request, candidates, context)
        if len(candidates) == 1:
            return candidates[0]
        scores = self._scores(request, candidates, context)
        if self._picker is not None:
            index = self._index(self._picker, request, candidates, scores, context)
            if index is not None:
                return candidates[index]
        return candidates[self._pick(request, candidates, scores, context)]

    def _filtered(
        self,
        step: Step,
        request: RoutingRequest,
        candidates: Sequence[Candidate],
        context: RouteContext,
    ) -> Sequence[Candidate]:
        try:
            kept = list(step.call(request, candidates, context))
        except Exception as error:
            self._on_failure(step.name, repr(error))
            return candidates
        if any(candidate not in candidates for candidate in kept):
            self._on_failure(step.name, "returned something that is no candidate")
            return candidates
        return kept or candidates

    def _scores(
        self, request: RoutingRequest, candidates: Sequence[Candidate], context: RouteContext
    ) -> list[float]:
        total: list[float] | None = None
        for step in self._scorers:
            scores = self._scored(step, request, candidates, context)
            if scores is None:
                continue
            if len(self._scorers) > 1:
                scores = [step.weight * score for score in _spread(scores)]
            total = scores if total is None else [a + b for a, b in zip(total, scores, strict=True)]
        return [0.0] * len(candidates) if total is None else total

    def _scored(
        self,
        step: Step,
        request: RoutingRequest,
        candidates: Sequence[Candidate],
        context: RouteContext,
    ) -> list[float] | None:
        try:
            scores = list(step.call(request, candidates, context))
            if len(scores) == len(candidates) and all(map(math.isfinite, scores)):
                return scores
        except Exception as error:
            self._on_failure(step.name, repr(error))
        else:
            self._on_failure(step.name, f"did not return {len(candidates)} finite numbers")
        return None

    def _index(
        self,
        step: Step,
        request: RoutingRequest,
        candidates: Sequence[Candidate],
        scores: Sequence[float],
        context: RouteContext,
    ) -> int | None:
        try:
            index = step.call(request, candidates, scores, context)
        except Exception as error:
            self._on_failure(step.name, repr(error))
            return None
        if type(index) is int and 0 <= index < len(candidates):
            return index
        self._on_failure(step.name, f"returned {index!r}, not an index below {len(candidates)}")
        return None


def _spread(scores: Sequence[float]) -> list[float]:
    """Scores of one scorer on the scale from 0 to 1, so that weights compare across scorers."""
    least, most = min(scores), max(scores)
    if most == least:
        return [0.5] * len(scores)
    return [(score - least) / (most - least) for score in scores]
