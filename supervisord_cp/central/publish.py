"""What central tells the others, computed from what it knows: desired nodes and fleet snapshots. Pure."""

from collections.abc import Iterable, Mapping

from supervisord_cp.central.fleet import NodeView
from supervisord_cp.config.schema import DeploymentConfig
from supervisord_cp.model.assignment import Assignment, Leave
from supervisord_cp.model.base import DeploymentName, InstanceId, NodeName
from supervisord_cp.model.fleet import FleetPart, RoutedDeployment, RoutedInstance
from supervisord_cp.model.instance import InstanceState, InstanceStatus
from supervisord_cp.model.launch import DesiredInstance, DesiredNode, Generation, RunState


def desired_node(
    node: NodeName, assignments: Iterable[Assignment], generation: Generation, acknowledged: int
) -> DesiredNode:
    """The desired state of a node with these assignments. Removals are named; an assignment without a
    spec is not mentioned."""
    instances: list[DesiredInstance] = []
    removals: list[InstanceId] = []
    for assignment in assignments:
        leaving = assignment.leaving
        if leaving is not None and leaving.to is Leave.REMOVE and assignment.released:
            removals.append(assignment.id)
        elif assignment.spec is not None:
            instances.append(
                DesiredInstance(
                    id=assignment.id,
                    deployment=assignment.deployment,
                    revision=assignment.revision,
                    spec=assignment.spec,
                    devices=assignment.devices,
                    run=assignment.run,
                    draining=assignment.draining,
                    restart=assignment.restart,
                    max_concurrency=assignment.max_concurrency,
                )
            )
    return DesiredNode(
        node=node,
        generation=generation,
        acknowledged=acknowledged,
        instances=tuple(instances),
        removals=tuple(removals),
    )


def routed_state(state: InstanceState, silent: bool, listed: bool) -> InstanceState:
    """The state that routers act on. A silent agent does not make its engines dead: what was ready
    becomes unknown, which is still routed to; what was not ready stays as it was."""
    if state is not InstanceState.READY:
        return state
    if silent:
        return InstanceState.UNKNOWN
    return state if listed else InstanceState.UNLISTED


def node_part(view: NodeView, assignments: Mapping[InstanceId, Assignment], now: float) -> FleetPart:
    """A node's engines for routers: those that have an address."""
    silent = view.silent(now)
    instances = []
    for status in view.instances.values():
        if not status.url or not status.incarnation:
            continue
        assignment = assignments.get(status.id)
        here = assignment is not None and assignment.node == view.name
        instances.append(_routed(status, view, silent, assignment if here else None))
    return FleetPart(node=view.name, instances=tuple(instances))


def _routed(
    status: InstanceStatus, view: NodeView, silent: bool, assignment: Assignment | None
) -> RoutedInstance:
    leaving = assignment is not None and (
        assignment.draining or assignment.run is not RunState.RUNNING or assignment.restart > status.restart
    )
    return RoutedInstance(
        id=status.id,
        deployment=status.deployment,
        incarnation=status.incarnation,
        url=status.url,
        node=view.name,
        zone=view.inventory.zone,
        engine=status.engine,
        state=routed_state(status.state, silent, status.listed),
        draining=leaving or status.state is InstanceState.DRAINING,
        max_concurrency=status.max_concurrency,
        gpus=max(1, len(status.devices)),
        cost_per_gpu_hour=view.inventory.gpu_cost_per_hour,
        load=status.load,
    )


def routed_deployment(
    config: DeploymentConfig,
    wanted: int,
    start_estimate_s: float | None,
    *,
    held: bool = False,
    compared: bool = False,
) -> RoutedDeployment:
    """A deployment for routers. One that an operator holds stopped, or that is fixed at nothing, does not
    wake: requests for it need not wait."""
    scale = config.autoscale
    served = config.served_name or config.model or config.name
    return RoutedDeployment(
        name=DeploymentName(config.name),
        names=(served, *config.aliases),
        router=config.router,
        scheduler=config.scheduler,
        allow_paths=config.allow_paths,
        max_concurrency=config.max_concurrency,
        wanted=wanted,
        start_estimate_s=start_estimate_s,
        wakes=not held and (wanted > 0 or (scale is not None and scale.max > 0)),
        shadow=config.shadow,
        slo_ttft_ms=config.slo.ttft_ms,
        compared=compared,
    )
