"""The router's policies: loaded when a deployment names them, loaded again when their files change, and told
of to central."""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from supervisord_cp.core.policies.guard import Figures
from supervisord_cp.model.base import DeploymentName
from supervisord_cp.model.event import Event, Severity
from supervisord_cp.model.fleet import PolicyUse, RoutedDeployment
from supervisord_cp.model.router import PolicyHealth, ShadowCount
from supervisord_cp.plugin_host.binding import Binder
from supervisord_cp.plugin_host.catalog import Origin
from supervisord_cp.plugin_host.host import POLL_S, PolicyHost
from supervisord_cp.plugin_host.registry import Registry, Unresolved
from supervisord_cp.plugin_host.watch import AlarmWatch

if TYPE_CHECKING:
    from supervisord_cp.router.dispatch import Dispatcher

log = logging.getLogger(__name__)

DESCRIBE_S: Final = 1.0

Tell = Callable[[Event], None]


class Names(Protocol):
    """What names policies: a deployment, as configured or as routed."""

    @property
    def router(self) -> tuple[PolicyUse, ...]: ...

    @property
    def scheduler(self) -> PolicyUse: ...

    @property
    def shadow(self) -> str: ...


class RouterPolicies:
    """Made before the dispatcher, which is given the `binder`; `attach` closes the circle."""

    def __init__(
        self, paths: Iterable[Path], tell: Tell, *, timer: Callable[[], float] = time.perf_counter
    ) -> None:
        """`tell`: who is told of events; `timer` measures calls, in seconds."""
        self._host = PolicyHost(tuple(paths))
        self._watch = AlarmWatch()
        self._tell = tell
        self._dispatcher: Dispatcher | None = None
        self._wanted: tuple[PolicyUse, ...] = ()
        self._wake = asyncio.Event()
        self._turn = asyncio.Lock()
        self._told_problems: dict[str, str] = {}
        self._told_unusable: dict[DeploymentName, tuple[str, ...]] = {}
        self._states: dict[tuple[DeploymentName, str], str] = {}
        self.binder: Final = Binder(listener=self, registry=self._host.look(), watch=self._watch, timer=timer)

    def attach(self, dispatcher: "Dispatcher") -> None:
        """This one decides by them."""
        self._dispatcher = dispatcher

    async def load(self, deployments: Iterable[Names]) -> None:
        """Have what these name ready."""
        self._wanted = _uses(deployments)
        await self.refresh()

    async def run(self) -> None:
        """Look for changes until cancelled."""
        try:
            while True:
                try:
                    async with asyncio.timeout(POLL_S):
                        await self._wake.wait()
                except TimeoutError:
                    pass
                self._wake.clear()
                try:
                    await self.refresh()
                except Exception:
                    log.exception("policies were not looked at; those in use stay")
        finally:
            self._watch.disarm()

    async def refresh(self, *, again: bool = False) -> Registry:
        """Take over what has changed; with `again`, what could not be used is tried again, too."""
        async with self._turn:
            uses = self._wanted
            registry = await asyncio.to_thread(self._host.refresh, uses, again=again)
            if registry is not self.binder.registry:
                self._use(registry)
        return registry

    def tick(self) -> None:
        """To be called a few times a second: names that a snapshot has brought are loaded at once."""
        if self._dispatcher is None:
            return
        wanted = _uses(self._dispatcher.fleet.table.deployments.values())
        if wanted != self._wanted:
            self._wanted = wanted
            self._wake.set()

    def describe(self, now: float) -> None:
        """To be called once a second: what policies say of themselves becomes an event when it is new."""
        if self._dispatcher is None:
            return
        self._tell_unusable()
        said: dict[tuple[DeploymentName, str], str] = {}
        for name, lane in self._dispatcher.fleet.lanes.items():
            scheduler = lane.policies.scheduler
            said |= {(name, policy): text for policy, text in lane.policies.router.described(now)}
            if text := scheduler.described(now):
                said[name, scheduler.name] = text
        for (deployment, policy), text in said.items():
            if self._states.get((deployment, policy), text) != text:
                self._event("policy.state", deployment, f"{policy}: {text}")
        self._states = said

    # --- what central is told

    def health(self) -> tuple[PolicyHealth, ...]:
        """Every policy that is named, with what it did."""
        users: dict[str, list[DeploymentName]] = {}
        for deployment in self._deployments():
            for use in _uses((deployment,)):
                for step in self._steps(use):
                    users.setdefault(step, []).append(deployment.name)
        names = sorted({*users, *self.binder.book.figures})
        return tuple(self._health_of(name, tuple(users.get(name, ()))) for name in names)

    def shadows(self) -> tuple[ShadowCount, ...]:
        """How shadow policies agree."""
        return tuple(
            ShadowCount(deployment=deployment, policy=policy, decisions=count.decisions, agreed=count.agreed)
            for (deployment, policy), count in self.binder.book.agreements.items()
        )

    async def call_reload(self, params: Mapping[str, object]) -> str:
        """Central's call `policies.reload`: what is wrong after it, as JSON."""
        registry = await self.refresh(again=True)
        return json.dumps(
            [f"{name}: {problem}" if name else str(problem) for name, problem in registry.problems()]
        )

    async def call_differences(self, params: Mapping[str, object]) -> str:
        """Central's call `policies.differences`: where shadows disagreed of late, as JSON."""
        deployment = params.get("deployment")
        now = 0.0 if self._dispatcher is None else self._dispatcher.clock()
        found = [
            {
                "deployment": name,
                "policy": policy,
                "request": difference.request,
                "age_s": round(now - difference.at, 3),
                "live": difference.live,
                "shadow": difference.shadow,
                "scores": difference.scores,
            }
            for (name, policy), agreement in self.binder.book.agreements.items()
            if deployment in (None, name)
            for difference in agreement.differences
        ]
        return json.dumps(found)

    # --- what guards tell

    def opened(self, policy: str, why: str, lasts_s: float) -> None:
        log.error("policy %s is left alone for %.0f s: it %s", policy, lasts_s, why)
        message = f"left alone for {lasts_s:.0f} s: it {why}"
        self._event("policy.breaker_open", policy, message, Severity.ERROR)

    def closed(self, policy: str) -> None:
        log.info("policy %s decides again", policy)
        self._event("policy.breaker_closed", policy, "decides again")

    # --- inside

    def _tell_unusable(self) -> None:
        """What deployments name that cannot be followed here is an event when it is new: central may know
        more policies than this router. A policy's own problem is told with the policy."""
        problems = dict(self.binder.book.problems)
        known = [str(problem) for _, problem in self.binder.registry.problems()]
        for name, told in problems.items():
            for problem in told:
                new = problem not in self._told_unusable.get(name, ())
                if new and not any(text in problem for text in known):
                    self._event("policy.rejected", name, problem, Severity.ERROR)
        self._told_unusable = problems

    def _use(self, registry: Registry) -> None:
        before = self.binder.registry
        self.binder.registry = registry
        foreign = any(
            entry.spec is not None and entry.offer.origin is not Origin.BUILTIN
            for entry in registry.entries.values()
        )
        if foreign:
            self._watch.arm()
        else:
            self._watch.disarm()
        for name in {*before.entries, *registry.entries}:
            if registry.version(name) != before.version(name):
                self._changed(name, before, registry)
        problems = {name or problem.path: str(problem) for name, problem in registry.problems()}
        for name, text in problems.items():
            if self._told_problems.get(name) != text:
                log.error("policy %s: %s", name, text)
                self._event("policy.rejected", name, text, Severity.ERROR)
        self._told_problems = problems
        if self._dispatcher is not None:
            self._dispatcher.use_policies(registry)

    def _changed(self, name: str, before: Registry, registry: Registry) -> None:
        entry, was = registry.entries.get(name), before.entries.get(name)
        if entry is not None and entry.spec is not None:
            log.info("policy %s is loaded: %s, version %s", name, entry.offer.where, entry.version)
            self._event("policy.loaded", name, f"version {entry.version} of {entry.offer.where}")
        elif was is not None and was.spec is not None:
            log.warning("policy %s is gone: the default decides in its place", name)
            self._event("policy.gone", name, "the default decides in its place", Severity.WARNING)

    def _deployments(self) -> Iterable[RoutedDeployment]:
        return () if self._dispatcher is None else self._dispatcher.fleet.table.deployments.values()

    def _steps(self, use: PolicyUse) -> list[str]:
        try:
            return [step.use for step in self.binder.registry.expand(use)]
        except Unresolved:
            return [use.use]

    def _health_of(self, name: str, deployments: tuple[DeploymentName, ...]) -> PolicyHealth:
        figures = self.binder.book.figures.get(name) or Figures()
        entry = self.binder.registry.entries.get(name)
        states = {self._states[key] for key in self._states if key[1] == name}
        problem = "" if entry is None or entry.problem is None else str(entry.problem)
        if entry is None:
            problem = "there is no policy of this name"
        return PolicyHealth(
            policy=name,
            deployments=deployments,
            version="" if entry is None else entry.version,
            calls=figures.calls,
            failures=figures.failures,
            seconds=figures.seconds,
            open=figures.open > 0,
            problem=problem or (figures.last_failure if figures.open else ""),
            state="; ".join(sorted(states)),
        )

    def _event(self, kind: str, subject: str, message: str, severity: Severity = Severity.INFO) -> None:
        self._tell(Event(kind=kind, subject=subject, message=message, severity=severity))


def _uses(deployments: Iterable[Names]) -> tuple[PolicyUse, ...]:
    """What deployments name, each once."""
    found: list[PolicyUse] = []
    for deployment in deployments:
        named = (*deployment.router, deployment.scheduler, PolicyUse(use=deployment.shadow))
        found += (use for use in named if use.use and use not in found)
    return tuple(found)
