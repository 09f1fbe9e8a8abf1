"""The configuration that is in effect, defaults included, as the file would have it; secrets masked."""

from collections.abc import Mapping
from typing import Any, Final

from msgspec.structs import replace

from supervisord_cp.config.checks.deployments import USELESS
from supervisord_cp.config.derive import table_of
from supervisord_cp.config.load import read_document
from supervisord_cp.config.masking import MASK, looks_secret, mask_argv, mask_url
from supervisord_cp.config.schema import Config, DeploymentConfig
from supervisord_cp.model.launch import ArgValue, EngineKind

_EMPTY: Final[DeploymentConfig] = DeploymentConfig(name="")


def plain(config: Config) -> dict[str, object]:
    """The document that gives this configuration: dicts, lists, strings, numbers, ready for TOML or JSON.

    Keys without a value are left out, and those that a deployment's engine has no use for. Secrets are
    not masked.
    """
    document = complete(config)
    document["deployments"] = {
        deployment.name: _useful(deployment, document["deployments"][deployment.name])
        for deployment in config.deployments
    }
    return document


def complete(config: Config) -> dict[str, Any]:
    """As `plain`, with the keys that an engine has no use for; the same keys for every engine."""
    document = table_of(Config).write(config)
    for deployment in config.deployments:
        if deployment.autoscale is not None or deployment.engine == EngineKind.NONE:
            del document["deployments"][deployment.name]["replicas"]
    return {key: _without_none(value) for key, value in document.items()}


def from_plain(document: Mapping[str, object]) -> Config:
    """The configuration of such a document. Keys of another release are passed over, so is what is wrong."""
    return read_document(document).config


def masked(config: Config) -> Config:
    """The same without secrets: values of variables and flags whose names look like secrets, and passwords
    in addresses. Secrets proper are in files, which a configuration only names."""
    prometheus = replace(config.prometheus, url=mask_url(config.prometheus.url))
    deployments = tuple(
        replace(
            deployment,
            env={
                name: MASK if looks_secret(name) and value else value
                for name, value in deployment.env.items()
            },
            args={name: _masked_flag(name, value) for name, value in deployment.args.items()},
            command=mask_argv(deployment.command),
        )
        for deployment in config.deployments
    )
    return replace(config, prometheus=prometheus, deployments=deployments)


def _useful(deployment: DeploymentConfig, document: Mapping[str, object]) -> dict[str, object]:
    """Without what would be refused, or warned of, if it were written."""
    useless = USELESS[deployment.engine]
    return {
        key: value
        for key, value in document.items()
        if key not in useless or getattr(deployment, key) != getattr(_EMPTY, key)
    }


def _masked_flag(name: str, value: ArgValue) -> ArgValue:
    return MASK if looks_secret(name) and isinstance(value, str | list) and value else value


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_none(item) for item in value]
    return value
