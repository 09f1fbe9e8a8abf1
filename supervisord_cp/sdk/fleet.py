"""From registered instances, and what probes say of them, to the snapshot that the router's core serves."""

from collections.abc import Collection, Iterable, Mapping
from ipaddress import ip_address
from itertools import count
from typing import Final

from msgspec.structs import replace

from supervisord_cp.config.schema import StaticInstanceConfig
from supervisord_cp.model.base import DeploymentName, Incarnation, NodeName
from supervisord_cp.model.fleet import (
    FleetPart,
    FleetSnapshot,
    RoutedDeployment,
    RoutedInstance,
)
from supervisord_cp.sdk.policies import Policies
from supervisord_cp.sdk.types import ExecutionInstance

HERE: Final = NodeName("localhost")
_UNKNOWN: Final = "static"
"""What the prober has in place of a start time that it does not know."""


class Incarnations:
    """Which process is behind each instance, as far as can be told from its address and its start time.

    Learning the start time of a process that was there before does not make it another one.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, str, Incarnation]] = {}
        self._numbers = count(1)

    def of(self, instance: RoutedInstance) -> Incarnation:
        """The incarnation of a probed instance; it changes with its address and with a restart."""
        started = instance.incarnation.removeprefix(f"{instance.id}.")
        url, before, incarnation = self._known.get(instance.id, ("", "", Incarnation("")))
        if url != instance.url or (before != _UNKNOWN and started != before):
            incarnation = Incarnation(f"{instance.id}.{next(self._numbers)}")
        self._known[instance.id] = (instance.url, started, incarnation)
        return incarnation

    def keep(self, present: Collection[str]) -> None:
        """Forget the others; one that comes back later is another incarnation."""
        for name in self._known.keys() - set(present):
            del self._known[name]


def static_config(instance: ExecutionInstance) -> StaticInstanceConfig:
    """What the prober needs to know."""
    return StaticInstanceConfig(
        id=instance.instance_id,
        deployment=instance.model_name,
        url=instance.url,
        zone=instance.zone,
        gpus=instance.gpus,
        weight=instance.weight,
        max_concurrency=instance.max_concurrent_requests,
        cost_per_gpu_hour=instance.cost_per_gpu_hour,
    )


def node_of(host: str) -> NodeName:
    """The node that a host name or address stands for: `HERE` for addresses of this machine alone."""
    try:
        local = ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    return HERE if local else NodeName(host)


def snapshot(
    version: int,
    instances: Mapping[str, ExecutionInstance],
    probed: Iterable[RoutedInstance],
    incarnations: Incarnations,
    policies: Policies,
) -> FleetSnapshot:
    """One deployment per model. `probed` are the instances as the prober has them."""
    models = dict.fromkeys(instance.model_name for instance in instances.values())
    routed = tuple(
        replace(one, incarnation=incarnations.of(one), node=node_of(instances[one.id].host))
        for one in probed
        if one.id in instances
    )
    return FleetSnapshot(
        epoch="sdk",
        version=version,
        deployments=tuple(
            RoutedDeployment(
                name=DeploymentName(model),
                names=(model,),
                router=policies.router,
                scheduler=policies.scheduler,
                wakes=False,
            )
            for model in models
        ),
        parts=(FleetPart(node=NodeName(""), instances=routed),),
    )
