"""The environment of an engine: what it inherits from the agent, and what the agent decides."""

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Final

from supervisord_cp.engines.arguments import plain
from supervisord_cp.engines.base import LaunchContext, LaunchRefused

OWNED: Final = (
    "CUDA_DEVICE_ORDER",
    "CUDA_VISIBLE_DEVICES",
    "SPT_NOENV",
    "SUPERVISORD_CP_*",
    "VLLM_API_KEY",
    "VLLM_PORT",  # a base for internal ports; a Kubernetes service named `vllm` sets it to a URL
    "VLLM_SERVER_DEV_MODE",
)
"""What the agent alone decides: neither inherited nor set by a deployment. Patterns of names."""

NOT_INHERITED: Final = (
    *OWNED,
    # The agent's own interpreter; an engine has another one.
    "PYTHON*",
    "VIRTUAL_ENV",
    "VIRTUAL_ENV_PROMPT",
    "__PYVENV_LAUNCHER__",
    # What systemd tells one service and no other.
    "NOTIFY_SOCKET",
    "WATCHDOG_*",
    "LISTEN_*",
    "FDSTORE",
    "CREDENTIALS_DIRECTORY",
    "STATE_DIRECTORY",
    "RUNTIME_DIRECTORY",
    "CACHE_DIRECTORY",
    "LOGS_DIRECTORY",
    "CONFIGURATION_DIRECTORY",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "MAINPID",
    "MANAGERPID",
    "SYSTEMD_*",
    "MEMORY_PRESSURE_*",
)
"""Variables of the agent that its engines do not get. Patterns of names."""


SECRET_NAMES: Final = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|(?:^|_)(?:API_?)?KEY(?:$|_)", re.IGNORECASE)
SHORTEST_SECRET: Final = 6
"""What is shorter would be found everywhere in a text."""

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether a variable's name matches one of the patterns (`*` and `?`, case counts)."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def base_environment(own: Mapping[str, str]) -> dict[str, str]:
    """What an engine inherits of its agent's environment (`own`): PATH, HOME, caches, the node's tokens."""
    return {name: value for name, value in own.items() if not matches(name, NOT_INHERITED)}


def secrets_in(env: Mapping[str, str]) -> tuple[str, ...]:
    """The values of variables whose names say that they are secret."""
    return tuple(
        value for name, value in env.items() if SECRET_NAMES.search(name) and len(value) >= SHORTEST_SECRET
    )


def check_variables(env: Mapping[str, str]) -> None:
    """See that a deployment's variables can be set, and are not ours.

    Raises:
        LaunchRefused: they cannot.
    """
    for name, value in env.items():
        if not _NAME.fullmatch(name):
            raise LaunchRefused(f"env: {name!r} is no name of a variable")
        if matches(name, OWNED):
            raise LaunchRefused(f"env: {name} cannot be set: the agent decides it")
        plain(f"env: {name}", value)


def visible_devices(context: LaunchContext) -> str:
    """The devices of an incarnation as CUDA understands them, comma-separated; slots by name on cpu.

    By index as NVML counts, since UUIDs in CUDA_VISIBLE_DEVICES crash vLLM up to 0.20. MIG devices have
    no index of their own: they go by UUID, which needs a newer vLLM.
    """
    by_index = (
        context.device_kind == "cuda"
        and len(context.device_indexes) == len(context.devices)
        and not any(device.startswith("MIG-") for device in context.devices)
    )
    return ",".join(map(str, context.device_indexes) if by_index else context.devices)


def decided_environment(context: LaunchContext) -> dict[str, str]:
    """What every engine gets, whatever its kind: its devices and its mark."""
    env = {
        # All descendants inherit the mark, by which a tree is known; setproctitle would wipe it.
        "SUPERVISORD_CP_NONCE": context.nonce,
        "SPT_NOENV": "1",
    }
    if context.device_kind == "cuda":
        # NVML counts GPUs by their place on the bus; CUDA counts by speed unless told otherwise.
        return {**env, "CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": visible_devices(context)}
    return {**env, "CUDA_VISIBLE_DEVICES": ""}
