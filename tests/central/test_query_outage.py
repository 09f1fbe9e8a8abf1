"""A Prometheus that stops answering: its last words are no new evidence."""

import msgspec

from supervisord_cp.central.queries import Result
from supervisord_cp.config.schema import AutoscaleConfig, DeploymentConfig
from supervisord_cp.model.fleet import PolicyUse
from supervisord_cp.model.reason import ReasonCode, render
from supervisord_cp.ports.prometheus import PromSample
from tests.central.fleet import World, deployment


def by_query() -> DeploymentConfig:
    use = PolicyUse(use="hpa", params={"query": "running", "target_average_value": 2})
    quick = {"scale_down": {"stabilization_window_s": 5}}
    given = {"min": 1, "max": 4, "scalers": (use,), "behavior": quick}
    return deployment(autoscale=msgspec.convert(given, AutoscaleConfig))


class Prometheus:
    """Says a number, asked every second, until it is gone."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._result = Result()
        world.controller.query_results = lambda: {"running": self._result}

    def says(self, value: float, seconds: int) -> None:
        for _ in range(seconds):
            samples = (PromSample(value=value),)
            self._result = Result(samples=samples, at=self._world.clock.now())
            self._world.run(1.0)

    def is_gone(self, seconds: int) -> None:
        before = self._result
        self._result = Result(samples=before.samples, at=before.at, error="connection refused")
        self._world.run(float(seconds))


def test_a_dip_that_was_the_last_thing_said_shrinks_nothing() -> None:
    """A gauge that is scraped at a bad moment is outvoted by the window, unless nothing comes after it."""
    world = World(by_query())
    world.agent()
    prometheus = Prometheus(world)
    prometheus.says(6.0, 20)
    assert world.controller.scaling.decisions["chat"].wanted == 3
    prometheus.says(2.0, 1)
    prometheus.is_gone(60)
    decision = world.controller.scaling.decisions["chat"]
    assert decision.wanted == 3
    assert (decision.held, decision.reason.code) == (True, ReasonCode.HOLD)
    assert "connection refused" in render(decision.reason)
    prometheus.says(8.0, 5)
    assert world.controller.scaling.decisions["chat"].wanted == 4
    prometheus.says(2.0, 10)
    assert world.controller.scaling.decisions["chat"].wanted == 1
