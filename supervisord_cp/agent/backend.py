"""How engines are started, and what they inherit: by the agent itself, or as units of another user."""

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from pwd import struct_passwd

from supervisord_cp.adapters.direct import DirectBackend
from supervisord_cp.adapters.systemd import SystemdBackend
from supervisord_cp.adapters.systemd_template import engine_account
from supervisord_cp.agent.unit import check_unit
from supervisord_cp.config.schema import AgentConfig
from supervisord_cp.ports.process import ProcessBackend


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSide:
    """Where engines come to life."""

    make_backend: Callable[[], ProcessBackend]
    """Called on the running loop."""
    environ: Mapping[str, str]
    """What engines inherit."""
    cwd: Path
    """The folder that they run in."""


def engine_side(
    agent: AgentConfig,
    environ: Mapping[str, str],
    *,
    stop_engines: bool,
    account: Callable[[str], struct_passwd] = engine_account,
) -> EngineSide:
    """What `[agent] backend` asks for. `stop_engines`: they end with the agent.

    Raises:
        UsageError: that is not possible here.
    """
    if agent.backend == "systemd":
        user = account(agent.engine_user)
        return EngineSide(
            make_backend=SystemdBackend, environ=environment_of(user, environ), cwd=Path(user.pw_dir)
        )
    if not stop_engines:
        check_unit(environ)
    folder = agent.state_dir.absolute()
    # two containers may have the same folder, not the same name
    owner = f"{agent.name or socket.gethostname()}:{folder}"
    return EngineSide(make_backend=lambda: DirectBackend(folder, owner=owner), environ=environ, cwd=folder)


def environment_of(user: struct_passwd, environ: Mapping[str, str]) -> dict[str, str]:
    """The agent's environment as another user would have it."""
    own = {"HOME": user.pw_dir, "USER": user.pw_name, "LOGNAME": user.pw_name, "SHELL": user.pw_shell}
    return {name: value for name, value in environ.items() if not name.startswith("XDG_")} | own
