"""What is to be done next: reconciliation, and who yields to whom."""

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from supervisord_cp.central.memory import Memory
from supervisord_cp.central.scale_view import Known, configured
from supervisord_cp.config.schema import Config, DeploymentConfig
from supervisord_cp.core.scaling.arbitrate import Claim, Tenant, preempt
from supervisord_cp.core.scaling.placement import NodeCapacity, Place, place
from supervisord_cp.core.scaling.reconcile import plan
from supervisord_cp.core.scaling.reserve import Reserve
from supervisord_cp.core.scaling.room import Wanted
from supervisord_cp.model.assignment import Assignment
from supervisord_cp.model.base import DeploymentName, InstanceId, NodeName
from supervisord_cp.model.instance import InstanceState, InstanceStatus
from supervisord_cp.model.reason import Reason, ReasonCode
from supervisord_cp.model.scaling import Retire, ScalePlan
from supervisord_cp.policy.placing import Placer


def make_plan(
    config: Config,
    memory: Memory,
    wanted: list[Wanted],
    nodes: Sequence[NodeCapacity],
    known: Known,
    placer: Placer,
    slept_s: Mapping[InstanceId, float],
) -> ScalePlan:
    """The next actions for the whole fleet."""
    assignments = tuple(memory.assignments.values())
    able = frozenset(name for name, (_, status) in known.statuses.items() if _could_sleep(status))
    reserve = Reserve(able=able, slept_s=slept_s)
    reserved = {name for node in memory.forgotten.values() for name in node.instances}
    made = plan(wanted, assignments, known.states, nodes, placer, reserve=reserve, reserved=reserved)
    actions = list(made.actions)
    configured_names = {DeploymentName(d.name) for d in config.deployments}
    for assignment in assignments:
        if assignment.deployment not in configured_names and (assignment.counts or assignment.reserve):
            reason = Reason(code=ReasonCode.REMOVED)
            actions.append(Retire(instance=assignment.id, deployment=assignment.deployment, reason=reason))
    if made.unplaced:
        actions += _make_room(config, made, wanted, assignments, nodes, known, placer)
    return replace(made, actions=tuple(actions))


def _could_sleep(status: InstanceStatus) -> bool:
    """Of those that run and are not ready only the ones that slept before are gated or wake."""
    if not status.can_sleep:
        return False
    waking = status.state is InstanceState.GATED or status.reason.code is ReasonCode.WAKING
    return waking or status.state is InstanceState.READY


def _make_room(
    config: Config,
    made: ScalePlan,
    wanted: list[Wanted],
    assignments: tuple[Assignment, ...],
    nodes: Sequence[NodeCapacity],
    known: Known,
    placer: Placer,
) -> tuple[Retire, ...]:
    unplaced = {item.deployment for item in made.unplaced}
    retiring = {a.instance for a in made.actions if isinstance(a, Retire)}
    by_name = {item.deployment: item for item in wanted}

    def elsewhere(deployment: DeploymentName, node: NodeName) -> bool:
        item, others = by_name.get(deployment), [n for n in nodes if n.node != node]
        found = None if item is None else place(deployment, item.spec, item.nodes, others, placer)
        return isinstance(found, Place)

    return preempt(
        [item for item in wanted if item.deployment in unplaced],
        [_tenant(a, known) for a in assignments if a.id not in retiring],
        nodes,
        {DeploymentName(d.name): _claim(d) for d in config.deployments},
        elsewhere,
    )


def _claim(deployment: DeploymentConfig) -> Claim:
    return Claim(
        priority=deployment.priority,
        floor=0 if deployment.autoscale is None else configured(deployment),
        min_residency_s=deployment.min_residency_s,
    )


def _tenant(assignment: Assignment, known: Known) -> Tenant:
    found = known.statuses.get(assignment.id)
    if found is None:
        return Tenant(assignment=assignment, serving=False)
    load = found[1].load
    return Tenant(
        assignment=assignment,
        serving=known.states.get(assignment.id) in (InstanceState.READY, InstanceState.UNKNOWN),
        ready_s=found[1].uptime_s,
        requests=0 if load is None else (load.running or 0) + (load.waiting or 0),
    )
