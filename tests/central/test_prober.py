"""Static instances are probed: in and out of rotation, their load read, a restart seen."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from aiohttp import web

from supervisord_cp.clock import SystemClock
from supervisord_cp.config.schema import StaticInstanceConfig
from supervisord_cp.engines.registry import all_engines
from supervisord_cp.model.fleet import FleetPart
from supervisord_cp.model.instance import InstanceState
from supervisord_cp.prober import prober as module
from supervisord_cp.prober.prober import Probe, Prober, after_failure, after_success, routed
from tests.waiting import until


class Engine:
    """Somebody else's engine."""

    def __init__(self) -> None:
        self.status = 200
        self.started = "100.5"
        self.url = ""

    async def health(self, request: web.Request) -> web.Response:
        return web.Response(status=self.status)

    async def metrics(self, request: web.Request) -> web.Response:
        return web.Response(
            text=f"vllm:num_requests_running 3.0\nvllm:num_requests_waiting 2.0\n"
            f"process_start_time_seconds {self.started}\n"
        )


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[Engine]:
    made = Engine()
    app = web.Application()
    app.router.add_get("/health", made.health)
    app.router.add_get("/metrics", made.metrics)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


@pytest.mark.asyncio
async def test_an_engine_comes_goes_and_restarts(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PERIOD_S", 0.02)
    parts: list[FleetPart] = []
    states: list[InstanceState] = []
    prober = Prober(
        all_engines()["vllm"], SystemClock(), parts.append, lambda config, probe: states.append(probe.state)
    )
    config = StaticInstanceConfig(id="b-0", deployment="chat", url=engine.url + "/", max_concurrency=8)
    prober.update([config])
    assert parts[-1].instances[0].state is InstanceState.UNKNOWN
    assert parts[-1].instances[0].routable
    await until(lambda: parts[-1].instances[0].state is InstanceState.READY, "ready")
    first = parts[-1].instances[0]
    assert (first.url, first.static, first.incarnation) == (engine.url, True, "b-0.100.5")
    assert (first.load.running, first.load.waiting) == (3, 2)
    engine.status = 503
    await until(lambda: parts[-1].instances[0].state is InstanceState.DEGRADED, "degraded")
    assert not parts[-1].instances[0].routable
    engine.status, engine.started = 200, "200.5"
    await until(lambda: parts[-1].instances[0].incarnation == "b-0.200.5", "restarted")
    assert states == [InstanceState.READY, InstanceState.DEGRADED, InstanceState.READY]
    prober.update([])
    assert parts[-1].instances == ()
    await prober.close()


@pytest.mark.asyncio
async def test_nobody_there_is_degraded_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PERIOD_S", 0.02)
    probes: list[Probe] = []
    prober = Prober(
        all_engines()["vllm"], SystemClock(), lambda part: None, lambda config, probe: probes.append(probe)
    )
    prober.update([StaticInstanceConfig(id="x", deployment="chat", url="http://127.0.0.1:9")])
    await until(lambda: probes, "degraded")
    assert probes[0].state is InstanceState.DEGRADED
    assert probes[0].error
    await prober.close()


def test_one_failure_may_be_chance() -> None:
    ready = after_success(None, "1")
    once = after_failure(ready, "no")
    assert (once.state, after_failure(once, "no").state) == (InstanceState.READY, InstanceState.DEGRADED)
    assert after_success(None, "1").failures == 0


def test_weight_and_cost_travel() -> None:
    config = StaticInstanceConfig(
        id="x", deployment="chat", url="http://h:1", weight=2.0, cost_per_gpu_hour=2.5
    )
    assert (routed(config, Probe()).weight, routed(config, Probe()).cost_per_gpu_hour) == (2.0, 2.5)
