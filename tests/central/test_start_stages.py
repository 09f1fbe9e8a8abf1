"""The stages of a start, by what agents report."""

import pytest
from msgspec.structs import replace

from supervisord_cp.central.metrics import Metrics
from supervisord_cp.central.start_stages import StartStages
from supervisord_cp.model.base import DeploymentName, InstanceId
from supervisord_cp.model.instance import InstanceState, InstanceStatus, Phase
from supervisord_cp.model.reason import NO_REASON, Reason, ReasonCode
from tests.central.fleet import World, deployment

NOTHING = {"gated": 0.0, "spawned": 0.0, "loading weights": 0.0, "compiling": 0.0, "warming up": 0.0}


def seen(state: InstanceState, phase: Phase = Phase.NONE, reason: Reason = NO_REASON) -> InstanceStatus:
    return InstanceStatus(
        id=InstanceId("chat-0"),
        deployment=DeploymentName("chat"),
        engine="fake",
        revision="r",
        state=state,
        phase=phase,
        reason=reason,
    )


GATED = seen(InstanceState.GATED)
SPAWNED = seen(InstanceState.STARTING, Phase.SPAWNED)
LOADING = seen(InstanceState.STARTING, Phase.LOADING)
COMPILING = seen(InstanceState.STARTING, Phase.COMPILING)
READY = seen(InstanceState.READY, Phase.READY)
WAKING = seen(InstanceState.STARTING, reason=Reason(code=ReasonCode.WAKING))
SLEEPING = seen(InstanceState.SLEEPING)


def told(*changes: tuple[float, InstanceStatus], first: InstanceStatus | None = None) -> dict | None:
    """What the last of these changes ends."""
    stages, before, found = StartStages(), first, None
    for now, after in changes:
        found = stages.observe(before, after, now)
        before = after
    return found


def test_each_stage_counts_from_its_report_to_the_next() -> None:
    found = told((10, GATED), (13, SPAWNED), (20, LOADING), (50, COMPILING), (51, READY))
    assert found == NOTHING | {"gated": 3, "spawned": 7, "loading weights": 30, "compiling": 1}


def test_a_new_report_of_the_same_stage_adds_to_it() -> None:
    hold = replace(GATED, reason=Reason(code=ReasonCode.HELD))
    assert told((0, GATED), (3, hold), (5, SPAWNED), (6, READY)) == NOTHING | {"gated": 5, "spawned": 1}


@pytest.mark.parametrize("phase", [Phase.READY, Phase.NONE])
def test_until_it_serves_the_time_belongs_to_the_last_phase_that_was_told(phase: Phase) -> None:
    late = seen(InstanceState.STARTING, phase)
    assert told((0, SPAWNED), (5, COMPILING), (7, late), (9, READY)) == NOTHING | {
        "spawned": 5,
        "compiling": 4,
    }


def test_a_start_without_phases_is_one_of_a_spawned_process() -> None:
    starting = seen(InstanceState.STARTING)
    assert told((0, GATED), (1, starting), (9, READY)) == NOTHING | {"gated": 1, "spawned": 8}


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param([(0, READY)], id="it was ready when it was first seen"),
        pytest.param([(0, GATED), (5, READY)], id="its start was not seen"),
        pytest.param([(0, SLEEPING), (1, GATED), (5, WAKING), (7, READY)], id="it woke up"),
        pytest.param([(0, SPAWNED), (5, seen(InstanceState.UNKNOWN)), (9, READY)], id="nobody watched"),
    ],
)
def test_nothing_is_learned_where_no_start_was_seen(changes: list[tuple[float, InstanceStatus]]) -> None:
    assert told(*changes) is None


def test_a_start_that_failed_does_not_count_with_the_next() -> None:
    failed = told((0, GATED), (5, SPAWNED), (6, LOADING), (60, GATED), (61, SPAWNED), (65, READY))
    assert failed == NOTHING | {"gated": 1, "spawned": 4}


def test_what_is_gone_is_forgotten() -> None:
    stages = StartStages()
    stages.observe(None, SPAWNED, 0.0)
    stages.forget_all_but([])
    assert stages.observe(SPAWNED, READY, 50.0) is None


@pytest.mark.asyncio
async def test_the_stages_of_a_start_are_exported_and_add_up_to_its_length() -> None:
    world = World(deployment(replicas=1))
    agent = world.agent()
    agent.starts_become = InstanceState.GATED
    world.run()
    for state, phase, seconds in (
        (InstanceState.GATED, Phase.NONE, 3.0),
        (InstanceState.STARTING, Phase.LOADING, 10.0),
        (InstanceState.STARTING, Phase.WARMING, 4.0),
        (InstanceState.READY, Phase.READY, 1.0),
    ):
        agent.instances["chat-0"] = replace(agent.instances["chat-0"], state=state, phase=phase)
        world.run(seconds)
    page = (await Metrics(world.controller).page({})).decode()
    name = 'supervisord_cp_instance_start_phase_seconds{deployment="chat",phase='
    assert f'{name}"loading weights"}} 10.0\n' in page
    assert f'{name}"warming up"}} 4.0\n' in page
    assert f'{name}"compiling"}} 0.0\n' in page
    assert 'supervisord_cp_instance_start_seconds{deployment="chat"} 14.0\n' in page
