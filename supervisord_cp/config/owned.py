"""Flags and variables of an engine that a deployment cannot set, and why."""

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Final

OWNED_FLAGS: Final[Mapping[str, str]] = {
    "host": "engines bind the node's `advertise` address",
    "port": "the agent chooses one of the node's `ports`",
    "uds": "routers reach engines over TCP",
    "api-key": "the agent makes one for each start",
    "model": "write `model` beside `args`",
    "model-tag": "write `model` beside `args`",
    "served-model-name": "write `served_name` and `aliases` beside `args`",
    "device-ids": "placement decides; write `gpus` for how many",
    "config": "a change of that file would go unnoticed; write its keys into `args`",
    "headless": "routers reach engines over HTTP",
    "grpc": "routers reach engines over HTTP",
    "data-parallel-multi-port-external-lb": "the agent gives an engine one port",
    "ssl-keyfile": "routers speak plain HTTP with engines",
    "ssl-certfile": "routers speak plain HTTP with engines",
    "ssl-ca-certs": "routers speak plain HTTP with engines",
}
OWNED_VARIABLES: Final[Mapping[str, str]] = {
    "CUDA_DEVICE_ORDER": "the agent counts GPUs as NVML does",
    "CUDA_VISIBLE_DEVICES": "the agent gives each replica its GPUs; write `gpus` for how many",
    "SPT_NOENV": "the agent sets it, to find an engine's processes",
    "SUPERVISORD_CP_*": "these are ours",
    "VLLM_API_KEY": "the agent makes one for each start",
    "VLLM_PORT": "the agent chooses the engine's ports",
    "VLLM_SERVER_DEV_MODE": "the node decides it: `agent.allow.dev_mode`",
}
"""By patterns of names."""

_FLAG: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*\+?")
_COMPLETE: Final = frozenset({"device"})
"""Flags in their own right that another flag's name begins with."""


def is_flag(name: str) -> bool:
    """Whether this can be a flag's name: no dashes before it, perhaps a dotted path into its value."""
    return _FLAG.fullmatch(name) is not None


def plain_flag(name: str) -> str:
    """The flag's own spelling: dashes up to the first dot."""
    head, dot, rest = name.partition(".")
    return head.replace("_", "-") + dot + rest


def why_owned_flag(name: str) -> str:
    """Why a flag cannot be set; "" when it can. The beginning of a flag's name is taken for the flag, as
    engines take it."""
    head = plain_flag(name).partition(".")[0].rstrip("+")
    if why := OWNED_FLAGS.get(head):
        return why
    longer = next((flag for flag in OWNED_FLAGS if flag.startswith(head)), "")
    return (
        f"engines take it for `{longer}`: {OWNED_FLAGS[longer]}" if longer and head not in _COMPLETE else ""
    )


def why_owned_variable(name: str) -> str:
    """Why a variable cannot be set; "" when it can."""
    return next((why for pattern, why in OWNED_VARIABLES.items() if fnmatchcase(name, pattern)), "")
