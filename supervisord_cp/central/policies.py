"""Central's policies: scalers and placers that deployments name are loaded, guarded and loaded again when
their files change; what routers say of theirs is shown beside them."""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from supervisord_cp.builtin.routers.presets import PRESETS
from supervisord_cp.central.links import CallFailed, Peer
from supervisord_cp.config.schema import Config
from supervisord_cp.core.policies.guard import Figures, Guard
from supervisord_cp.model.event import Event, Severity
from supervisord_cp.model.fleet import PolicyUse
from supervisord_cp.model.router import PolicyHealth, RouterReport
from supervisord_cp.plugin_host.catalog import Origin, builtin_specs
from supervisord_cp.plugin_host.host import POLL_S, PolicyHost
from supervisord_cp.plugin_host.registry import Entry, Registry, Unresolved
from supervisord_cp.plugin_host.watch import AlarmWatch
from supervisord_cp.policy.answers import STEP_BUDGET_S, Nonsense, chosen_node, proposal
from supervisord_cp.policy.declare import PolicyKind, PolicySpec

log = logging.getLogger(__name__)

ROUTER_ANSWER_S: Final = 40.0
"""A reload tries files out, which takes its time."""
LONGEST_CALL_S: Final = 0.5
_GONE: Final = "numbers that it proposed are held; spread chooses nodes in its place"
_ASKED_HERE: Final = frozenset({PolicyKind.SCALER, PolicyKind.PLACER})


class Unavailable(Exception):
    """A policy that has no answer; the text says why."""


class CentralPolicies:
    """One per central. `use` is called with all policies that central asks, whenever they change."""

    def __init__(
        self,
        paths: Iterable[Path],
        *,
        use: Callable[[Mapping[str, PolicySpec]], None],
        tell: Callable[[Event], None],
        clock: Callable[[], float],
    ) -> None:
        """`tell`: who is told of events; `clock`: monotonic seconds."""
        self._host = PolicyHost(tuple(paths))
        self._use = use
        self._tell = tell
        self._clock = clock
        self._watch = AlarmWatch(LONGEST_CALL_S)
        self._figures: dict[str, Figures] = {}
        self._guards: dict[str, Guard] = {}
        self._turn = asyncio.Lock()
        self._told: dict[str, str] = {}
        self._registry = self._host.look()

    async def run(self, config: Callable[[], Config]) -> None:
        """Look for changes until cancelled."""
        try:
            while True:
                try:
                    await self.refresh(config())
                except Exception:
                    log.exception("policies were not looked at; those in use stay")
                await asyncio.sleep(POLL_S)
        finally:
            self._watch.disarm()

    async def refresh(self, config: Config, *, again: bool = False) -> list[str]:
        """Take over what has changed; with `again`, what could not be used is tried again, too. Returns what
        is wrong."""
        async with self._turn:
            uses = _asked(config)
            registry = await asyncio.to_thread(self._host.refresh, uses, again=again)
            if registry is not self._registry:
                self._take(registry)
        return [f"{name}: {problem}" if name else str(problem) for name, problem in registry.problems()]

    def listing(self, config: Config, reports: Iterable[RouterReport]) -> list[dict[str, Any]]:
        """Every policy that there is, with what it did here and on the routers."""
        reports = list(reports)
        health: dict[str, list[PolicyHealth]] = {}
        for report in reports:
            for one in report.policies:
                health.setdefault(one.policy, []).append(one)
        users = self._users(config)
        listed = [
            self._row(entry, users.get(name, []), health.get(name, []))
            for name, entry in self._registry.entries.items()
        ]
        listed += [
            {"name": "", "kind": offer.kind or "", "origin": offer.origin, "where": offer.where}
            | {"summary": "", "problem": str(offer.problem), "used_by": []}
            for offer in self._registry.unusable
        ]
        for name in users.keys() - self._registry.entries.keys():
            problem = "there is no policy of this name"
            told = next((one.problem for one in health.get(name, []) if one.version), problem)
            listed.append(
                {"name": name, "kind": "", "origin": "", "where": "", "summary": ""}
                | {"problem": told, "used_by": users[name]}
            )
        for row in listed:
            row["shadow"] = [
                {"deployment": count.deployment, "decisions": count.decisions, "agreed": count.agreed}
                for report in reports
                for count in report.shadows
                if count.policy == row["name"]
            ]
        return listed

    def _row(self, entry: Entry, users: Sequence[str], health: Sequence[PolicyHealth]) -> dict[str, Any]:
        name = entry.offer.name
        own = self._figures.get(name, Figures())
        problems = [str(entry.problem)] if entry.problem is not None else []
        problems += [one.problem for one in health if one.problem]
        if own.open:
            problems.append(own.last_failure)
        return {
            "name": name,
            "kind": "preset" if name in PRESETS else entry.kind or "",
            "origin": entry.offer.origin,
            "where": entry.offer.where,
            "summary": entry.offer.summary,
            "version": next((one.version for one in health if one.version), entry.version),
            "used_by": list(users),
            "calls": own.calls + sum(one.calls for one in health),
            "failures": own.failures + sum(one.failures for one in health),
            "seconds": own.seconds + sum(one.seconds for one in health),
            "breaker_open": own.open > 0 or any(one.open for one in health),
            "problem": problems[0] if problems else "",
            "state": "; ".join(sorted({one.state for one in health if one.state})),
        }

    def figures(self) -> Mapping[str, Figures]:
        """What the policies that central asks did."""
        return self._figures

    # --- what guards tell

    def opened(self, policy: str, why: str, lasts_s: float) -> None:
        log.error("policy %s is left alone for %.0f s: it %s", policy, lasts_s, why)
        message = f"left alone for {lasts_s:.0f} s: it {why}"
        self._event("policy.breaker_open", policy, message, Severity.ERROR)

    def closed(self, policy: str) -> None:
        log.info("policy %s is asked again", policy)
        self._event("policy.breaker_closed", policy, "is asked again")

    # --- inside

    def _take(self, registry: Registry) -> None:
        before, self._registry = self._registry, registry
        specs = {
            name: _counted(spec, self._figures.setdefault(name, Figures()))
            if spec.kind in _ASKED_HERE
            else spec
            for name, spec in builtin_specs().items()
        }
        foreign = False
        for name, entry in registry.entries.items():
            if entry.spec is None or entry.offer.origin is Origin.BUILTIN or entry.kind not in _ASKED_HERE:
                continue
            foreign = True
            if registry.version(name) != before.version(name) or name not in self._guards:
                self._guards[name] = self._guard(name)
                log.info("policy %s is loaded: %s, version %s", name, entry.offer.where, entry.version)
                self._event("policy.loaded", name, f"version {entry.version} of {entry.offer.where}")
            specs[name] = _guarded(entry.spec, self._guards[name], self._clock)
        for name in self._guards.keys() - specs.keys():
            self._guards.pop(name).retire()
            log.warning("policy %s is gone", name)
            self._event("policy.gone", name, _GONE, Severity.WARNING)
        if foreign:
            self._watch.arm()
        else:
            self._watch.disarm()
        problems = {name or problem.path: str(problem) for name, problem in registry.problems()}
        for name, text in problems.items():
            if self._told.get(name) != text:
                self._event("policy.rejected", name, text, Severity.ERROR)
        self._told = problems
        self._use(specs)

    def _users(self, config: Config) -> dict[str, list[str]]:
        """The deployments that name each policy, themselves or by a preset."""
        users: dict[str, list[str]] = {}
        for deployment in config.deployments:
            scalers = () if deployment.autoscale is None else deployment.autoscale.scalers
            steps = [step.use for use in deployment.router for step in self._steps(use)]
            own = (*deployment.router, deployment.scheduler, *scalers, deployment.placer)
            named = [use.use for use in own]
            for name in dict.fromkeys((*named, *steps, deployment.shadow)):
                if name:
                    users.setdefault(name, []).append(deployment.name)
        return users

    def _steps(self, use: PolicyUse) -> tuple[PolicyUse, ...]:
        try:
            return self._registry.expand(use)
        except Unresolved:
            return ()

    def _guard(self, name: str) -> Guard:
        old = self._guards.pop(name, None)
        if old is not None:
            old.retire()
        figures = self._figures.setdefault(name, Figures())
        return Guard(name, figures, self, time.perf_counter, budget_s=STEP_BUDGET_S, watch=self._watch)

    def _event(self, kind: str, subject: str, message: str, severity: Severity = Severity.INFO) -> None:
        self._tell(Event(kind=kind, subject=subject, message=message, severity=severity))


async def ask_routers(
    routers: Mapping[str, Peer],
    method: str,
    params: Mapping[str, str] = MappingProxyType({}),
    *,
    within_s: float = ROUTER_ANSWER_S,
) -> dict[str, Any]:
    """What routers answer to a call, by router; one that does not answer says why."""

    async def one(peer: Peer) -> Any:
        try:
            async with asyncio.timeout(within_s):
                return json.loads("".join([piece async for piece in peer.call(method, {**params})]))
        except (TimeoutError, CallFailed, ValueError) as error:
            return {"error": str(error) or "no answer in time"}

    answers = await asyncio.gather(*(one(peer) for peer in routers.values()))
    return dict(zip(routers, answers, strict=True))


def _counted(spec: PolicySpec, figures: Figures) -> PolicySpec:
    """One of our own, as it is, with its calls counted."""

    def target(view: Any, **given: Any) -> Any:
        began = time.perf_counter()
        figures.calls += 1
        try:
            return spec.target(view, **given)
        except Exception as error:
            figures.failures += 1
            figures.last_failure = f"raised {type(error).__name__}: {error}"
            raise
        finally:
            figures.seconds += time.perf_counter() - began

    return replace(spec, target=target)


def _guarded(spec: PolicySpec, guard: Guard, clock: Callable[[], float]) -> PolicySpec:
    """The same policy, asked through its guard; it raises when there is no answer."""

    def target(view: Any, **given: Any) -> Any:
        # A copy: what it does to the dictionaries in there is of no consequence for others.
        answer = guard.ask(partial(spec.target, **given), check, clock(), deepcopy(view))
        if answer is None:
            raise Unavailable("it failed, or is left alone for a while")
        return answer

    def check(answer: Any, view: Any) -> Any:
        if spec.kind is PolicyKind.PLACER:
            return chosen_node(answer, view)
        if spec.memory is None:
            return proposal(answer)
        if not isinstance(answer, tuple) or len(answer) != 2:
            raise Nonsense("did not return a pair, its proposal and its memory")
        return proposal(answer[0]), answer[1]

    return replace(spec, target=target)


def _asked(config: Config) -> list[PolicyUse]:
    """What central itself asks."""
    scalers = [use for d in config.deployments if d.autoscale is not None for use in d.autoscale.scalers]
    return [*scalers, *(d.placer for d in config.deployments)]
