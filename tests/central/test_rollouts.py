"""A new revision that is worse goes back by itself and stays back."""

from msgspec.structs import replace

from supervisord_cp.central.views import deployments
from supervisord_cp.model.router import Outcomes
from tests.central.fleet import FakeAgent, FakeRouter, World, deployment

FINE = Outcomes(answered=500)
FAILING = Outcomes(answered=50, failed=50)


def rolled(
    world: World, agent: FakeAgent, router: FakeRouter, new: Outcomes, old: Outcomes = FINE
) -> set[str]:
    """Roll out a change while old and new replicas answer like this; the revisions in the end."""
    world.run(8.0, router)
    before = {status.revision for status in agent.instances.values()}
    world.controller.config = replace(world.config, deployments=(deployment(args={"x": 1}),))
    for _ in range(40):
        router.outcomes = {
            name: old if status.revision in before else new for name, status in agent.instances.items()
        }
        world.run(0.5, router)
    return {status.revision for status in agent.instances.values()} - before


def test_one_that_fails_goes_back_and_is_not_tried_again() -> None:
    world = World(deployment())
    agent, router = world.agent(slots=3), world.router()
    assert rolled(world, agent, router, FAILING) == set()
    shown = deployments(world.controller)[0]
    assert (shown["ready"], shown["wanted"]) == (2, 2)
    assert "went back to" in shown["progress"]
    assert "50 % of its answers fail, 0 % of its predecessor's" in shown["progress"]
    assert world.kinds("chat").count("deployment.rollout") == 1
    assert world.kinds("chat").count("deployment.rolled_back") == 1
    router.outcomes = {}
    world.run(60.0, router)
    assert world.kinds("chat").count("deployment.rolled_back") == 1
    world.controller.config = replace(world.config, deployments=(deployment(args={"x": 2}),))
    world.run(20.0, router)
    assert deployments(world.controller)[0]["progress"] == ""


def test_it_goes_back_after_the_last_old_replica_has_gone_too() -> None:
    world = World(deployment())
    agent, router = world.agent(slots=3), world.router()
    assert len(rolled(world, agent, router, FINE)) == 1
    assert "deployment.rolled_out" in world.kinds("chat")
    router.outcomes = dict.fromkeys(agent.instances, FAILING)
    world.run(20.0, router)
    assert "deployment.rolled_back" in world.kinds("chat")
    assert len(router.routable()) == 2


def test_after_a_while_it_is_no_longer_in_doubt() -> None:
    world = World(deployment())
    agent, router = world.agent(slots=3), world.router()
    rolled(world, agent, router, FINE)
    world.clock.advance(1800.0)
    world.run(5.0, router)
    router.outcomes = dict.fromkeys(agent.instances, FAILING)
    world.run(20.0, router)
    assert "deployment.rolled_back" not in world.kinds("chat")
    assert router.snapshot is not None
    assert not any(d.compared for d in router.snapshot.deployments)


def test_a_good_one_goes_through_and_routers_are_asked_only_meanwhile() -> None:
    world = World(deployment())
    agent, router = world.agent(slots=3), world.router()
    world.run(8.0, router)
    assert router.snapshot is not None
    assert not any(d.compared for d in router.snapshot.deployments)
    assert len(rolled(world, agent, router, FINE)) == 1
    assert deployments(world.controller)[0]["progress"] == ""
    assert any(d.compared for d in router.snapshot.deployments)
