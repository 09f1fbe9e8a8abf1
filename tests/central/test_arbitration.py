"""Deployments that compete for devices, in a whole central: who yields, in which order, and that it ends."""

import pytest
from msgspec.structs import replace

from supervisord_cp.central.views import deployments
from supervisord_cp.model.instance import InstanceState
from tests.central.fleet import World, deployment

LOW = deployment("low", replicas=2, min_residency_s=0.0)
VIP = deployment("vip", replicas=1, gpus=2, priority=9, min_residency_s=0.0)


def compete(world: World) -> None:
    """The important deployment is added to the configuration."""
    world.config = replace(world.config, deployments=(LOW, VIP))
    world.controller.config = world.config


def placed(world: World) -> dict[str, str]:
    return {a.id: a.node for a in world.controller.memory.assignments.values() if a.counts}


def test_a_group_gets_its_place_and_nothing_comes_and_goes_afterwards() -> None:
    """The place beside the one that yields is free: it must not be taken by the one that yields."""
    world = World(LOW)
    world.agent("a", slots=2)
    world.agent("b", slots=1)
    world.run(10.0)
    assert sorted(placed(world).values()) == ["a", "b"]
    compete(world)
    world.run(30.0)
    assert {name: where for name, where in placed(world).items() if name.startswith("vip")} == {"vip-0": "a"}
    placements = world.kinds("low-0") + world.kinds("low-1") + world.kinds("low-2")
    world.run(120.0)
    after = world.kinds("low-0") + world.kinds("low-1") + world.kinds("low-2")
    assert after == placements
    low, vip = deployments(world.controller)
    assert (low["ready"], vip["ready"]) == (1, 1)
    assert low["cannot_place"][0]["reason"] == "no_free_device"


@pytest.mark.parametrize("comes_up", [True, False])
def test_the_one_that_yields_serves_until_its_successor_does(comes_up: bool) -> None:
    world = World(LOW)
    world.agent("a", slots=2)
    world.agent("b", slots=1)
    world.run(10.0)
    late = world.agent("c", slots=1)
    late.starts_become = InstanceState.STARTING
    compete(world)
    world.run(10.0)
    (leaving,) = [a for a in world.controller.memory.assignments.values() if a.leaving]
    assert not leaving.draining
    assert leaving.node == "a"
    assert late.instances
    state = InstanceState.READY if comes_up else InstanceState.BACKOFF
    late.instances = {name: replace(one, state=state) for name, one in late.instances.items()}
    world.run(10.0)
    assert placed(world)["vip-0"] == "a"


def test_min_residency_protects_whom_it_is_set_for() -> None:
    world = World(replace(LOW, min_residency_s=1e6))
    world.agent("a", slots=2)
    world.run(10.0)
    world.config = replace(world.config, deployments=(replace(LOW, min_residency_s=1e6), VIP))
    world.controller.config = world.config
    world.run(60.0)
    assert sorted(placed(world)) == ["low-0", "low-1"]
    assert deployments(world.controller)[1]["cannot_place"]
