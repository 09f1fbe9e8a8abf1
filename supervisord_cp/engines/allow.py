"""The node's own policy: what may be launched here, whatever central asks for."""

import os.path
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Final

from supervisord_cp.config.schema import AllowConfig
from supervisord_cp.engines.base import local_model, program_of
from supervisord_cp.engines.environment import OWNED, matches
from supervisord_cp.model.launch import EngineKind, LaunchSpec

BY_NAME_ONLY: Final = (
    # They decide which code runs, or whom it talks to.
    "LD_*",
    "PYTHON*",
    "PATH",
    "*_PROXY",
    "*_proxy",
    "HF_ENDPOINT",
    "VLLM_PLUGINS",
    "VLLM_ALLOW_INSECURE_SERIALIZATION",
    "VLLM_LOGGING_CONFIG_PATH",
    "VLLM_RUST_FRONTEND_PATH",
    # Secrets: what central publishes is shown and stored. They belong into the agent's own environment.
    "*_TOKEN",
    "*_KEY",
    "*_SECRET",
    "*_PASSWORD",
)
"""Variables that a pattern such as `HF_*` does not allow: `allow.env` must name them."""


def refusals(spec: LaunchSpec, allow: AllowConfig) -> tuple[str, ...]:
    """What of a specification the node does not allow; empty: it may be launched.

    Paths are compared as written, after `..` and `.`: symbolic links in a model root are the node's own.
    """
    return (*_program(spec, allow), *_model(spec, allow), *_environment(spec, allow))


def _program(spec: LaunchSpec, allow: AllowConfig) -> Iterator[str]:
    program = program_of(spec)
    if spec.engine is not EngineKind.FAKE and program not in allow.executables:
        yield f"{program or 'no program'} is not in allow.executables"


def _model(spec: LaunchSpec, allow: AllowConfig) -> Iterator[str]:
    folder = local_model(spec.model)
    if folder is None:
        if ".." in PurePath(spec.model).parts:
            yield f"model {spec.model!r} is neither an absolute path nor a name"
    elif not folder.is_absolute():
        yield f"model {spec.model!r} is a relative path: write it in full"
    elif allow.model_roots:
        plain = Path(os.path.normpath(folder))
        if not any(plain.is_relative_to(root) for root in allow.model_roots):
            yield f"model {spec.model!r} is not in allow.model_roots"


def _environment(spec: LaunchSpec, allow: AllowConfig) -> Iterator[str]:
    for name in spec.env:
        if matches(name, OWNED):
            yield f"{name} is set by the agent alone"
        elif name in allow.env or (spec.engine is EngineKind.FAKE and name.startswith("FAKE_VLLM")):
            continue
        elif matches(name, BY_NAME_ONLY):
            yield f"{name} is not named in allow.env (patterns do not cover it)"
        elif not matches(name, allow.env):
            yield f"{name} is not in allow.env"
