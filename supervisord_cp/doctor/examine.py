"""All looks, for what a configuration says that this host is."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from supervisord_cp.adapters.nvml import sweep_once
from supervisord_cp.adapters.proctree import NONCE_VARIABLE
from supervisord_cp.adapters.tokens import read_token
from supervisord_cp.config.launch import launch_spec
from supervisord_cp.config.schema import Config, Listen
from supervisord_cp.doctor.engines import engine_findings
from supervisord_cp.doctor.finding import Finding, error
from supervisord_cp.doctor.gpus import gpu_findings
from supervisord_cp.doctor.host import build_finding, folder_findings, limit_finding, secret_findings
from supervisord_cp.doctor.instances import instance_findings
from supervisord_cp.doctor.network import (
    central_findings,
    listener_findings,
    port_range_finding,
    prometheus_findings,
    wall,
)
from supervisord_cp.doctor.units import unit_findings
from supervisord_cp.errors import UsageError
from supervisord_cp.model.launch import program_of
from supervisord_cp.router.build import compiled

DRIVER_S: Final = 30.0
"""A driver without persistence mode takes seconds per GPU to come up."""


def examine(config: Config) -> Iterator[Finding]:
    """Findings as they are made, quick looks first. Only tables that the file has are looked after; a file
    with none is taken for a host with everything."""
    roles = tuple(role for role in ("central", "router", "agent") if role in config.tables)
    roles = roles or ("central", "router", "agent")
    yield from _files(config, roles)
    yield from listener_findings(_listeners(config, roles))
    if "agent" in roles:
        yield port_range_finding(config.agent.ports, config.agent.advertise)
        yield from engine_findings(config.agent.allow.executables, _programs(config))
        line = sweep_once(DRIVER_S) if config.agent.device != "cpu" else None
        if line is not None:
            holders = {holder.pid for gpu in line.gpus for holder in gpu.holders}
            yield from gpu_findings(line, config.agent.device, {pid for pid in holders if _ours(pid)})
    if "router" in roles:
        yield limit_finding()
        yield build_finding(compiled())
    yield from unit_findings(roles)
    yield from _central(config, roles)
    if config.prometheus.url:
        yield from prometheus_findings(config.prometheus.url)


def _files(config: Config, roles: tuple[str, ...]) -> Iterator[Finding]:
    folders: list[tuple[str, Path]] = []
    secrets: list[tuple[str, Path | None]] = []
    if "central" in roles:
        folders.append(("[central] state_dir", config.central.state_dir))
        secrets.append(("[central] tokens_file", config.central.tokens_file))
    if "router" in roles:
        secrets.append(("[router] token_file", config.router.token_file))
        secrets.append(("[router] api_keys_file", config.router.api_keys_file))
    if "agent" in roles:
        folders += [
            ("[agent] state_dir", config.agent.state_dir),
            ("[agent] log_dir", config.agent.log_dir),
        ]
        secrets.append(("[agent] token_file", config.agent.token_file))
    yield from folder_findings(folders)
    yield from secret_findings(secrets)


def _programs(config: Config) -> set[str] | None:
    """What the deployments start; None for a file without any, which knows of none."""
    if not config.deployments:
        return None
    return {program_of(launch_spec(deployment)) for deployment in config.deployments}


def _listeners(config: Config, roles: tuple[str, ...]) -> Iterator[tuple[str, Listen | None]]:
    if "central" in roles:
        yield "[central] control_listen", config.central.control_listen
    if "router" in roles:
        yield "[router] api_listen", config.router.api_listen
    if "agent" in roles:
        yield "[agent] listen", config.agent.listen


def _central(config: Config, roles: tuple[str, ...]) -> Iterator[Finding]:
    tokens: list[tuple[str, str]] = []
    url = config.agent.central if "agent" in roles else config.router.central
    for whose, path in (
        ("[agent] token_file", config.agent.token_file if "agent" in roles else None),
        ("[router] token_file", config.router.token_file if "router" in roles else None),
    ):
        if path is not None and path.exists():
            try:
                tokens.append((whose, read_token(path, "agent")))
            except UsageError as problem:
                yield error(whose, str(problem), "one line with the token alone")
    yield from central_findings(url, tokens, wall())
    node = "" if "central" in roles else config.agent.name or socket.gethostname()
    yield from instance_findings(url, tokens[0][1] if tokens else _own_token(config), node)


def _own_token(config: Config) -> str:
    """One of central's own, where it is on this host; "" where there is none to be read."""
    try:
        return read_token(config.central.tokens_file, "viewer", "operator", "agent")
    except UsageError:
        return ""  # told as a finding of its own


def _ours(pid: int) -> bool:
    """Whether an agent started it: its environment says so, where this user may look."""
    try:
        return f"{NONCE_VARIABLE}=".encode() in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
