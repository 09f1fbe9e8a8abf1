"""Learning what runs where nothing is remembered: the memory was lost, or the node was forgotten."""

from collections.abc import Callable, Mapping
from typing import Final

from supervisord_cp.central.fleet import NodeView
from supervisord_cp.central.memory import Memory
from supervisord_cp.central.scale_view import configured
from supervisord_cp.config.schema import Config
from supervisord_cp.model.assignment import Assignment, Override
from supervisord_cp.model.base import DeploymentName
from supervisord_cp.model.instance import InstanceState, InstanceStatus
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
    `scale NAME auto`; an automatic one has its own rules for shrinking. Of a node that was forgotten
    and is back all that was ours is taken over, and no number changes: what has been replaced elsewhere
    is too many now, and drains.
    """
    ours = memory.returned(view.name)
    if not (memory.fresh or ours):
        return
    for status in view.instances.values():
        if status.id not in memory.assignments and (status.deployment in specs or status.id in ours):
            memory.assign(place_of(status, view, specs.get(status.deployment)))
            note("instance.learned", status.id, node=view.name)
    if not ours:
        _keep_numbers(memory, config)


def place_of(status: InstanceStatus, view: NodeView, spec: LaunchSpec | None) -> Assignment:
    """The place of an instance as it was found; without a spec it is kept as it is."""
    return Assignment(
        id=status.id,
        deployment=status.deployment,
        node=view.name,
        devices=status.devices,
        revision=status.revision,
        spec=spec if spec is not None and revision_of(spec) == status.revision else None,
        run=_RUNS.get(status.state, RunState.RUNNING),
        restart=status.restart,
        max_concurrency=status.max_concurrency,
    )


def _keep_numbers(memory: Memory, config: Config) -> None:
    for deployment in config.deployments:
        name = DeploymentName(deployment.name)
        if deployment.autoscale is not None:
            continue
        count = sum(a.deployment == name and a.counts for a in memory.assignments.values())
        override = memory.overrides.get(name)
        if count > configured(deployment) and (override is None or override.learned):
            memory.override(Override(deployment=name, replicas=count, learned=True))
