"""When GPUs are short: which replica of a less important deployment makes room."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from supervisord_cp.core.scaling.placement import NodeCapacity, shared
from supervisord_cp.core.scaling.reconcile import ordinal_of
from supervisord_cp.core.scaling.room import Wanted
from supervisord_cp.model.assignment import Assignment
from supervisord_cp.model.base import DeploymentName, InstanceId, NodeName, Value
from supervisord_cp.model.launch import allows
from supervisord_cp.model.reason import Reason, ReasonCode
from supervisord_cp.model.scaling import Retire


class Claim(Value, frozen=True, kw_only=True):
    """What decides who yields to whom."""

    priority: int = 0
    floor: int = 0
    """Replicas that the deployment keeps in any case."""
    min_residency_s: float = 0.0
    """How long a serving replica stays at least."""


class Tenant(Value, frozen=True, kw_only=True):
    """A replica that holds devices."""

    assignment: Assignment
    serving: bool
    ready_s: float = 0.0
    """Since it became ready."""
    requests: int = 0
    """Open on it: what its end costs."""


Elsewhere: TypeAlias = Callable[[DeploymentName, NodeName], bool]
"""Whether a replica of a deployment would find a place on another node than this one."""


def _nowhere(deployment: DeploymentName, node: NodeName) -> bool:
    return False


def preempt(
    unplaced: Sequence[Wanted],
    tenants: Sequence[Tenant],
    nodes: Sequence[NodeCapacity],
    claims: Mapping[DeploymentName, Claim],
    elsewhere: Elsewhere = _nowhere,
) -> tuple[Retire, ...]:
    """The replicas that make room for the first of `unplaced` that can have some; () when none can.

    Victims belong to deployments of lower priority that stay at or above their floor, have served
    their minimum residency (or do not serve), and together with what is free are enough on one node.
    Nothing more is taken while room that was made before is still being emptied. One that has room on
    another node (`elsewhere`) serves on until its successor there is ready.
    """
    if any(
        t.assignment.leaving and t.assignment.leaving.reason.code is ReasonCode.PREEMPTED for t in tenants
    ):
        return ()
    counts: dict[DeploymentName, int] = {}
    for tenant in tenants:
        if tenant.assignment.counts:
            name = tenant.assignment.deployment
            counts[name] = counts.get(name, 0) + 1
    for claimant in unplaced:
        options = [
            (victims, node.node)
            for node in nodes
            if not node.cordoned and allows(node.executables, claimant.spec) and node.matches(claimant.nodes)
            if (victims := _victims(claimant, node, tenants, claims, dict(counts))) is not None
        ]
        if options:
            cheapest, where = min(options, key=lambda option: _cost(option[0]))
            reason = Reason(code=ReasonCode.PREEMPTED, params={"deployment": claimant.deployment})
            return tuple(
                Retire(
                    instance=t.assignment.id,
                    deployment=t.assignment.deployment,
                    reason=reason,
                    wait=t.serving and elsewhere(t.assignment.deployment, where),
                )
                for t in cheapest
            )
    return ()


def _victims(
    claimant: Wanted,
    node: NodeCapacity,
    tenants: Sequence[Tenant],
    claims: Mapping[DeploymentName, Claim],
    counts: dict[DeploymentName, int],
) -> list[Tenant] | None:
    """The cheapest replicas on this node that make enough room; None when there are not enough."""
    rank = claims.get(claimant.deployment, Claim()).priority
    missing = claimant.spec.gpus - len(shared(node).free_for(claimant.spec))
    chosen: list[Tenant] = []
    for tenant in sorted((t for t in tenants if t.assignment.node == node.node), key=_price):
        if missing <= 0:
            break
        claim = claims.get(tenant.assignment.deployment, Claim())
        name = tenant.assignment.deployment
        settled = not tenant.serving or tenant.ready_s >= claim.min_residency_s
        if not tenant.assignment.counts or claim.priority >= rank or not settled:
            continue
        if counts.get(name, 0) <= claim.floor:
            continue
        counts[name] -= 1
        missing -= len(set(tenant.assignment.devices) & set(node.devices))
        chosen.append(tenant)
    return chosen if missing <= 0 and chosen else None


def _price(tenant: Tenant) -> tuple[bool, int, float, int]:
    """Low prices go first: not serving, few requests, young, high ordinals."""
    return tenant.serving, tenant.requests, tenant.ready_s, -ordinal_of(tenant.assignment.id)


def _cost(victims: Sequence[Tenant]) -> tuple[int, int, list[InstanceId]]:
    return (
        sum(t.serving for t in victims),
        sum(t.requests for t in victims),
        [t.assignment.id for t in victims],
    )
