"""What scaling remembers: windows, panics and learned figures go on after a restart, decisions are kept."""

import msgspec
import pytest

from supervisord_cp.adapters.sqlite import SqliteStore
from supervisord_cp.central.decisions import Decisions
from supervisord_cp.config.schema import AutoscaleConfig, DeploymentConfig
from supervisord_cp.core.scaling.step import recomputed, step
from supervisord_cp.model.fleet import PolicyUse
from supervisord_cp.model.router import DeploymentDemand, RouterReport
from supervisord_cp.model.scaling import ScaleLimits, ScaleRecord, ScaleState
from supervisord_cp.ports.store import Kind
from tests.central.fleet import World, deployment
from tests.core.scaling_kit import FREE, KNOWN, demand, scaler, view

HPA = scaler("hpa", signal="prompt_tokens_per_s", target_average_value=800)


def automatic(*uses: PolicyUse, **fields: object) -> DeploymentConfig:
    given: dict = {"min": 1, "max": 8, **fields}
    return deployment(autoscale=AutoscaleConfig(scalers=uses, **given))


def fixed(replicas: int) -> PolicyUse:
    return PolicyUse(use="fixed", params={"replicas": replicas})


class Traffic:
    """A router that tells its demand every second."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.arrived = 0
        self.inflight = 0
        world.router("r1")

    def report(self) -> None:
        self.arrived += self.inflight
        demand = DeploymentDemand(
            deployment="chat",
            inflight=self.inflight,
            arrivals_total=self.arrived,
            prompt_tokens_total=self.arrived * 100,
        )
        controller = self.world.controller
        controller.router_reported(RouterReport(router="r1", epoch=controller.epoch, demand=(demand,)))


def wanted(world: World) -> int:
    return world.controller.scaling.decisions["chat"].wanted


def ask_for(world: World, replicas: int) -> None:
    world.controller.config = msgspec.structs.replace(world.config, deployments=(automatic(fixed(replicas)),))
    world.config = world.controller.config


def test_a_window_goes_on_where_it_stood() -> None:
    world = World(automatic(fixed(4)))
    world.agent(slots=8)
    world.run(10.0)
    assert wanted(world) == 4
    ask_for(world, 1)
    world.run(200.0)
    assert wanted(world) == 4
    world.clock.advance(3600.0)  # central is down, and nobody watches
    world.wall += 3600.0
    world.restart()
    world.agent(slots=8)
    world.run(90.0)
    assert wanted(world) == 4
    world.run(30.0)
    assert wanted(world) == 1


@pytest.mark.parametrize("jump", [-1e6, 0.0, 1e6])
def test_neither_clock_of_the_host_matters(jump: float) -> None:
    world = World(automatic(fixed(4)))
    world.agent(slots=8)
    world.run(10.0)
    ask_for(world, 1)
    world.run(100.0)
    world.wall += jump
    world.clock._now = 5.0  # the host was started again
    world.restart()
    world.agent(slots=8)
    world.run(150.0)
    assert wanted(world) == 4
    world.run(60.0)
    assert wanted(world) == 1


def test_a_panic_and_its_windows_go_on() -> None:
    world = World(automatic(PolicyUse(use="kpa", params={"target": 10})))
    world.agent(slots=8)
    traffic = Traffic(world)
    traffic.inflight = 40
    for _ in range(20):
        traffic.report()
        world.run(1.0)
    assert wanted(world) >= 5
    before = world.controller.scaling.records["chat"].calls[0].memory
    world.restart()
    world.agent(slots=8)
    traffic = Traffic(world)
    traffic.inflight = 40
    traffic.report()
    world.run(1.0)
    after = world.controller.scaling.records["chat"].calls[0].memory
    assert isinstance(before, dict)
    assert isinstance(after, dict)
    assert after["window"]["buckets"][:10] == before["window"]["buckets"][:10]
    assert after["panic_most"] == before["panic_most"]


@pytest.mark.parametrize("after_s", [1, 7, 60, 299, 400])
@pytest.mark.parametrize("told", [True, False])
def test_a_restart_never_takes_a_replica(after_s: int, told: bool) -> None:
    """Whatever central knows when it is back, the number it finds is not lowered by its own absence."""
    world = World(automatic(PolicyUse(use="kpa", params={"target": 10})))
    world.agent(slots=8)
    traffic = Traffic(world)
    traffic.inflight = 30
    for _ in range(after_s):
        traffic.report()
        world.run(1.0)
    before = wanted(world)
    world.clock.advance(600.0)
    world.restart()
    agent = world.agent(slots=8)
    traffic = Traffic(world)
    traffic.inflight = 30
    for _ in range(60):
        if told:
            traffic.report()
        world.run(1.0)
        assert wanted(world) >= before
    assert len(agent.instances) >= before


def test_idle_time_begins_anew_since_nobody_watched() -> None:
    world = World(automatic(fixed(0), min=0, idle_s=100.0))
    world.agent(slots=8)
    traffic = Traffic(world)
    for _ in range(20):
        traffic.report()
        world.run(1.0)
    assert world.controller.memory.scaling["chat"].state.history.idle_since_s is not None
    world.restart()
    world.run(1.0)
    assert world.controller.scaling.records["chat"].history.idle_since_s is None


def test_how_long_starts_take_is_remembered() -> None:
    world = World(automatic(fixed(2)))
    world.agent(slots=8)
    world.run(10.0)
    world.controller.scaling._states.learn_start("chat", {"gated": 8.0, "spawned": 2.0, "compiling": 40.0})
    world.run(10.0)
    world.restart()
    world.run(1.0)
    scaling = world.controller.scaling
    assert scaling.start_seconds("chat") == 42.0, "the wait before the launch is none of the start"
    assert scaling.start_stages("chat") == {"gated": 8.0, "spawned": 2.0, "compiling": 40.0}


def test_half_of_what_is_known_of_a_start_is_its_newest() -> None:
    world = World(automatic(fixed(2)))
    scaling = world.controller.scaling
    scaling._states.learn_start("chat", {"spawned": 2.0, "compiling": 40.0})
    scaling._states.learn_start("chat", {"spawned": 4.0, "compiling": 0.0})
    assert scaling.start_stages("chat") == {"spawned": 3.0, "compiling": 20.0}
    assert scaling.start_seconds("chat") == 23.0


def test_a_memory_of_another_release_is_as_good_as_none() -> None:
    world = World(automatic(fixed(2)))
    world.agent(slots=8)
    world.run(10.0)
    world.store.put(Kind.SCALING, "chat", '{"deployment": "chat", "state": 7}')
    world.restart()
    world.agent(slots=8)
    world.run(10.0)
    assert wanted(world) == 2


def test_the_memory_of_a_deployment_that_is_gone_is_deleted() -> None:
    world = World(automatic(fixed(2)))
    world.agent(slots=8)
    world.run(10.0)
    assert world.store.load(Kind.SCALING)
    world.controller.config = msgspec.structs.replace(world.config, deployments=())
    world.run(10.0)
    assert world.store.load(Kind.SCALING) == {}


def record(n: int) -> ScaleRecord:
    seen = view(wanted=n, ready=n, wall_s=float(n), signals=demand(tokens=800.0 * n, inflight=1))
    return step(seen, [HPA], ScaleLimits(behavior=FREE), ScaleState())[0]


@pytest.mark.asyncio
async def test_decisions_are_found_by_time_and_made_again(tmp_path) -> None:
    store = SqliteStore(tmp_path / "central.db")
    decisions = Decisions(store)
    for n in (1, 2, 3, 4):
        decisions.keep(record(n))
    found = await decisions.latest("chat", 3)
    assert [at for at, _ in found] == [2.0, 3.0, 4.0]
    (one,) = await decisions.latest("chat", 1, until=2.5)
    assert one[0] == 2.0
    assert recomputed(one[1], KNOWN) == one[1].decision
    assert await decisions.latest("chat", 1, until=0.5) == []
    assert await decisions.latest("code", 5) == []
    store.close()


@pytest.mark.asyncio
async def test_a_decision_is_stored_when_something_about_it_changes(tmp_path) -> None:
    store = SqliteStore(tmp_path / "central.db")
    decisions = Decisions(store)
    for n in (2, 2, 2, 3, 3):
        decisions.keep(record(n))
    assert len(await decisions.latest("chat", 10)) == 2
    store.close()


@pytest.mark.asyncio
async def test_decisions_are_bounded_and_one_deployment_does_not_push_out_another(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr("supervisord_cp.adapters.sqlite.DECISION_LIMIT", 50)
    store = SqliteStore(tmp_path / "central.db")
    store.append("decision/code", "{}", at=1.0)
    for n in range(1999):
        store.append("decision/chat", "{}", at=float(n))
    await store.flush()
    assert len(store.recent("decision/chat", 5000)) <= 50
    assert store.recent("decision/code", 10) == [(1.0, "{}")]
    store.close()


@pytest.mark.asyncio
async def test_a_decision_of_another_release_is_left_out(tmp_path) -> None:
    store = SqliteStore(tmp_path / "central.db")
    decisions = Decisions(store)
    store.append("decision/chat", '{"view": 7}', at=1.0)
    decisions.keep(record(2))
    assert [at for at, _ in await decisions.latest("chat", 5)] == [2.0]
    store.close()


def test_no_step_keeps_many_for_their_age_alone() -> None:
    """Each has its turn all the same."""
    world = World(*(deployment(f"d{n}", replicas=0) for n in range(40)))
    world.run(3.0)
    before = {name: kept.now_s for name, kept in world.controller.memory.scaling.items()}
    assert len(before) == 40
    seen = []
    for _ in range(20):
        world.run(0.5)
        after = {name: kept.now_s for name, kept in world.controller.memory.scaling.items()}
        seen.append(sum(after[name] != at for name, at in before.items()))
        before = after
    assert max(seen) <= 2 * 16  # `run` ends with one more step
    assert sum(seen) >= 40
