"""What is wrong with the policies that a configuration names: findings with their places in it."""

import logging
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from supervisord_cp.config.findings import Finding, Level, dotted
from supervisord_cp.config.load import Reading, read_file
from supervisord_cp.config.positions import KeyPath
from supervisord_cp.config.schema import Config, DeploymentConfig
from supervisord_cp.model.fleet import PolicyUse
from supervisord_cp.plugin_host.host import PolicyHost
from supervisord_cp.plugin_host.registry import ROUTING_KINDS, SCHEDULER_KINDS, Registry, Unresolved
from supervisord_cp.policy.declare import PolicyKind

log = logging.getLogger(__name__)

_KINDS: Final = {
    "router": ROUTING_KINDS,
    "scheduler": SCHEDULER_KINDS,
    "scalers": frozenset({PolicyKind.SCALER}),
    "placer": frozenset({PolicyKind.PLACER}),
}


def load_for_daemon(path: Path) -> Config:
    """The configuration in a file, for a daemon that is to run with it; see `checked`.

    Raises:
        ConfigErrors: the file cannot be read, or everything else that is wrong with it.
    """
    return checked(read_file(path))


def checked(reading: Reading) -> Config:
    """The configuration that was read, for a daemon that is to run with it.

    What a policy file can mend (a name that no file has, a file that cannot be used) is logged and no
    reason not to start: others decide in its place until it is mended.

    Raises:
        ConfigErrors: something is wrong with it.
    """
    findings = list(policy_findings(reading, PolicyHost(reading.config.plugins.paths).look(), lenient=True))
    for problem in reading.problems(Level.WARNING, findings):
        log.warning("%s", problem)
    return reading.accepted(findings)


def named_policies(reading: Reading) -> Iterator[PolicyUse]:
    """Every use of a policy that a configuration has."""
    yield from (section.value for section in reading.policies if section.value.use)
    for deployment in reading.config.deployments:
        if deployment.shadow:
            yield PolicyUse(use=deployment.shadow)


def policy_findings(reading: Reading, registry: Registry, *, lenient: bool = False) -> Iterator[Finding]:
    """What is wrong with the policies that are named.

    `lenient`: what a file can mend is a warning, and nothing is said of policies that are not loaded.
    """
    for section in reading.policies:
        name = next((part for part in reversed(section.path) if isinstance(part, str)), "")
        kinds = _KINDS.get(name)
        if kinds is None or not section.value.use or not section.sound("use", "params"):
            continue
        try:
            steps = registry.expand(section.value) if kinds is ROUTING_KINDS else (section.value,)
            for step in steps:
                registry.resolve(step, kinds)
        except Unresolved as error:
            if finding := _finding(section.path, error, lenient=lenient):
                yield finding
    for deployment in reading.record.of(DeploymentConfig):
        wrong = _wrong_shadow(deployment.value.shadow, registry)
        if wrong is not None and (finding := _finding((*deployment.path, "shadow"), wrong, lenient=lenient)):
            yield finding
    yield from _missing_queries(reading)
    if not lenient:
        yield from _missing_folders(reading)


def _missing_queries(reading: Reading) -> Iterator[Finding]:
    """`hpa` reads named PromQL results; one that has no such name would hold its number for ever."""
    known = reading.config.prometheus.queries
    for section in reading.policies:
        query = section.value.params.get("query")
        if section.value.use != "hpa" or not isinstance(query, str) or not query or query in known:
            continue
        where = (*section.path, "params", "query")
        near = get_close_matches(query, known, n=1)
        hint = f'did you mean "{near[0]}"?' if near else f"add `{query} = 'PromQL'` to [prometheus.queries]"
        message = f'{dotted(where)} is "{query}", and [prometheus.queries] has none of that name'
        yield Finding(where=where, message=message, hint=hint)


def _finding(where: KeyPath, error: Unresolved, *, lenient: bool) -> Finding | None:
    if lenient and error.unloaded:
        return None
    level = Level.WARNING if lenient and error.passing else Level.ERROR
    if error.param:
        where = (*where, "params", error.param)
    return Finding(where=where, message=f"{dotted(where)}: {error.message}", hint=error.hint, level=level)


def _wrong_shadow(name: str, registry: Registry) -> Unresolved | None:
    """A shadow is a routing policy or a scheduler."""
    if not name:
        return None
    use = PolicyUse(use=name)
    entry = registry.entries.get(name)
    kinds = SCHEDULER_KINDS if entry is not None and entry.kind in SCHEDULER_KINDS else ROUTING_KINDS
    try:
        for step in registry.expand(use) if kinds is ROUTING_KINDS else (use,):
            registry.resolve(step, kinds)
    except Unresolved as error:
        return error
    return None


def _missing_folders(reading: Reading) -> Iterator[Finding]:
    for index, path in enumerate(reading.config.plugins.paths):
        if not path.is_dir():
            where = ("plugins", "paths", index)
            message = f"{dotted(where)}: there is no folder {path}"
            yield Finding(where=where, message=message, level=Level.WARNING)
