"""Where a request goes: filters, weighted scores, one pick. A policy that fails is passed over."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from supervisord_cp.core.routing.choice import Choice
from supervisord_cp.core.routing.step import Step
from supervisord_cp.model.base import Incarnation
from supervisord_cp.model.request import Candidate, RoutingRequest
from supervisord_cp.policy.answers import (
    affinity_or_none,
    finite_scores,
    index_of_candidate,
    kept_candidates,
    one_line,
)
from supervisord_cp.policy.context import Context
from supervisord_cp.policy.declare import PolicyKind
from supervisord_cp.policy.routing import Outcome, Picker, Scorer


class Pipeline:
    """The steps of one deployment."""

    def __init__(self, steps: Sequence[Step], *, score: Scorer, pick: Picker) -> None:
        """`score` and `pick` decide where no step does, and where one fails; they do not fail."""
        self.steps: Final = tuple(steps)
        self.names: Final = tuple(step.guard.name for step in steps)
        self._filters: Final = [step for step in steps if step.kind is PolicyKind.FILTER]
        self._scorers: Final = [step for step in steps if step.kind is PolicyKind.SCORER]
        self._picker: Final = next((step for step in steps if step.kind is PolicyKind.PICKER), None)
        self._score: Final = score
        self._pick: Final = pick
        self.needs_prefix: Final = any(step.needs_prefix for step in steps)
        self._on_dispatch: Final = _hooks(steps, "on_dispatch")
        self._on_first_byte: Final = _hooks(steps, "on_first_byte")
        self._on_complete: Final = _hooks(steps, "on_complete")
        self._on_instance_reset: Final = _hooks(steps, "on_instance_reset")
        self._describe: Final = _hooks(steps, "describe")
        self.watches: Final = bool(self._on_dispatch or self._on_first_byte or self._on_complete)
        """Whether a step wants to be told what becomes of requests."""

    def choose(
        self, request: RoutingRequest, candidates: tuple[Candidate, ...], context: Context[None]
    ) -> Choice:
        """One of the candidates; there must be at least one."""
        for step in self._filters:
            answer = step.guard.ask(
                step.call, kept_candidates, context.now, request, candidates, step.given(context)
            )
            candidates = candidates if answer is None else answer
        if len(candidates) == 1:
            return Choice(candidate=candidates[0], candidates=candidates)
        scores = self._scores(request, candidates, context)
        index = self._index(request, candidates, scores, context)
        if index is None:
            scores = scores or self._score(request, candidates, context)
            index = self._pick(request, candidates, scores, context)
        return Choice(candidate=candidates[index], candidates=candidates, scores=tuple(scores))

    def dispatched(self, request: RoutingRequest, candidate: Candidate, context: Context[None]) -> None:
        """A request goes to an instance."""
        for step, call in self._on_dispatch:
            given = step.given(context)
            said = step.guard.ask(call, affinity_or_none, context.now, request, candidate, given)
            if said is not None and step.affinities is not None:
                step.affinities[said] += 1

    def first_byte(self, request: RoutingRequest, candidate: Candidate, context: Context[None]) -> None:
        """Its answer begins."""
        for step, call in self._on_first_byte:
            step.guard.tell(call, context.now, request, candidate, step.given(context))

    def completed(
        self, request: RoutingRequest, candidate: Candidate, outcome: Outcome, context: Context[None]
    ) -> None:
        """It is done with."""
        for step, call in self._on_complete:
            step.guard.tell(call, context.now, request, candidate, outcome, step.given(context))

    def reset(self, incarnation: Incarnation, now: float) -> None:
        """An incarnation is gone."""
        for step, call in self._on_instance_reset:
            step.guard.tell(call, now, incarnation)

    def described(self, now: float) -> Iterator[tuple[str, str]]:
        """What policies say of their state, by name."""
        for step, call in self._describe:
            said = step.guard.ask(call, one_line, now)
            if said is not None:
                yield step.guard.name, said

    def retire(self) -> None:
        """It is no longer in use."""
        for step in self.steps:
            step.guard.retire()

    def _scores(
        self, request: RoutingRequest, candidates: tuple[Candidate, ...], context: Context[None]
    ) -> Sequence[float]:
        """The weighted sum, empty when there is none."""
        total: list[float] = []
        for step in self._scorers:
            scores = step.guard.ask(
                step.call, finite_scores, context.now, request, candidates, step.given(context)
            )
            if scores is None:
                continue
            if len(self._scorers) > 1:
                scores = [step.weight * score for score in _spread(scores)]
            total = [a + b for a, b in zip(total, scores, strict=True)] if total else scores
        return total

    def _index(
        self,
        request: RoutingRequest,
        candidates: tuple[Candidate, ...],
        scores: Sequence[float],
        context: Context[None],
    ) -> int | None:
        step = self._picker
        if step is None:
            return None
        scores = tuple(scores) or (0.0,) * len(candidates)  # its own: the fallback chooses by ours
        return step.guard.ask(
            step.call, index_of_candidate, context.now, request, candidates, scores, step.given(context)
        )


def _hooks(steps: Sequence[Step], name: str) -> tuple[tuple[Step, Callable[..., Any]], ...]:
    return tuple((step, call) for step in steps if (call := step.hook(name)) is not None)


def _spread(scores: Sequence[float]) -> list[float]:
    """Scores of one scorer on the scale from 0 to 1, so that weights compare across scorers."""
    least, most = min(scores), max(scores)
    if most == least:
        return [0.5] * len(scores)
    if math.isinf(most - least):  # of the largest numbers there are
        return _spread([score / 4 for score in scores])
    return [(score - least) / (most - least) for score in scores]
