"""Scenarios from neighbours' trackers that need the whole of central: agents that start and end engines, and
routers that hold requests and streams."""

from typing import Any

import msgspec
import pytest

from supervisord_cp.central.operations import Operations
from supervisord_cp.config.schema import AutoscaleConfig, DeploymentConfig
from supervisord_cp.model.fleet import PolicyUse
from supervisord_cp.model.instance import InstanceState
from supervisord_cp.model.reason import ReasonCode
from supervisord_cp.model.router import DeploymentDemand
from tests.central.fleet import World, deployment

CONCURRENCY = PolicyUse(use="hpa", params={"signal": "concurrency", "target_average_value": 10})
TOKENS = PolicyUse(use="hpa", params={"signal": "prompt_tokens_per_s", "target_average_value": 800})
"""Knows nothing of what waits."""


def automatic(**fields: Any) -> DeploymentConfig:
    """As many replicas as requests by ten, unless other scalers are given."""
    quick = {"scale_down": {"stabilization_window_s": 10}}
    given = {"min": 1, "max": 4, "idle_s": 20, "scalers": (CONCURRENCY,), "behavior": quick, **fields}
    return deployment(autoscale=msgspec.convert(given, AutoscaleConfig))


def demand(queued: int = 0, inflight: int = 0) -> tuple[DeploymentDemand, ...]:
    return (DeploymentDemand(deployment="chat", queued=queued, inflight=inflight),)


def wanted(world: World) -> int:
    return world.controller.scaling.decisions["chat"].wanted


@pytest.mark.parametrize("holder", [0, 1])
def test_9_streams_are_open_when_it_shrinks(holder: int) -> None:
    """The load is gone but for one stream, on the replica that has to go: that ends when the stream does."""
    world = World(automatic())
    agent = world.agent()
    routers = [world.router("r1"), world.router("r2")]
    for router in routers:
        router.demand = demand(inflight=10)
    world.run(10.0, *routers)
    assert routers[0].routable() == ["chat-0", "chat-1"]
    streaming = agent.instances["chat-1"].incarnation
    for router in routers:
        router.demand = demand()
    routers[holder].demand = demand(inflight=1)
    routers[holder].leases = {streaming: 1}
    world.run(120.0, *routers)
    assert wanted(world) == 1
    for router in routers:
        assert router.routable() == ["chat-0"], "nothing new is sent there"
    assert agent.instances["chat-1"].state is InstanceState.READY, "and what is open goes on"
    routers[holder].leases = {}
    world.run(3.0, *routers)
    assert sorted(agent.instances) == ["chat-0"]


def test_9_more_load_while_it_drains_gets_another_replica() -> None:
    world = World(automatic())
    agent, router = world.agent(), world.router()
    router.demand = demand(inflight=20)
    world.run(10.0, router)
    streaming = agent.instances["chat-1"].incarnation
    router.demand, router.leases = demand(inflight=1), {streaming: 1}
    world.run(30.0, router)
    router.demand = demand(inflight=20)
    world.run(10.0, router)
    assert router.routable() == ["chat-0", "chat-2"]
    assert agent.instances["chat-1"].incarnation == streaming


class AtZero:
    """A deployment at zero, a router, and how often the control loop was woken."""

    def __init__(self) -> None:
        self.world = World(automatic(min=0, scalers=(TOKENS,)))
        self.agent = self.world.agent()
        self.router = self.world.router()
        self.router.demand = demand()
        self.world.run(60.0, self.router)
        assert self.agent.instances == {}
        self.woken = 0
        self.world.controller.wake = self._wake

    def _wake(self) -> None:
        """What the daemon's loop does: a step at once, and no time passes."""
        self.woken += 1
        self.world.controller.step()

    def says(self, queued: int) -> None:
        self.router.demand = demand(queued=queued)
        self.router.report()


def test_14_a_request_that_waits_at_zero_waits_for_no_tick() -> None:
    """From the router's word to the agent's order no time passes."""
    zero = AtZero()
    zero.says(1)
    assert zero.woken == 1
    assert wanted(zero.world) == 1
    assert zero.world.controller.scaling.decisions["chat"].reason.code is ReasonCode.WAKE
    assert zero.agent.desired is not None
    assert [one.id for one in zero.agent.desired.instances] == ["chat-0"]


def test_14_one_waking_serves_all_that_wait() -> None:
    zero = AtZero()
    for queued in (1, 30, 500):
        zero.says(queued)
    assert wanted(zero.world) == 1
    zero.world.run(5.0, zero.router)
    assert zero.agent.spawned == 1
    assert zero.router.routable() == ["chat-0"]


def test_14_what_cannot_be_had_does_not_keep_central_busy() -> None:
    """A request that waits on is no news: the loop has its own pace."""
    zero = AtZero()
    Operations(zero.world.controller).scale("chat", 0, None)
    zero.world.run(2.0, zero.router)
    zero.woken = 0
    for _ in range(10):
        zero.says(1)
    assert zero.woken == 1
    assert wanted(zero.world) == 0
