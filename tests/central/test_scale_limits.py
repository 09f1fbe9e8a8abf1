"""Limits of scaling as a configuration sets them: GPUs of the fleet, of a deployment, and the N-1 check."""

import msgspec
import pytest

from supervisord_cp.config.schema import AutoscaleConfig, DeploymentConfig, ShrinkCheckConfig
from supervisord_cp.model.fleet import PolicyUse
from supervisord_cp.model.reason import ReasonCode
from supervisord_cp.model.router import DeploymentDemand, RouterReport
from supervisord_cp.model.scaling import ScaleDecision
from tests.central.fleet import World, deployment


def following(name: str = "chat", *, replicas: int = 4, **fields: object) -> DeploymentConfig:
    """A deployment whose scaler asks for a number."""
    scale = fields.pop("scale", {})
    assert isinstance(scale, dict)
    uses = (PolicyUse(use="fixed", params={"replicas": replicas}),)
    quick = {"scale_down": {"stabilization_window_s": 0}}
    given = {"min": 1, "max": 8, "scalers": uses, "behavior": quick, **scale}
    return deployment(name, autoscale=msgspec.convert(given, AutoscaleConfig), **fields)


def decided(world: World, name: str = "chat") -> ScaleDecision:
    return world.controller.scaling.decisions[name]


def shrink_to(world: World, replicas: int, **fields: object) -> None:
    """Another number is asked for from now on."""
    world.config = msgspec.structs.replace(
        world.config, deployments=(following(replicas=replicas, **fields),)
    )
    world.controller.config = world.config


def busy(world: World, inflight: int, arrived: int = 0) -> None:
    demand = DeploymentDemand(
        deployment="chat", inflight=inflight, arrivals_total=arrived, prompt_tokens_total=arrived * 100
    )
    world.controller.router_reported(
        RouterReport(router="r1", epoch=world.controller.epoch, demand=(demand,))
    )


def run(world: World, seconds: int, inflight: int, rate: int = 0) -> None:
    """Time with a router that tells its demand."""
    for n in range(seconds):
        busy(world, inflight, n * rate)
        world.run(1.0)


def test_the_fleets_budget_goes_to_the_important_first() -> None:
    world = World(following("low", replicas=4), following("vip", replicas=3, priority=9), gpu_budget=5)
    world.agent(slots=8)
    world.run(30.0)
    assert (decided(world, "vip").wanted, decided(world, "low").wanted) == (3, 2)
    assert decided(world, "low").reason.code is ReasonCode.GPU_BUDGET


def test_a_share_binds_before_the_budget() -> None:
    world = World(following(replicas=4, gpu_share=3, gpus=1), gpu_budget=8)
    world.agent(slots=8)
    world.run(30.0)
    assert decided(world).wanted == 3
    assert decided(world).reason.code is ReasonCode.GPU_SHARE


def test_a_share_of_a_fixed_deployment() -> None:
    world = World(deployment(replicas=6, gpu_share=2))
    world.agent(slots=8)
    world.run(10.0)
    assert decided(world).wanted == 2


@pytest.mark.parametrize(("inflight", "stays"), [(30, 4), (20, 3), (7, 1), (0, 1)])
def test_max_concurrency_makes_the_check_by_itself(inflight: int, stays: int) -> None:
    world = World(following(replicas=4, max_concurrency=10))
    world.agent(slots=8)
    world.router("r1")
    run(world, 20, inflight)
    assert decided(world).wanted == 4
    shrink_to(world, 1, max_concurrency=10)
    run(world, 20, inflight)
    assert decided(world).wanted == stays


def test_a_load_that_is_not_known_keeps_every_replica() -> None:
    world = World(following(replicas=4, max_concurrency=10))
    world.agent(slots=8)
    world.run(20.0)
    shrink_to(world, 1, max_concurrency=10)
    world.run(20.0)
    assert decided(world).wanted == 4
    assert decided(world).held
    assert decided(world).reason.code is ReasonCode.SHRINK_UNKNOWN


@pytest.mark.parametrize(
    ("check", "stays"),
    [
        (None, 1),
        (ShrinkCheckConfig(signal="requests_per_s", per_replica=10, fill=1.0), 3),
        (ShrinkCheckConfig(signal="requests_per_s", per_replica=10, fill=0.8), 4),
        (ShrinkCheckConfig(signal="inflight", per_replica=1, fill=0.0), 1),
        (ShrinkCheckConfig(signal="prompt_tokens_per_s"), 4),
    ],
)
def test_a_check_that_is_configured(check: ShrinkCheckConfig | None, stays: int) -> None:
    scale = {} if check is None else {"shrink_check": check}
    world = World(following(replicas=4, scale=scale))
    world.agent(slots=8)
    world.router("r1")
    run(world, 20, 5, rate=30)
    shrink_to(world, 1, scale=scale)
    run(world, 20, 5, rate=30)
    assert decided(world).wanted == stays
