"""A snapshot, indexed for the questions that a request asks."""

from collections.abc import Iterator, Mapping

from supervisord_cp.model.base import DeploymentName, Incarnation, InstanceId, Value
from supervisord_cp.model.fleet import FleetSnapshot, RoutedDeployment, RoutedInstance


class RoutingTable(Value, frozen=True, kw_only=True):
    """Deployments by name and by what clients call them, instances by deployment."""

    epoch: str = ""
    version: int = 0
    deployments: Mapping[DeploymentName, RoutedDeployment] = {}
    names: Mapping[str, DeploymentName] = {}
    """Served names and aliases. The deployments' own names too, where no other means them."""
    instances: Mapping[DeploymentName, tuple[RoutedInstance, ...]] = {}
    """Each deployment is there, without instances too."""

    def limits(self) -> Iterator[tuple[RoutedInstance, int]]:
        """Every instance that has an incarnation, with the requests that it may have at once."""
        for name, instances in self.instances.items():
            common = self.deployments[name].max_concurrency
            for instance in instances:
                if instance.incarnation:
                    yield instance, instance.max_concurrency or common

    def incarnations(self) -> frozenset[Incarnation]:
        """All incarnations in it."""
        return frozenset(instance.incarnation for instance, _ in self.limits())

    def current(self, instance: InstanceId, deployment: DeploymentName) -> RoutedInstance | None:
        """What runs now in the place of an instance."""
        return next((i for i in self.instances.get(deployment, ()) if i.id == instance), None)


def index(snapshot: FleetSnapshot) -> RoutingTable:
    """The table of a snapshot. Of two deployments that claim a name, the first has it."""
    deployments = {deployment.name: deployment for deployment in snapshot.deployments}
    names: dict[str, DeploymentName] = {}
    for deployment in snapshot.deployments:
        for name in deployment.names:
            names.setdefault(name, deployment.name)
    for deployment in snapshot.deployments:
        names.setdefault(deployment.name, deployment.name)
    instances: dict[DeploymentName, list[RoutedInstance]] = {name: [] for name in deployments}
    for part in snapshot.parts:
        for instance in part.instances:
            if instance.deployment in instances:
                instances[instance.deployment].append(instance)
    return RoutingTable(
        epoch=snapshot.epoch,
        version=snapshot.version,
        deployments=deployments,
        names=names,
        instances={name: tuple(found) for name, found in instances.items()},
    )
