"""A node that is gone for good: the operator says so, and central forgets it."""

import pytest

from supervisord_cp.central.memory import Memory
from supervisord_cp.central.operations import NotFound, NotPossible, Operations
from supervisord_cp.central.views import instances, nodes, status
from tests.central.fleet import FakeAgent, FakeRouter, World, deployment


def world_without_b(replicas: int = 2) -> tuple[World, FakeRouter, FakeAgent]:
    """Two nodes with a replica each, and `b` has gone silent."""
    world = World(deployment(replicas=replicas))
    world.agent("a"), world.agent("b")
    router = world.router()
    world.run(8.0, router)
    gone = world.agents["b"]
    world.controller.memory.know_keys("b", {"chat-1.i1": "secret"})
    world.controller.routers.update_keys("b", {"chat-1.i1": "secret"})
    gone.disconnect()
    world.run(5.0, router)
    return world, router, gone


def forget(world: World, node: str = "b") -> str:
    return Operations(world.controller).forget(node)


def test_a_forgotten_node_is_nowhere_and_its_replicas_are_elsewhere() -> None:
    world, router, _ = world_without_b()
    Operations(world.controller).cordon("b", "slot-0", True)
    assert forget(world) == "b is forgotten; given up with it: chat-1"
    world.run(5.0, router)
    assert [node["name"] for node in nodes(world.controller)] == ["a"]
    assert sorted(world.agents["a"].instances) == ["chat-0", "chat-2"]
    assert sorted(one["id"] for one in instances(world.controller)) == ["chat-0", "chat-2"]
    assert sorted(router.instances()) == ["chat-0", "chat-2"]
    assert "chat-1.i1" not in router.keys
    assert not [problem for problem in status(world.controller)["problems"] if problem.startswith("b")]
    assert not world.controller.memory.cordons
    assert "node.forgotten" in world.kinds("b")


def test_it_stays_forgotten_over_a_restart_of_central() -> None:
    world, router, _ = world_without_b()
    forget(world)
    world.run(5.0, router)
    world.restart()
    assert "b" not in world.controller.nodes
    assert sorted(world.controller.memory.assignments) == ["chat-0", "chat-2"]
    assert not world.controller.memory.keys.get("b")


def test_a_connected_node_is_refused_with_what_to_do() -> None:
    world = World(deployment())
    world.agent("a"), world.agent("b")
    world.run()
    with pytest.raises(NotPossible, match=r"^b is connected; .*`drain b`.*stop its agent.*forget"):
        forget(world)
    with pytest.raises(NotFound, match="no node named z"):
        forget(world, "z")
    assert "b" in world.controller.nodes


@pytest.mark.parametrize("restarted", [False, True])
def test_engines_of_a_node_that_comes_back_are_taken_over_and_the_surplus_drains(restarted: bool) -> None:
    world, router, gone = world_without_b()
    forget(world)
    world.run(8.0, router)
    if restarted:
        others = list(world.agents.values())
        world.restart()
        router = world.router()
        for other in others:
            other.connect()
        world.run(8.0, router)
    gone.connect()
    assert {"chat-0", "chat-1", "chat-2"} == set(world.controller.memory.assignments)
    fewest = 2
    for _ in range(30):
        world.run(0.5, router)
        fewest = min(fewest, len(router.routable()))
    assert fewest == 2
    everywhere = [name for agent in world.agents.values() for name in agent.instances]
    assert sorted(everywhere) == sorted(world.controller.memory.assignments)
    assert len(everywhere) == 2
    assert not world.controller.memory.overrides


def test_names_on_a_forgotten_node_are_given_to_nobody_until_it_is_back() -> None:
    world, router, gone = world_without_b()
    forget(world)
    operations = Operations(world.controller)
    operations.scale("chat", 4, None)
    world.run(8.0, router)
    assert sorted(world.agents["a"].instances) == ["chat-0", "chat-2", "chat-3", "chat-4"]
    gone.connect()
    world.run(20.0, router)
    assert not Memory(world.store).forgotten


def test_what_is_no_longer_configured_leaves_a_node_that_comes_back() -> None:
    world = World(deployment("chat", 1), deployment("code", 1))
    world.agent("a", slots=1), world.agent("b", slots=1)
    router = world.router()
    world.run(8.0, router)
    name = next(n for n, agent in world.agents.items() if "code-0" in agent.instances)
    gone = world.agents[name]
    gone.disconnect()
    world.run(5.0, router)
    forget(world, name)
    world.controller.config = world.config = type(world.config)(
        central=world.config.central, deployments=world.config.deployments[:1]
    )
    world.run(5.0, router)
    gone.connect()
    world.run(20.0, router)
    assert not gone.instances
