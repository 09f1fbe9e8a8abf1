"""From the names that a deployment's configuration has to policies that decide, each behind its guard."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any, Final

from supervisord_cp.builtin.routers.best_score import best_score
from supervisord_cp.builtin.routers.load_balanced import load_balanced
from supervisord_cp.core.policies.guard import Figures, Guard, Listener, Watch
from supervisord_cp.core.routing.lane_policies import LanePolicies
from supervisord_cp.core.routing.pipeline import Pipeline
from supervisord_cp.core.routing.scheduling import Scheduling
from supervisord_cp.core.routing.shadow import Agreement, RouterShadow, SchedulerShadow
from supervisord_cp.core.routing.step import Step
from supervisord_cp.model.base import DeploymentName
from supervisord_cp.model.fleet import PolicyUse, RoutedDeployment
from supervisord_cp.plugin_host.registry import (
    ROUTING_KINDS,
    SCHEDULER_KINDS,
    Bound,
    Registry,
    Unresolved,
    builtin_registry,
)
from supervisord_cp.policy.conformance import made
from supervisord_cp.policy.routing import Affinity

log = logging.getLogger(__name__)

_STAND_IN_ROUTER: Final = PolicyUse(use="load_balanced")
_STAND_IN_SCHEDULER: Final = PolicyUse(use="fifo")


class LogListener:
    """Says in the log when breakers open and close."""

    def opened(self, policy: str, why: str, lasts_s: float) -> None:
        log.error("policy %s is left alone for %.0f s: it %s", policy, lasts_s, why)

    def closed(self, policy: str) -> None:
        log.info("policy %s decides again", policy)


class PolicyBook:
    """What is known of the policies of one router: what they did, by name, and what is wrong with them."""

    def __init__(self) -> None:
        self.figures: Final[dict[str, Figures]] = {}
        self.agreements: Final[dict[tuple[DeploymentName, str], Agreement]] = {}
        self.affinities: Final[dict[tuple[DeploymentName, str], dict[Affinity, int]]] = {}
        """Dispatches by deployment and policy; all zero where the policy has none."""
        self.problems: Final[dict[DeploymentName, tuple[str, ...]]] = {}
        """Uses that cannot be followed, by deployment."""

    def of(self, policy: str) -> Figures:
        """The figures of a policy; they stay when it goes: counters do not go backwards."""
        figures = self.figures.get(policy)
        if figures is None:
            figures = self.figures[policy] = Figures()
        return figures

    def agreement(self, deployment: DeploymentName, policy: str) -> Agreement:
        """Counts of a shadow."""
        return self.agreements.setdefault((deployment, policy), Agreement())

    def affinity(self, deployment: DeploymentName, policy: str) -> dict[Affinity, int]:
        """Counts of a policy that keeps requests together."""
        return self.affinities.setdefault((deployment, policy), dict.fromkeys(Affinity, 0))


class Binder:
    """Makes what decides for a deployment. A name that leads nowhere is passed over, and load_balanced or
    fifo stand in where nothing is left."""

    def __init__(
        self,
        *,
        listener: Listener | None = None,
        registry: Registry | None = None,
        watch: Watch | None = None,
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`watch` looks at policies that are not our own."""
        self.registry = registry or builtin_registry()
        self.book: Final = PolicyBook()
        self._listener = listener or LogListener()
        self._watch = watch
        self._timer = timer

    def version(self, deployment: RoutedDeployment) -> tuple[object, ...]:
        """What changes when other policies, or other versions of them, decide for a deployment."""
        uses = (*deployment.router, deployment.scheduler, PolicyUse(use=deployment.shadow))
        return (*uses, *(self.registry.version(use.use) for use in uses))

    def bind(self, deployment: RoutedDeployment, rng: Random) -> LanePolicies:
        """The policies of a deployment, made anew."""
        problems: list[str] = []
        policies = LanePolicies(
            router=self._pipeline(deployment, problems),
            scheduler=self._scheduling(deployment.scheduler, problems),
            shadow=self._shadow(deployment, rng, problems),
        )
        if problems:
            self.book.problems[deployment.name] = tuple(problems)
        else:
            self.book.problems.pop(deployment.name, None)
        return policies

    def _pipeline(self, deployment: RoutedDeployment, problems: list[str]) -> Pipeline:
        found = list(self._steps(deployment.router, problems))
        found = found or list(self._steps((_STAND_IN_ROUTER,), problems))
        for step in found:
            step.affinities = self.book.affinity(deployment.name, step.guard.name)
        return Pipeline(found, score=load_balanced, pick=best_score)

    def _steps(self, uses: Sequence[PolicyUse], problems: list[str]) -> Iterator[Step]:
        for use in uses:
            try:
                for step in self.registry.expand(use):
                    yield self._step(self.registry.resolve(step, ROUTING_KINDS), weight=use.weight)
            except Unresolved as error:
                problems += _told(error)

    def _step(self, bound: Bound, weight: float) -> Step:
        return Step(
            kind=bound.spec.kind,
            call=_made(bound),
            guard=self._guard(bound),
            weight=weight,
            params=bound.params,
            needs_prefix=bound.spec.needs_prefix,
        )

    def _scheduling(self, use: PolicyUse, problems: list[str]) -> Scheduling:
        try:
            return self._scheduler(use)
        except Unresolved as error:
            problems += (f"{why}: {_STAND_IN_SCHEDULER.use} stands in for it" for why in _told(error))
            return self._scheduler(_STAND_IN_SCHEDULER)

    def _scheduler(self, use: PolicyUse) -> Scheduling:
        bound = self.registry.resolve(use, SCHEDULER_KINDS)
        return Scheduling(
            self._guard(bound),
            _made(bound),
            params=bound.params,
            refresh_s=bound.spec.refresh_s,
            needs_prefix=bound.spec.needs_prefix,
        )

    def _shadow(
        self, deployment: RoutedDeployment, rng: Random, problems: list[str]
    ) -> RouterShadow | SchedulerShadow[Any] | None:
        name = deployment.shadow
        if not name:
            return None
        agreement = self.book.agreement(deployment.name, name)
        use = PolicyUse(use=name)
        try:
            return SchedulerShadow(self._scheduler(use), agreement)
        except Unresolved:
            pass
        wrong: list[str] = []
        steps = list(self._steps((use,), wrong))
        if not steps:
            problems.extend(f"shadow: {why}" for why in wrong)
            return None
        pipeline = Pipeline(steps, score=load_balanced, pick=best_score)
        return RouterShadow(name, pipeline, Random(rng.random()), agreement)

    def _guard(self, bound: Bound) -> Guard:
        name = bound.spec.name
        watch = None if bound.own else self._watch
        return Guard(name, self.book.of(name), self._listener, self._timer, watch=watch)


def _told(error: Unresolved) -> list[str]:
    """What is wrong; nothing is while a policy is still being loaded."""
    return [] if error.unloaded else [str(error)]


def _made(bound: Bound) -> Callable[..., Any]:
    """What is called. A class that cannot be made fails at its first call, behind the guard."""
    try:
        return made(bound.spec, bound.params)
    except Exception as error:
        return _Unmade(error)


class _Unmade:
    """Stands in for an object whose class raised."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __call__(self, *args: object) -> object:
        raise self._error
