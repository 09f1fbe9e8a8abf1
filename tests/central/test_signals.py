"""Signals: what routers and engines say, each with state, age and source; missing, stale, NaN and zero."""

import pytest

from supervisord_cp.central.fleet import NodeView
from supervisord_cp.central.routers import RouterView
from supervisord_cp.central.signals import Signals
from supervisord_cp.model.gpu import Gpu
from supervisord_cp.model.instance import EngineLoad, InstanceState, InstanceStatus
from supervisord_cp.model.node import NodeInventory
from supervisord_cp.model.router import DeploymentDemand, RouterReport
from supervisord_cp.model.signal import Signal, SignalName, SignalSource, SignalState


class Fleet:
    """Engines of one deployment on one node, and routers, at a time that a test moves."""

    def __init__(self) -> None:
        self.signals = Signals()
        self.now = 100.0
        self.routers: dict[str, RouterView] = {}
        self.view = NodeView(inventory=NodeInventory(node="a"), connected=True)

    def engines(self, *loads: EngineLoad, lives: str = "i", gpus: tuple[Gpu, ...] = ()) -> None:
        instances = {
            f"chat-{n}": InstanceStatus(
                id=f"chat-{n}",
                deployment="chat",
                engine="vllm",
                revision="r",
                incarnation=f"chat-{n}.{lives}",
                state=InstanceState.READY,
                devices=(f"GPU-{n}",),
                load=load,
            )
            for n, load in enumerate(loads)
        }
        self.view = NodeView(
            inventory=NodeInventory(node="a"),
            connected=True,
            reported_at=self.now,
            instances=instances,
            gpus=gpus,
        )
        self.signals.node_reported(self.view, self.now)

    def router(self, name: str, report: RouterReport | None, *, connected: bool = True) -> None:
        self.routers[name] = RouterView(
            id=name, version="0", connected=connected, heard_at=self.now, report=report
        )
        if report is not None:
            self.signals.router_reported(report, self.now)

    def later(self, seconds: float) -> None:
        """Time passes, and is looked at."""
        self.now += seconds

    def read(self) -> dict[str, Signal]:
        replicas = [
            self.signals.replica(status, self.view, self.now) for status in self.view.instances.values()
        ]
        return self.signals.deployment("chat", self.routers, replicas, self.now)


def demand(name: str = "r1", **fields: int) -> RouterReport:
    return RouterReport(router=name, demand=(DeploymentDemand(deployment="chat", **fields),))


def load(**fields: float) -> EngineLoad:
    return EngineLoad(**{"running": 1, "waiting": 0, **fields})


def test_nothing_is_known_of_a_fleet_that_nobody_has_seen() -> None:
    found = Fleet().read()
    assert {signal.state for signal in found.values()} == {SignalState.MISSING}


def test_a_router_that_counts_nothing_says_zero_and_not_nothing() -> None:
    fleet = Fleet()
    fleet.router("r1", RouterReport(router="r1"))
    found = fleet.read()[SignalName.QUEUED]
    assert (found.state, found.value, found.source) == (SignalState.VALUE, 0.0, SignalSource.ROUTER)


@pytest.mark.parametrize(
    ("age", "state"), [(0.0, SignalState.VALUE), (4.9, SignalState.VALUE), (5.1, SignalState.STALE)]
)
def test_what_a_router_said_grows_old(age: float, state: SignalState) -> None:
    fleet = Fleet()
    fleet.router("r1", demand(queued=3))
    fleet.later(age)
    found = fleet.read()[SignalName.QUEUED]
    assert (found.state, found.value, round(found.age_s, 1)) == (state, 3.0, age)


def test_demand_is_the_sum_of_all_routers_and_unknown_with_one_of_them() -> None:
    fleet = Fleet()
    fleet.router("r1", demand("r1", queued=3))
    fleet.router("r2", demand("r2", queued=4))
    assert fleet.read()[SignalName.QUEUED].value == 7.0
    fleet.router("r3", None)
    found = fleet.read()[SignalName.QUEUED]
    assert (found.state, found.detail) == (SignalState.MISSING, "router r3 has not reported")


def test_arrivals_are_a_rate_and_a_router_that_begins_anew_does_not_make_it_negative() -> None:
    fleet = Fleet()
    for arrived in (0, 10, 20):
        fleet.router("r1", demand(arrivals_total=arrived))
        fleet.later(1.0)
    assert fleet.read()[SignalName.REQUESTS_PER_S].value == pytest.approx(10.0)
    fleet.router("r1", demand(arrivals_total=2))
    assert fleet.read()[SignalName.REQUESTS_PER_S].state is SignalState.MISSING
    fleet.later(1.0)
    fleet.router("r1", demand(arrivals_total=7))
    assert fleet.read()[SignalName.REQUESTS_PER_S].value == pytest.approx(5.0)


def test_requests_in_flight_are_a_mean_and_not_what_there_is_between_two_of_them() -> None:
    fleet = Fleet()
    for second in range(6):
        demand = DeploymentDemand(deployment="chat", inflight=4 * (second % 2), inflight_s_total=3.9 * second)
        fleet.router("r", RouterReport(router="r", demand=(demand,)))
        if second:
            assert fleet.read()[SignalName.INFLIGHT].value == pytest.approx(3.9)
        fleet.later(1.0)
    assert fleet.read()[SignalName.INFLIGHT].window_s == pytest.approx(2.0)


def test_a_router_that_does_not_tell_the_mean_is_taken_at_its_word() -> None:
    fleet = Fleet()
    for inflight in (4, 0, 3):
        fleet.router(
            "r",
            RouterReport(router="r", demand=(DeploymentDemand(deployment="chat", inflight=inflight),)),
        )
        assert fleet.read()[SignalName.INFLIGHT].value == inflight
        fleet.later(1.0)


def test_a_router_that_begins_anew_makes_the_mean_no_less_than_zero() -> None:
    fleet = Fleet()
    for total in (50.0, 60.0, 0.0):
        demand = DeploymentDemand(deployment="chat", inflight=2, inflight_s_total=total)
        fleet.router("r", RouterReport(router="r", demand=(demand,)))
        fleet.later(1.0)
    assert fleet.read()[SignalName.INFLIGHT].value == 2


def test_latencies_are_means_of_what_was_counted_lately() -> None:
    """Two engines: 10 first tokens in 1 s each, 30 in 3 s each; the mean is over requests, not engines."""
    fleet = Fleet()
    for n in range(3):
        fleet.engines(
            load(ttft_total_s=10.0 * n, ttft_count=10.0 * n, itl_total_s=1.0 * n, itl_count=100.0 * n),
            load(ttft_total_s=90.0 * n, ttft_count=30.0 * n, itl_total_s=3.0 * n, itl_count=100.0 * n),
        )
        fleet.read()
        fleet.later(1.0)
    found = fleet.read()
    assert found[SignalName.TTFT_S].value == pytest.approx(2.5)
    assert found[SignalName.ITL_S].value == pytest.approx(0.02)
    assert found[SignalName.TTFT_S].source is SignalSource.AGENT


def test_a_latency_without_requests_is_no_number_and_not_zero() -> None:
    fleet = Fleet()
    for _ in range(3):
        fleet.engines(load(ttft_total_s=10.0, ttft_count=10.0))
        fleet.read()
        fleet.later(1.0)
    ttft = fleet.read()[SignalName.TTFT_S]
    assert (ttft.state, ttft.detail) == (SignalState.NAN, "no token came in that time")


def test_an_engine_that_is_not_heard_makes_the_counters_of_all_unknown() -> None:
    fleet = Fleet()
    for n in range(3):
        fleet.engines(load(prompt_tokens_total=100.0 * n), load(prompt_tokens_total=100.0 * n))
        fleet.read()
        fleet.later(1.0)
    assert fleet.read()[SignalName.PREFILL_TOKENS_PER_S].value == pytest.approx(200.0, rel=0.01)
    fleet.engines(load(prompt_tokens_total=300.0), EngineLoad())
    assert fleet.read()[SignalName.PREFILL_TOKENS_PER_S].state is SignalState.MISSING
    fleet.later(20.0)
    assert fleet.read()[SignalName.PREFILL_TOKENS_PER_S].state is not SignalState.VALUE


def test_an_engine_that_is_started_anew_counts_from_zero() -> None:
    fleet = Fleet()
    for n in range(4):
        fleet.engines(load(prompt_tokens_total=5000.0 + 100.0 * n))
        fleet.read()
        fleet.later(1.0)
    for n in range(3):
        fleet.engines(load(prompt_tokens_total=100.0 * n), lives="j")
        found = fleet.read()[SignalName.PREFILL_TOKENS_PER_S]
        assert 0.0 <= found.value <= 101.0
        fleet.later(1.0)


def test_gpu_utilization_is_that_of_its_own_gpus() -> None:
    fleet = Fleet()
    gpus = tuple(Gpu(uuid=f"GPU-{n}", index=n, utilization=0.2 * n) for n in range(4))
    fleet.engines(load(), load(), gpus=gpus)
    assert fleet.read()[SignalName.GPU_UTILIZATION].value == pytest.approx(0.1)
    fleet.engines(load(), load(), gpus=(gpus[0], Gpu(uuid="GPU-1", index=1)))
    assert fleet.read()[SignalName.GPU_UTILIZATION].state is SignalState.MISSING


def test_what_is_gone_is_forgotten() -> None:
    fleet = Fleet()
    fleet.router("r1", demand(arrivals_total=1))
    fleet.engines(load(prompt_tokens_total=1.0, generation_tokens_total=1.0))
    fleet.signals.forget((), ())
    kept = (fleet.signals._seen, fleet.signals._arrivals, fleet.signals._prompt, fleet.signals._generated)
    assert all(not one for one in kept)
