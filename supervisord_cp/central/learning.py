"""Learning the fleet after the memory was lost: nothing that runs is removed for that."""

from collections.abc import Callable, Mapping
from typing import Final

from supervisord_cp.central.fleet import NodeView
from supervisord_cp.central.memory import Memory
from supervisord_cp.central.scale_view import configured
from supervisord_cp.config.schema import Config
from supervisord_cp.model.assignment import Assignment, Override
from supervisord_cp.model.base import DeploymentName
from supervisord_cp.model.instance import InstanceState
from supervisord_cp.model.launch import LaunchSpec, RunState, revision_of

_RUNS: Final[Mapping[InstanceState, RunState]] = {
    InstanceState.STOPPED: RunState.STOPPED,
    InstanceState.SLEEPING: RunState.SLEEPING,
}


def learn(
    view: NodeView,
    memory: Memory,
    config: Config,
    specs: Mapping[DeploymentName, LaunchSpec],
    note: Callable[..., None],
) -> None:
    """Take over what a node says it runs for deployments that are configured, when the memory is empty.

    A fixed deployment of which more runs than is configured keeps that many until somebody says
    `scale NAME auto`; an automatic one has its own rules for shrinking.
    """
    if not memory.fresh:
        return
    for status in view.instances.values():
        if status.id in memory.assignments or status.deployment not in specs:
            continue
        spec = specs[status.deployment]
        memory.assign(
            Assignment(
                id=status.id,
                deployment=status.deployment,
                node=view.name,
                devices=status.devices,
                revision=status.revision,
                spec=spec if revision_of(spec) == status.revision else None,
                run=_RUNS.get(status.state, RunState.RUNNING),
                restart=status.restart,
                max_concurrency=status.max_concurrency,
            )
        )
        note("instance.learned", status.id, node=view.name)
    for deployment in config.deployments:
        name = DeploymentName(deployment.name)
        if deployment.autoscale is not None:
            continue
        count = sum(a.deployment == name and a.counts for a in memory.assignments.values())
        override = memory.overrides.get(name)
        if count > configured(deployment) and (override is None or override.learned):
            memory.override(Override(deployment=name, replicas=count, learned=True))
