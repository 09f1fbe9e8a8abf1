"""An engine that an agent found and nobody asked for: the operator ends it, by name and plainly."""

import pytest

from supervisord_cp.central.operations import NotFound, NotPossible, Operations
from supervisord_cp.model.instance import InstanceState, InstanceStatus
from tests.central.fleet import FakeRouter, World, deployment


def world_with_a_stranger(of: str) -> tuple[World, FakeRouter]:
    """Node `a` runs `old-7` besides what was asked of it."""
    world = World(deployment(replicas=1))
    agent = world.agent("a")
    router = world.router()
    world.run(8.0, router)
    agent.instances["old-7"] = InstanceStatus(
        id="old-7",
        deployment=of,
        engine="fake",
        revision="r",
        incarnation="old-7.x",
        state=InstanceState.READY,
        url="http://127.0.0.1/old-7",
        devices=("slot-1",),
        listed=False,
    )
    world.run(3.0, router)
    return world, router


@pytest.mark.parametrize("of", ["chat", "deployment-of-nobody"])
def test_it_drains_and_is_removed(of: str) -> None:
    world, router = world_with_a_stranger(of)
    assert router.instances()["old-7"].routable
    router.leases = {"old-7.x": 1}
    assert Operations(world.controller).end_unlisted("old-7", None) == ["old-7"]
    world.run(5.0, router)
    assert not router.instances()["old-7"].routable
    assert "old-7" in world.agents["a"].instances, "its request is open"
    router.leases = {}
    world.run(5.0, router)
    assert sorted(world.agents["a"].instances) == ["chat-0"]
    assert sorted(world.controller.memory.assignments) == ["chat-0"]


def test_its_deadline_ends_it_with_requests_open() -> None:
    world, router = world_with_a_stranger("chat")
    router.leases = {"old-7.x": 1}
    Operations(world.controller).end_unlisted("old-7", 5.0)
    world.run(8.0, router)
    assert sorted(world.agents["a"].instances) == ["chat-0"]


def test_stop_alone_refuses_and_says_how() -> None:
    world, _ = world_with_a_stranger("chat")
    with pytest.raises(NotPossible, match=r"no place for it.*`supervisord-cp stop old-7 --unlisted` ends it"):
        Operations(world.controller).instance("old-7", "stop", None)


def test_what_has_a_place_or_is_not_there_is_refused() -> None:
    world, _ = world_with_a_stranger("chat")
    with pytest.raises(NotPossible, match="chat-0 has its place here"):
        Operations(world.controller).end_unlisted("chat-0", None)
    with pytest.raises(NotFound, match="no unlisted instance named old-8; did you mean old-7"):
        Operations(world.controller).end_unlisted("old-8", None)
