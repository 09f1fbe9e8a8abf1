"""The node's own policy: what may be launched here, whatever central asks for."""

import contextlib
import os.path
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Final

import msgspec

from supervisord_cp.config.schema import AllowConfig
from supervisord_cp.engines.base import local_model
from supervisord_cp.engines.environment import OWNED, matches
from supervisord_cp.model.launch import EngineKind, LaunchSpec, allows, program_of

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


FLAGS_BY_NAME_ONLY: Final = (
    # They run code that is not the engine's own.
    "trust-remote-code",
    "middleware",
    "worker-cls",
    "worker-extension-cls",
    "scheduler-cls",
    "logits-processors",
    "tool-parser-plugin",
    "reasoning-parser-plugin",
    "io-processor-plugin",
    "hf-overrides",
    "log-config-file",
    # They let clients read files, or fetch from hosts that are named here.
    "allowed-local-media-path",
    "allowed-media-domains",
    # They talk to other hosts.
    "kv-transfer-config",
    "ec-transfer-config",
    "otlp-traces-endpoint",
    "master-addr",
    "data-parallel-address",
    # A secret, which every process of the host could read in the command line.
    "hf-token",
)
"""Flags that a pattern such as `*` does not allow: `allow.flags` must name them."""


def refusals(spec: LaunchSpec, allow: AllowConfig) -> tuple[str, ...]:
    """What of a specification the node does not allow; empty: it may be launched.

    Paths are compared as written, after `..` and `.`: symbolic links in a model root are the node's own.
    """
    return (
        *_program(spec, allow),
        *_model(spec, allow),
        *_flags(spec, allow),
        *_paths(spec, allow),
        *_environment(spec, allow),
    )


def _program(spec: LaunchSpec, allow: AllowConfig) -> Iterator[str]:
    if not allows(allow.executables, spec):
        yield f"{program_of(spec) or 'no program'} is not in allow.executables"


def _model(spec: LaunchSpec, allow: AllowConfig) -> Iterator[str]:
    folder = local_model(spec.model)
    if folder is None:
        if ".." in PurePath(spec.model).parts:
            yield f"model {spec.model!r} is neither an absolute path nor a name"
    elif not folder.is_absolute():
        yield f"model {spec.model!r} is a relative path: write it in full"
    elif allow.model_roots and not _in_roots(spec.model, allow):
        yield f"model {spec.model!r} is not in allow.model_roots"


def _in_roots(path: str, allow: AllowConfig) -> bool:
    plain = Path(os.path.normpath(path))
    return any(plain.is_relative_to(root) for root in allow.model_roots)


def _flags(spec: LaunchSpec, allow: AllowConfig) -> Iterator[str]:
    for name, value in spec.args.items():
        flag = name.partition(".")[0].rstrip("+").replace("_", "-")  # --flag.key makes vLLM set --flag
        # argparse takes any unambiguous beginning of a flag for the flag.
        meant = [named for named in FLAGS_BY_NAME_ONLY if named.startswith(flag)]
        if flag in allow.flags or value is False:
            continue
        if meant:
            yield f"--{meant[0]} is not named in allow.flags (patterns do not cover it)"
        elif not matches(flag, allow.flags):
            yield f"--{flag} is not in allow.flags"


def _paths(spec: LaunchSpec, allow: AllowConfig) -> Iterator[str]:
    """Adapters, tokenizers and drafts are models, too: what `args` name by path lies in a model root."""
    if not allow.model_roots:
        return
    for name, value in spec.args.items():
        for path in _absolute_paths(value):
            if not _in_roots(path, allow):
                yield f"--{name} {path!r} is not in allow.model_roots"


def _absolute_paths(value: object) -> Iterator[str]:
    """Paths in the value of a flag: itself, `name=path`, and what JSON holds."""
    if isinstance(value, list):
        for one in value:
            yield from _absolute_paths(one)
    elif isinstance(value, dict):
        for one in value.values():
            yield from _absolute_paths(one)
    elif isinstance(value, str):
        text = value.strip()
        if text.startswith(("{", "[")):
            with contextlib.suppress(msgspec.DecodeError):
                yield from _absolute_paths(msgspec.json.decode(text))
                return
        yield from (part for part in (text, text.partition("=")[2]) if part.startswith("/"))


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
