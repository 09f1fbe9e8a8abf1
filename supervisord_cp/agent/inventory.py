"""What an agent says of its node when it connects."""

import ipaddress
from collections.abc import Iterable

from supervisord_cp.agent.roster import Identity
from supervisord_cp.config.schema import AgentConfig, Listen
from supervisord_cp.errors import UsageError
from supervisord_cp.model.base import NodeName
from supervisord_cp.model.gpu import Gpu
from supervisord_cp.model.node import NodeInventory
from supervisord_cp.version import __version__


def inventory_of(
    config: AgentConfig,
    identity: Identity,
    *,
    boot_id: str,
    session: str,
    executables: tuple[str, ...],
    gpus: Iterable[Gpu],
) -> NodeInventory:
    """The inventory of a node. `session` is random for each life of the agent."""
    return NodeInventory(
        node=NodeName(identity.name),
        zone=config.zone,
        boot_id=boot_id,
        session=session,
        advertise=config.advertise,
        metrics_url=metrics_url(config),
        device=identity.device_kind,
        slots=identity.slots,
        executables=executables,
        gpu_cost_per_hour=_cost_per_hour(config, gpus),
        version=__version__,
    )


def on_loopback(agent: AgentConfig) -> bool:
    """Whether engines can be reached from this machine only.

    Raises:
        UsageError: `advertise` is every address.
    """
    if agent.advertise == "localhost":
        return True
    try:
        address = ipaddress.ip_address(agent.advertise)
    except ValueError:
        return False  # a host name
    if address.is_unspecified:
        raise UsageError(
            f"[agent] advertise = {agent.advertise} is every address: name the one that routers use"
        )
    return address.is_loopback


def metrics_url(agent: AgentConfig) -> str:
    """Where others find our metrics: nowhere when only this machine can reach them and it is not alone."""
    listen = agent.listen
    if listen is None or (listen.loopback and not on_loopback(agent)):
        return ""
    host = agent.advertise if listen.host in ("0.0.0.0", "::", "") else listen.host
    return f"{Listen(host=host, port=listen.port).url}/metrics"


def _cost_per_hour(config: AgentConfig, gpus: Iterable[Gpu]) -> float | None:
    """What an hour of one device costs; with a table, by the name of the first GPU that is in it."""
    cost = config.gpu_cost_per_hour
    if not isinstance(cost, dict):
        return cost
    return next((cost[gpu.name] for gpu in gpus if gpu.name in cost), None)
