"""What it takes to go from one configuration to another."""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any, Final

from msgspec.structs import replace

from supervisord_cp.config.effective import complete, masked
from supervisord_cp.config.findings import dotted
from supervisord_cp.config.launch import launch_spec
from supervisord_cp.config.positions import KeyPath
from supervisord_cp.config.schema import Config, DeploymentConfig
from supervisord_cp.config.toml_text import inline
from supervisord_cp.model.base import Value
from supervisord_cp.model.launch import revision_of


class Effect(StrEnum):
    """What a change takes, the least first."""

    LIVE = "live"
    """Applied at once, nothing is interrupted."""
    NEW_REPLICAS = "new replicas"
    """Engines are started with other settings, and replace the present ones without losing a request."""
    RESTART = "restart"
    """The daemon reads it when it starts."""


class ChangeKind(StrEnum):
    """What happens to a deployment, a static instance or a daemon's table."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


class KeyChange(Value, frozen=True, kw_only=True):
    """One key with another value; both as in the file, "" for none, secrets masked."""

    key: str
    """Dotted, within its table."""
    old: str = ""
    new: str = ""
    effect: Effect = Effect.LIVE

    def __str__(self) -> str:
        return f"{self.key} {self.old or '(none)'} -> {self.new or '(none)'}"


class Change(Value, frozen=True, kw_only=True):
    """One deployment, static instance or daemon's table that differs."""

    kind: ChangeKind
    table: str
    """`deployments`, `static_instances`, `central`, `router`, `agent`, `prometheus`, `plugins`."""
    name: str = ""
    """Of the deployment or static instance."""
    keys: tuple[KeyChange, ...] = ()

    @property
    def effect(self) -> Effect:
        """The most that one of its keys takes."""
        return max((change.effect for change in self.keys), key=list(Effect).index, default=Effect.LIVE)

    @property
    def subject(self) -> str:
        """What it is about, such as `deployments.chat`."""
        return f"{self.table}.{self.name}" if self.name else self.table

    def __str__(self) -> str:
        """One line, for a log."""
        if not self.keys:
            return f"{self.subject} {self.kind}"
        return f"{self.subject} {self.kind} ({self.effect}): {', '.join(map(str, self.keys))}"


EFFECTS: Final[Mapping[KeyPath, Effect]] = {
    ("central",): Effect.RESTART,
    ("central", "gpu_budget"): Effect.LIVE,
    ("router",): Effect.RESTART,
    ("agent",): Effect.RESTART,
    ("prometheus",): Effect.LIVE,
    ("plugins",): Effect.RESTART,
}
"""Of the daemons' tables and keys; the longest path counts. A deployment's keys are tried out instead."""


def diff_configs(old: Config, new: Config) -> tuple[Change, ...]:
    """Every difference, deployments first; equal configurations have none."""
    before, after = complete(old), complete(new)
    shown = complete(masked(old)), complete(masked(new))
    return (
        *_deployments(old, new, before, after, shown),
        *_static_instances(before, after, shown),
        *_daemons(before, after, shown),
    )


Document = dict[str, Any]
"""A configuration as in the file."""


def _deployments(
    old: Config, new: Config, before: Document, after: Document, shown: tuple[Document, Document]
) -> Iterator[Change]:
    olds = {deployment.name: deployment for deployment in old.deployments}
    news = {deployment.name: deployment for deployment in new.deployments}
    yield from _come_and_gone("deployments", olds, news)
    for name in (name for name in news if name in olds):
        keys = tuple(
            _key_change(
                path, *_inner(shown, "deployments", name), _deployment_effect(path, olds[name], news[name])
            )
            for path in _different(before["deployments"][name], after["deployments"][name])
        )
        if keys:
            yield Change(kind=ChangeKind.CHANGED, table="deployments", name=name, keys=keys)


def _static_instances(
    before: Document, after: Document, shown: tuple[Document, Document]
) -> Iterator[Change]:
    olds, news, old_shown, new_shown = (
        {instance["id"]: instance for instance in document["static_instances"]}
        for document in (before, after, *shown)
    )
    yield from _come_and_gone("static_instances", olds, news)
    for name in (name for name in news if name in olds):
        keys = tuple(
            _key_change(path, old_shown[name], new_shown[name], Effect.LIVE)
            for path in _different(olds[name], news[name])
        )
        if keys:
            yield Change(kind=ChangeKind.CHANGED, table="static_instances", name=name, keys=keys)


def _daemons(before: Document, after: Document, shown: tuple[Document, Document]) -> Iterator[Change]:
    for table in dict.fromkeys(str(path[0]) for path in EFFECTS):
        keys = tuple(
            _key_change(path, *_inner(shown, table), effect_of((table, *path)))
            for path in _different(before[table], after[table])
        )
        if keys:
            yield Change(kind=ChangeKind.CHANGED, table=table, keys=keys)


def effect_of(path: KeyPath) -> Effect:
    """What a change of a daemon's key takes."""
    while path not in EFFECTS:
        path = path[:-1]
    return EFFECTS[path]


def _deployment_effect(path: KeyPath, old: DeploymentConfig, new: DeploymentConfig) -> Effect:
    """New replicas where the key alone would start engines in another way."""
    key = str(path[0])
    tried = replace(old, **{key: getattr(new, key)})
    same = revision_of(launch_spec(tried)) == revision_of(launch_spec(old))
    return Effect.LIVE if same else Effect.NEW_REPLICAS


def _come_and_gone(table: str, olds: Mapping[str, object], news: Mapping[str, object]) -> Iterator[Change]:
    for name in olds:
        if name not in news:
            yield Change(kind=ChangeKind.REMOVED, table=table, name=name)
    for name in news:
        if name not in olds:
            yield Change(kind=ChangeKind.ADDED, table=table, name=name)


def _different(old: object, new: object, path: KeyPath = ()) -> Iterator[KeyPath]:
    """The paths at which two documents differ, down to single values and lists."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys((*old, *new)):
            yield from _different(old.get(key), new.get(key), (*path, key))
    elif old != new or type(old) is not type(new):
        yield path


def _key_change(path: KeyPath, old: Document, new: Document, effect: Effect) -> KeyChange:
    return KeyChange(key=dotted(path), old=_text_at(old, path), new=_text_at(new, path), effect=effect)


def _text_at(document: Any, path: KeyPath) -> str:
    for part in path:
        if not isinstance(document, dict) or part not in document:
            return ""
        document = document[part]
    return inline(document)


def _inner(shown: tuple[Document, Document], *names: str) -> tuple[Document, Document]:
    old, new = shown
    for name in names:
        old, new = old[name], new[name]
    return old, new
