"""What went wrong elsewhere, told again on virtual time: fourteen scenarios from neighbours' trackers."""

import math
import random

import pytest
from msgspec.structs import replace

from supervisord_cp.builtin.placers.spread import spread
from supervisord_cp.core.scaling.drain import drained
from supervisord_cp.core.scaling.envelope import decide
from supervisord_cp.core.scaling.placement import NodeCapacity
from supervisord_cp.core.scaling.reconcile import plan
from supervisord_cp.core.scaling.room import Wanted
from supervisord_cp.core.scaling.scalers import Scaler
from supervisord_cp.core.scaling.step import step
from supervisord_cp.model.assignment import Assignment
from supervisord_cp.model.instance import InstanceState
from supervisord_cp.model.launch import EngineKind, LaunchSpec, revision_of
from supervisord_cp.model.reason import ReasonCode, render
from supervisord_cp.model.router import LeaseCount, RouterReport
from supervisord_cp.model.scaling import Retire, ScaleHistory, ScaleLimits, ScaleState
from supervisord_cp.model.signal import ReplicaPhase, ReplicaView, Signal, SignalName
from tests.core.scaling_kit import (
    BUSY,
    FREE,
    HPA_DEFAULTS,
    START,
    at,
    behavior,
    demand,
    proposal,
    scaler,
    signal,
    view,
)
from tests.core.scaling_world import World

TOKENS = scaler("hpa", signal="prompt_tokens_per_s", target_average_value=800)


def load_query(world: World) -> dict[str, Signal]:
    """Prometheus as it should be."""
    return {"load": signal(world.arriving)}


QUERY = scaler("hpa", query="load", target_average_value=800)


def test_1_prometheus_is_down_for_ten_minutes_at_high_load() -> None:
    world = World([QUERY], queries=load_query).begin(1).run(300, arriving=4000)
    assert world.wanted == 5
    world.queries = lambda w: {"load": signal(None, detail="connection refused")}
    world.run(600, arriving=4000)
    assert set(world.numbers[-600:]) == {5}
    last = world.log[-1][1]
    assert (last.held, last.reason.code) == (True, ReasonCode.HOLD)
    assert "no data" in render(last.reason)
    assert "connection refused" in render(last.reason)
    world.queries = load_query
    world.run(60, arriving=6400)
    assert world.wanted == 8


def test_1_a_load_that_fell_meanwhile_is_followed_a_window_later() -> None:
    world = World([QUERY], queries=load_query).begin(5).run(10, arriving=4000)
    world.queries = lambda w: {}
    world.run(600, arriving=800)
    world.queries = load_query
    back = world.now
    world.run(400, arriving=800)
    assert world.changes() == [(pytest.approx(back - START + 300, abs=2), -4)]


def test_2_a_ratio_without_traffic_is_no_number() -> None:
    """Waiting per running request: 0 / 0 at night."""
    ratio = scaler("hpa", query="ratio", target_value=1)
    world = World(
        [ratio],
        low=0,
        queries=lambda w: {"ratio": signal(1.0 if w.arriving else math.nan)},
    ).begin(4)
    world.run(60, arriving=3000)
    assert world.wanted == 4
    world.run(1200, arriving=0)
    assert [change for _, change in world.changes()] == [-3, -1]
    assert world.wanted == 0
    world.run(5, arriving=1000)
    assert world.wanted == 1


def test_3_a_gauge_stays_up_after_a_mass_abort() -> None:
    waiting = scaler("hpa", signal="waiting", target_average_value=4)
    world = World([waiting], overlay=lambda w: {"waiting": signal(40.0)}).begin(10)
    world.run(600, arriving=9000)
    assert world.wanted == 10
    world.run(600, arriving=0)
    assert world.wanted == 1
    stale = World([waiting], overlay=lambda w: {"waiting": signal(40.0, age=120)}).begin(10)
    assert stale.run(600, arriving=9000).wanted == 10
    assert stale.run(600, arriving=0).wanted == 1


@pytest.mark.parametrize("phase", [ReplicaPhase.STARTING, ReplicaPhase.UNREADY, ReplicaPhase.FAILED])
def test_4_all_replicas_are_unready(phase: ReplicaPhase) -> None:
    seen = view(
        wanted=2,
        starting=2,
        replicas=tuple(ReplicaView(id=f"chat-{n}", phase=phase, age_s=30) for n in range(2)),
        signals=demand(queued=50, tokens=4000),
        queries={"latency": signal(4.0)},
    )
    for one, number in (
        (scaler("hpa", signal="concurrency", target_average_value=10), 5),
        (scaler("hpa", query="latency", target_value=1), 4),
        (scaler("kpa", target=10, target_utilization_percent=100), 5),
    ):
        record, _ = step(seen, [one], ScaleLimits(behavior=FREE), ScaleState())
        assert record.decision.wanted == number


@pytest.mark.parametrize(
    "scalers",
    [
        [scaler("queue_slo")],
        [TOKENS],
        [TOKENS, scaler("hpa", signal="queued", target_average_value=4)],
        [TOKENS, scaler("kpa", target=16)],
    ],
    ids=["queue_slo", "tokens", "queue", "kpa"],
)
def test_5_loading_takes_four_minutes_and_demand_steps_up_threefold(scalers: list) -> None:
    world = World(scalers, load_s=240).begin(1).run(120, arriving=700)
    assert world.wanted == 1
    step_at = world.now
    world.run(240, arriving=2100)
    assert world.changes() == [(pytest.approx(step_at - START, abs=2), 2)]
    assert world.ordered == 2
    if scalers[-1].use.use == "queue_slo":  # nor for the backlog that the wait has left
        world.run(600, arriving=2100)
        assert world.ordered == 2
        assert world.queued == 0


def test_5_more_demand_meanwhile_is_a_reason() -> None:
    queue = scaler("hpa", signal="queued", target_average_value=4)
    world = World([TOKENS, queue], load_s=240).begin(1).run(120, arriving=700)
    world.run(100, arriving=2100)
    assert world.wanted == 3
    world.run(100, arriving=4200)
    assert world.wanted == 6


def test_6_prefill_is_the_bottleneck_and_the_kv_cache_is_empty() -> None:
    memory = scaler("hpa", signal="kv_cache_usage", target_utilization=80)
    assert World([memory]).begin(2).run(60, arriving=4000).wanted == 2
    assert World([memory, TOKENS]).begin(2).run(60, arriving=4000).wanted == 5


@pytest.mark.parametrize("deviation", [0.02, 0.05, 0.2])
@pytest.mark.parametrize("centre", [760.0, 800.0, 880.0])
def test_7_noise_at_the_boundary_of_one_and_two(centre: float, deviation: float) -> None:
    """800 tokens/s are one replica's target; twenty minutes of noise are one change at most."""
    rng, world = random.Random(7), World([TOKENS], load_s=5).begin(1)
    for _ in range(1200):
        world.run(1, arriving=centre * rng.gauss(1.0, deviation))
    assert [change for _, change in world.changes()] in ([], [1])


def test_8_the_budget_is_full() -> None:
    """Two deployments, the first more important, eight GPUs, and both want more."""
    rng, limits = random.Random(8), ScaleLimits(behavior=HPA_DEFAULTS, gpus_per_replica=2)
    wanted, histories, changes = [1, 1], [ScaleHistory(), ScaleHistory()], 0
    for n in range(900):
        left = 8
        for who, base in enumerate((2, 5)):
            seen = at(view(signals=BUSY), n, wanted=wanted[who], ready=wanted[who])
            made, histories[who] = decide(
                seen, [proposal(base + rng.randint(0, 3))], replace(limits, gpus_left=left), histories[who]
            )
            changes += made.wanted != wanted[who]
            wanted[who] = made.wanted
            left -= made.wanted * 2
            assert left >= 0
    assert wanted[0] == 4
    assert wanted[1] == 0
    assert changes <= 6


def test_9_streams_are_open_when_it_shrinks() -> None:
    """The decision takes a replica away; it is gone when every router says that nothing is open on it."""
    history = ScaleHistory()
    seen = view(wanted=2, ready=2, signals=BUSY)
    made, history = decide(seen, [proposal(1)], ScaleLimits(behavior=FREE), history)
    assert made.wanted == 1
    spec = LaunchSpec(engine=EngineKind.FAKE, model="m", served_names=("m",))
    have = [
        Assignment(
            id=f"chat-{n}", deployment="chat", node="a", devices=(f"slot-{n}",), revision=revision_of(spec)
        )
        for n in range(2)
    ]
    states = {"chat-0": InstanceState.READY, "chat-1": InstanceState.READY}
    node = NodeCapacity(node="a", devices=("slot-0", "slot-1"), taken=frozenset({"slot-0", "slot-1"}))
    actions = plan([Wanted(deployment="chat", replicas=1, spec=spec)], have, states, [node], spread).actions
    assert [type(action) for action in actions] == [Retire]
    open_streams = [
        RouterReport(router=name, epoch="e", version=5, leases=(LeaseCount(incarnation="i", requests=n),))
        for name, n in (("r1", 0), ("r2", 2))
    ]
    assert not drained("i", 5, "e", open_streams)
    assert drained("i", 5, "e", open_streams[:1])


@pytest.mark.parametrize("use", [TOKENS, scaler("kpa", target=16), scaler("queue_slo"), QUERY])
@pytest.mark.parametrize("known", [True, False])
def test_10_central_restarts_under_load(use: Scaler, known: bool) -> None:
    """The first seconds after it see hardly any load, or nothing at all."""
    world = World([use], queries=load_query).begin(1).run(400, arriving=4000)
    before = world.wanted
    assert before is not None
    assert before >= 4
    world.restart_central()
    if not known:
        world.overlay = lambda w: {name: signal(None) for name in SignalName}
        world.queries = lambda w: {}
    world.run(60, arriving=10)
    assert set(world.numbers[400:]) == {before}


def test_11_one_of_two_metrics_is_invalid() -> None:
    broken = scaler("hpa", query="nothing", target_average_value=1)
    world = World([TOKENS, broken]).begin(3)
    assert world.run(30, arriving=4800).wanted == 6
    assert world.run(900, arriving=800).wanted == 6
    assert world.log[-1][1].held
    world.queries = lambda w: {"nothing": signal(0.0)}
    assert world.run(400, arriving=800).wanted == 1


def test_12_a_replica_crashes_under_load() -> None:
    """Its place is kept while it is tried again: nothing is ordered for it, the others go on."""
    world = World([TOKENS], load_s=30).begin(2).run(60, arriving=1600)
    world.replicas[1].failed = True
    world.run(600, arriving=1600)
    assert world.ordered == 0
    assert set(world.numbers) == {2}
    value = scaler("hpa", query="latency", target_value=2)
    slow = World([value], load_s=30, queries=lambda w: {"latency": signal(4.0)}).begin(1)
    slow.run(1, arriving=900)
    assert slow.wanted == 2
    slow.replicas[1].failed = True
    slow.run(600, arriving=900)
    assert slow.ordered == 1


@pytest.mark.parametrize("every", [1.0, 7.0, 10.0, 25.0])
def test_13_a_slow_loop_measures_delays_by_the_clock(every: float) -> None:
    world = World([TOKENS]).begin(5).run(100, arriving=4000, every=every)
    fell = world.now
    world.run(600, arriving=1600, every=every)
    (when, change), *more = world.changes()
    assert (change, more) == (-3, [])
    assert fell + 300 - every <= when + START <= fell + 300 + 2 * every


def test_14_a_request_waits_at_zero() -> None:
    """Asked at the moment of its arrival, not at the next step, the answer is one replica."""
    slow = behavior()
    world = World([TOKENS], low=0, behavior=slow, idle_s=30).begin(1).run(700, arriving=0)
    assert world.wanted == 0
    world.now += 0.2
    world.queued = 500.0
    made = world.decide()
    assert (made.wanted, made.reason.code) == (1, ReasonCode.WAKE)
    world.now += 0.1
    assert world.decide().wanted == 1  # one wake-up for all that wait
    assert world.ordered == 1
