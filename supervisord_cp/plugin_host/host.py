"""Loads the policies that a configuration names, and loads them again when their files change."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from supervisord_cp.errors import Problem
from supervisord_cp.model.fleet import PolicyUse
from supervisord_cp.plugin_host.catalog import Offer, Origin, builtin_specs, survey
from supervisord_cp.plugin_host.loading import Unusable, load_entry_point, load_source
from supervisord_cp.plugin_host.registry import Entry, Registry
from supervisord_cp.plugin_host.trial import Subject, try_out
from supervisord_cp.policy.declare import PolicySpec

POLL_S: Final = 2.0
"""How often folders are looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tried:
    """What became of one version of one policy."""

    version: str
    spec: PolicySpec | None = None
    problem: Problem | None = None


class PolicyHost:
    """One per daemon. `refresh` reads files and runs what they declare, which takes a while: call it off the
    event loop, one call at a time. What it returns is immutable."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths: Final = tuple(paths)
        self._builtin: Final = builtin_specs()
        self._tried: dict[str, _Tried] = {}
        self._good: dict[str, Entry] = {}
        """The version of each policy that was used last."""
        self._contents: tuple[object, ...] | None = None
        self.registry = Registry()

    def look(self) -> Registry:
        """What there is, by reading alone: policies of users are not loaded."""
        return self._registry(survey(self._paths), {})

    def refresh(self, uses: Iterable[PolicyUse], *, again: bool = False) -> Registry:
        """The policies as they are now, those that are used loaded.

        A version that was tried is not tried again, unless `again`. While the newest version of a policy
        cannot be used, the one before it stays; when its file is gone, so is the policy.
        """
        offers = survey(self._paths)
        used: dict[str, PolicyUse] = {}
        for use in uses:
            used.setdefault(use.use, use)
        contents = (tuple((o.name, o.where, o.digest, str(o.problem)) for o in offers), frozenset(used))
        if contents == self._contents and not again:
            return self.registry
        if again:
            self._tried = {name: tried for name, tried in self._tried.items() if tried.problem is None}
        self._contents = contents
        self.registry = self._registry(offers, used)
        return self.registry

    def _registry(self, offers: Sequence[Offer], used: Mapping[str, PolicyUse]) -> Registry:
        entries: dict[str, Entry] = {}
        broken = {offer.where: offer for offer in offers if not offer.name and offer.where}
        for offer in offers:
            if offer.name:
                entries[offer.name] = self._entry(offer, used.get(offer.name))
        for name, good in self._good.items():
            if name in used and name not in entries and good.offer.where in broken:
                entries[name] = replace(good, problem=broken.pop(good.offer.where).problem)
        self._forget(entries)
        return Registry(
            entries=entries,
            unusable=tuple(offer for offer in offers if not offer.name and offer.where in broken),
            open_ended=bool(self._paths),
        )

    def _entry(self, offer: Offer, use: PolicyUse | None) -> Entry:
        if offer.origin is Origin.BUILTIN:
            return Entry(offer=offer, spec=self._builtin.get(offer.name))
        if use is None:
            return Entry(offer=offer)
        tried = self._tried.get(offer.name)
        if tried is None or tried.version != offer.digest:
            tried = self._tried[offer.name] = _try(offer, use.params)
        if tried.spec is not None:
            good = Entry(offer=offer, spec=tried.spec, version=tried.version[:12])
            self._good[offer.name] = good
            return good
        before = self._good.get(offer.name)
        if before is None:
            return Entry(offer=offer, problem=tried.problem)
        return replace(before, problem=tried.problem)

    def _forget(self, entries: Mapping[str, Entry]) -> None:
        """What is gone or not used starts anew when it comes back."""
        used = {name: entry for name, entry in entries.items() if entry.spec is not None}
        self._good = {name: entry for name, entry in self._good.items() if name in used}
        self._tried = {name: tried for name, tried in self._tried.items() if name in entries}
        modules = {entry.spec.target.__module__ for entry in used.values() if entry.spec is not None}
        for name in [name for name in sys.modules if name.startswith("supervisord_cp_policy_")]:
            if name not in modules:
                del sys.modules[name]


def _try(offer: Offer, params: dict[str, Any]) -> _Tried:
    """In a process of its own first; what comes out of that well is loaded here."""
    source = offer.source
    if source is None:
        subject = Subject(entry_point=offer.name, params=params)
    else:
        subject = Subject(path=source.path, text=source.text, params=params)
    verdict = try_out(subject)
    if verdict.problems:
        return _Tried(version=offer.digest, problem=verdict.problems[0])
    try:
        spec = load_entry_point(offer.name) if source is None else load_source(source)
    except Unusable as error:
        return _Tried(version=offer.digest, problem=error.problem)
    return _Tried(version=offer.digest, spec=spec)
