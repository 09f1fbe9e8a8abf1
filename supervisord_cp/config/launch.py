"""From a deployment to what its engines are started with."""

import json
from collections.abc import Iterator

from supervisord_cp.config.schema import DeploymentConfig
from supervisord_cp.model.launch import EngineKind, LaunchSpec


def launch_spec(deployment: DeploymentConfig) -> LaunchSpec:
    """Everything that decides how a deployment's engine is started.

    An alias that names one of its LoRA adapters is not a name of the base model, so it stays out.
    """
    adapters = set(_adapter_names(deployment))
    served, *aliases = deployment.names
    return LaunchSpec(
        engine=EngineKind(deployment.engine),
        model=deployment.model,
        served_names=(served, *(alias for alias in aliases if alias not in adapters)),
        executable=deployment.executable,
        args=deployment.args,
        env=deployment.env,
        gpus=deployment.gpus,
        command=deployment.command,
        ready_path=deployment.ready_path,
        start_timeout_s=deployment.start_timeout_s,
        stop_grace_s=deployment.stop_grace_s,
    )


def _adapter_names(deployment: DeploymentConfig) -> Iterator[str]:
    """Names in the engine's `lora-modules` flag, written `name=path` or as JSON."""
    for flag, value in deployment.args.items():
        if flag.replace("_", "-") != "lora-modules":
            continue
        for module in value if isinstance(value, list) else [value]:
            yield _adapter_name(str(module))


def _adapter_name(module: str) -> str:
    if not module.startswith("{"):
        return module.partition("=")[0]
    try:
        return str(json.loads(module)["name"])
    except (ValueError, KeyError):
        return ""
