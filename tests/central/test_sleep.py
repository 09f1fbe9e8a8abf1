"""Replicas that sleep, in a small world around a controller."""

from supervisord_cp.central.operations import Operations
from supervisord_cp.central.views import deployments, nodes
from supervisord_cp.config.schema import DeploymentConfig
from supervisord_cp.model.instance import InstanceState
from tests.central.fleet import FakeAgent, World, deployment


def sleepy(**fields: object) -> DeploymentConfig:
    return deployment(**{"replicas": 2, "sleep": "level1", "sleep_s": 100.0, **fields})


def states(agent: FakeAgent) -> dict[str, InstanceState]:
    return {name: status.state for name, status in agent.instances.items()}


def scale(world: World, replicas: int | None, name: str = "chat") -> None:
    Operations(world.controller).scale(name, replicas, None)


def test_down_to_sleep_up_by_waking_and_in_the_end_stopped() -> None:
    world = World(sleepy())
    agent, router = world.agent(), world.router()
    world.run(8.0, router)
    scale(world, 1)
    world.run(8.0, router)
    assert states(agent) == {"chat-0": InstanceState.READY, "chat-1": InstanceState.SLEEPING}
    assert router.routable() == ["chat-0"]
    shown = deployments(world.controller)[0]
    assert (shown["ready"], shown["sleeping"], shown["draining"]) == (1, 1, 0)
    assert [s["use"] for s in nodes(world.controller)[0]["slots"]][:2] == ["serving", "free"]
    scale(world, 2)
    world.run(8.0, router)
    assert (agent.woken, agent.spawned) == (1, 2)
    assert router.routable() == ["chat-0", "chat-1"]
    scale(world, 0)
    world.run(60.0, router)
    assert set(states(agent).values()) == {InstanceState.SLEEPING}
    world.run(60.0, router)
    assert states(agent) == {}


def test_it_drains_before_it_sleeps_and_can_be_called_back() -> None:
    world = World(sleepy(replicas=1))
    agent, router = world.agent(), world.router()
    world.run(8.0, router)
    router.leases = {agent.instances["chat-0"].incarnation: 1}
    scale(world, 0)
    world.run(20.0, router)
    assert states(agent) == {"chat-0": InstanceState.READY}
    assert router.routable() == []
    scale(world, 1)
    world.run(2.0, router)
    assert router.routable() == ["chat-0"]
    assert (agent.woken, agent.spawned) == (0, 1)


def test_another_deployment_has_the_device_meanwhile() -> None:
    world = World(sleepy(replicas=1), deployment("code", replicas=0, sleep="level1"))
    agent = world.agent(slots=1)
    world.run()
    scale(world, 0)
    world.run()
    scale(world, 1, "code")
    world.run()
    assert states(agent) == {"chat-0": InstanceState.SLEEPING, "code-0": InstanceState.READY}
    scale(world, 1)
    world.run()
    assert states(agent)["chat-0"] is InstanceState.SLEEPING, "its device is in use"
    assert deployments(world.controller)[0]["cannot_place"][0]["reason"] == "no_free_device"


def test_an_operator_stops_what_sleeps() -> None:
    world = World(sleepy(replicas=1))
    agent = world.agent()
    world.run()
    scale(world, 0)
    world.run()
    Operations(world.controller).deployment("chat", "stop", 0.0)
    world.run()
    assert states(agent) == {"chat-0": InstanceState.STOPPED}


def test_what_sleeps_goes_with_its_deployment_and_with_its_revision() -> None:
    world = World(sleepy())
    agent = world.agent()
    world.run()
    scale(world, 1)
    world.run()
    changed = sleepy(args={"max-model-len": 1024})
    world.controller.config = world.config = type(world.config)(deployments=(changed,))
    world.run(20.0)
    assert set(states(agent).values()) == {InstanceState.READY}
    world.controller.config = world.config = type(world.config)(deployments=())
    world.run(20.0)
    assert states(agent) == {}


def test_central_that_was_restarted_or_has_lost_its_memory_lets_it_sleep() -> None:
    for wiped in (False, True):
        world = World(sleepy(replicas=1, autoscale=None))
        agent = world.agent()
        world.run()
        scale(world, 0)
        world.run()
        world.restart(wiped=wiped)
        if wiped:
            scale(world, 0)
        world.agents["a"] = agent
        agent.connect()
        world.run(20.0)
        assert states(agent) == {"chat-0": InstanceState.SLEEPING}
        scale(world, None)
        world.run()
        assert (agent.woken, agent.spawned) == (1, 1)
