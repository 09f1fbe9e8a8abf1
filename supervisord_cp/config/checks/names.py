"""Names that must not meet: of deployments, of what clients ask for, of instances."""

import re
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Final

from supervisord_cp.config.findings import Finding, dotted
from supervisord_cp.config.schema import Config, DeploymentConfig, StaticInstanceConfig
from supervisord_cp.config.sites import Record, Section
from supervisord_cp.model.launch import EngineKind

_INSTANCE_ID: Final = re.compile(r"(.+)-\d+")
_EVERYTHING: Final = "all"


def served_names(record: Record) -> Iterator[Finding]:
    """What clients put in `model` names one deployment."""
    owners: dict[str, str] = {}
    for deployment in record.of(DeploymentConfig):
        if not deployment.sound("served_name", "model", "aliases", "engine"):
            continue
        for index, name in enumerate(dict.fromkeys(deployment.value.names)):
            owner = owners.setdefault(name, deployment.value.name)
            if owner == deployment.value.name:
                continue
            key = (
                "aliases"
                if index
                else next(k for k in ("served_name", "model", "name") if k in _named(deployment))
            )
            yield deployment.error(
                key,
                f'makes "{name}" a second deployment for clients, beside {owner}',
                "set another served_name",
            )


def deployment_names(record: Record) -> Iterator[Finding]:
    """Commands take a deployment or an instance by its name: it must be clear which one is meant."""
    names = {deployment.value.name for deployment in record.of(DeploymentConfig)}
    for deployment in record.of(DeploymentConfig):
        name = deployment.value.name
        match = _INSTANCE_ID.fullmatch(name)
        if name == _EVERYTHING:
            yield deployment.bad_name((), "cannot be a name: commands take it for everything")
        elif match and match[1] in names:
            yield deployment.bad_name((), f"could be an instance of {match[1]}", "choose another name")


def static_instances(record: Record) -> Iterator[Finding]:
    """Static instances have ids of their own and serve a deployment that there is."""
    deployments = {deployment.value.name: deployment.value for deployment in record.of(DeploymentConfig)}
    root = record.one(Config)
    misspelled = "deployments" not in root.written and not root.sound("deployments")
    seen: dict[str, Section[StaticInstanceConfig]] = {}
    for static in record.of(StaticInstanceConfig):
        value = static.value
        first = seen.setdefault(value.id, static) if static.sound("id") else static
        match = _INSTANCE_ID.fullmatch(value.id)
        if first is not static:
            yield static.error("id", f'is "{value.id}" a second time', f"as {dotted(first.path)}")
        elif value.id == _EVERYTHING or value.id in deployments:
            yield static.error("id", f'is "{value.id}", which commands take for something else')
        elif match and match[1] in deployments and deployments[match[1]].engine != EngineKind.NONE:
            yield static.error(
                "id", f'is "{value.id}", an id for replicas of {match[1]}', "choose another id"
            )
        if value.deployment not in deployments and static.sound("deployment") and not misspelled:
            yield static.error(
                "deployment",
                f'is "{value.deployment}", and there is no such deployment',
                _near(value, deployments),
            )


def served_by_someone(record: Record) -> Iterator[Finding]:
    """A deployment that starts no engine has static instances."""
    served = {static.value.deployment for static in record.of(StaticInstanceConfig)}
    for deployment in record.of(DeploymentConfig):
        if deployment.value.engine == EngineKind.NONE and deployment.value.name not in served:
            yield deployment.warning("engine", 'is "none" and no static instance serves it')


CHECKS: Final = (served_names, deployment_names, static_instances, served_by_someone)


def _named(deployment: Section[DeploymentConfig]) -> set[str]:
    """The keys that say what a deployment is called; its table's own name is the last resort."""
    value = deployment.value
    return {"name", *(key for key in ("served_name", "model") if getattr(value, key))}


def _near(static: StaticInstanceConfig, deployments: dict[str, DeploymentConfig]) -> str:
    near = get_close_matches(static.deployment, deployments, n=1)
    if near:
        return f'did you mean "{near[0]}"?'
    return f'add [deployments.{static.deployment}]; engine = "none" when only static instances serve it'
