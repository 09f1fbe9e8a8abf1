"""Where replicas go when GPUs are ill, and what central shows of them."""

from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from supervisord_cp.builtin.placers.spread import spread
from supervisord_cp.central.capacity import capacities
from supervisord_cp.central.metrics import Metrics
from supervisord_cp.central.views import gpus, status
from supervisord_cp.core.scaling.placement import NodeCapacity, Place, place
from supervisord_cp.core.scaling.reconcile import plan
from supervisord_cp.core.scaling.room import Wanted
from supervisord_cp.model.assignment import Assignment, Leave, Leaving
from supervisord_cp.model.gpu import Gpu, GpuHealth, GpuSigns, Holder
from supervisord_cp.model.instance import InstanceState
from supervisord_cp.model.launch import EngineKind, LaunchSpec, RunState, revision_of
from supervisord_cp.model.node import NodeInventory, NodeReport
from supervisord_cp.model.reason import Reason, ReasonCode, render
from supervisord_cp.model.scaling import Action, Retire, Start
from tests.central.fleet import World, deployment
from tests.fakes.gpu import gpu

SPEC = LaunchSpec(engine=EngineKind.FAKE, model="m", served_names=("m",))
ILL = {"GPU-0": GpuHealth.QUARANTINED}


def node(*devices: str, name: str = "a", **fields: object) -> NodeCapacity:
    return NodeCapacity(node=name, devices=devices, **fields)


def assigned(*devices: str, number: int = 0, **fields: object) -> Assignment:
    return Assignment(
        id=f"chat-{number}",
        deployment="chat",
        node="a",
        devices=devices,
        revision=revision_of(SPEC),
        **fields,
    )


def planned(
    have: Sequence[Assignment],
    states: dict[str, InstanceState],
    *nodes: NodeCapacity,
    replicas: int = 1,
    spec: LaunchSpec = SPEC,
) -> tuple[Action, ...]:
    return plan(
        [Wanted(deployment="chat", replicas=replicas, spec=spec)], have, states, nodes, spread
    ).actions


def test_suspect_gpus_are_taken_when_there_is_nothing_better() -> None:
    doubtful = node(doubtful=("GPU-1",))
    better = node("GPU-2", name="b")
    assert place("chat", SPEC, (), [doubtful, better], spread) == Place(node="b", devices=("GPU-2",))
    assert place("chat", SPEC, (), [doubtful], spread) == Place(node="a", devices=("GPU-1",))
    group = replace(SPEC, gpus=2)
    mixed = node("GPU-0", doubtful=("GPU-1",))
    assert place("chat", group, (), [mixed], spread) == Place(node="a", devices=("GPU-0", "GPU-1"))
    none = place("chat", replace(SPEC, gpus=3), (), [mixed], spread)
    assert isinstance(none, Reason)
    assert none.code is ReasonCode.NO_FREE_DEVICE


def test_mig_devices_make_no_groups() -> None:
    cut = node("MIG-x", "MIG-y", "GPU-0", "GPU-1")
    assert place("chat", SPEC, (), [cut], spread) == Place(node="a", devices=("MIG-x",))
    group = replace(SPEC, gpus=2)
    assert place("chat", group, (), [cut], spread) == Place(node="a", devices=("GPU-0", "GPU-1"))
    none = place("chat", group, (), [node("MIG-x", "MIG-y")], spread)
    assert render(none).startswith("no free device: 2 needed")  # type: ignore[arg-type]


@pytest.mark.parametrize("state", [InstanceState.BACKOFF, InstanceState.GATED, InstanceState.DEGRADED, None])
def test_a_replica_that_cannot_start_on_its_ill_gpu_goes_to_another(state: InstanceState | None) -> None:
    states = {} if state is None else {"chat-0": state}
    where = node("GPU-1", taken=frozenset({"GPU-0"}), ill=ILL)
    start, retire = planned([assigned("GPU-0")], states, where)
    assert isinstance(start, Start)
    assert (start.instance, start.devices) == ("chat-1", ("GPU-1",))
    assert isinstance(retire, Retire)
    assert (retire.instance, render(retire.reason)) == ("chat-0", "its GPU GPU-0 is quarantined")


@pytest.mark.parametrize("state", [InstanceState.READY, InstanceState.UNKNOWN, InstanceState.SLEEPING])
def test_one_that_may_serve_is_left_alone(state: InstanceState) -> None:
    where = node("GPU-1", taken=frozenset({"GPU-0"}), ill=ILL)
    assert planned([assigned("GPU-0")], {"chat-0": state}, where) == ()


def test_without_an_elsewhere_it_stays_and_waits() -> None:
    where = node(taken=frozenset({"GPU-0"}), ill=ILL)
    assert planned([assigned("GPU-0")], {"chat-0": InstanceState.BACKOFF}, where) == ()


@pytest.mark.parametrize(
    "fields",
    [
        {"run": RunState.STOPPED},
        {"leaving": Leaving(to=Leave.RESTART)},
        {"leaving": Leaving(to=Leave.REMOVE)},
        {"lost": True},
    ],
)
def test_what_is_held_leaving_or_lost_does_not_move(fields: dict[str, object]) -> None:
    where = node("GPU-1", taken=frozenset({"GPU-0"}), ill=ILL)
    replicas = int(assigned("GPU-0", **fields).counts)
    assert (
        planned([assigned("GPU-0", **fields)], {"chat-0": InstanceState.BACKOFF}, where, replicas=replicas)
        == ()
    )


def test_a_group_moves_when_one_of_its_gpus_is_ill() -> None:
    group = replace(SPEC, gpus=2)
    have = replace(assigned("GPU-0", "GPU-1"), revision=revision_of(group))
    where = node("GPU-2", "GPU-3", taken=frozenset({"GPU-0", "GPU-1"}), ill={"GPU-1": GpuHealth.LOST})
    start, retire = planned([have], {"chat-0": InstanceState.CRASHED}, where, spec=group)
    assert isinstance(start, Start)
    assert start.devices == ("GPU-2", "GPU-3")
    assert isinstance(retire, Retire)
    assert retire.reason.params == {"gpu": "GPU-1", "health": "lost"}


def test_the_same_gpu_name_on_another_node_means_nothing() -> None:
    here = node("GPU-1", taken=frozenset({"GPU-0"}))
    assert (
        planned([assigned("GPU-0")], {"chat-0": InstanceState.BACKOFF}, here, node(name="b", ill=ILL)) == ()
    )


def world_with(*cards: Gpu) -> World:
    world = World(deployment(replicas=1))
    inventory = NodeInventory(node="a", session="s", device="cuda")
    world.controller.agent_connected(inventory)
    assert world.controller.report(NodeReport(node="a", sequence=1, full=True, gpus=cards))
    return world


LOST = replace(
    gpu(3),
    health=GpuHealth.LOST,
    health_reason=Reason(code=ReasonCode.GPU_XID, params={"xid": 79, "meaning": "fallen off the bus"}),
    health_age_ms=61_000,
    signs=GpuSigns(xids={79: 1, 31: 4}),
)


def test_capacity_is_by_health() -> None:
    stranger = Holder(pid=1, owner="alice", command="train", bytes=20 * 2**30)
    world = world_with(
        gpu(0),
        replace(gpu(1), health=GpuHealth.SUSPECT),
        replace(gpu(2), health=GpuHealth.QUARANTINED),
        LOST,
        replace(gpu(4), health=GpuHealth.UNKNOWN),
        replace(gpu(5), holders=(stranger,)),
        replace(gpu(6), health=GpuHealth.SUSPECT, holders=(stranger,)),
    )
    (capacity,) = capacities(world.controller.nodes, world.controller.memory, world.controller.clock.now())
    assert capacity.devices == (gpu(0).uuid,)
    assert capacity.doubtful == (gpu(1).uuid,)
    assert capacity.ill == {gpu(2).uuid: GpuHealth.QUARANTINED, gpu(3).uuid: GpuHealth.LOST}


@pytest.mark.asyncio
async def test_what_is_wrong_is_shown_and_counted() -> None:
    world = world_with(gpu(0), LOST)
    well, lost = gpus(world.controller)
    assert (well["health"], well["health_reason"], well["xids"]) == ("healthy", None, {})
    assert (lost["health"], lost["health_reason"], lost["health_age_s"]) == ("lost", "gpu_xid", 61.0)
    assert (lost["health_message"], lost["xids"]) == ("Xid 79: fallen off the bus", {"31": 4, "79": 1})
    assert "a: GPU 3 is lost (Xid 79: fallen off the bus)" in status(world.controller)["problems"]
    page = (await Metrics(world.controller).page({})).decode()
    labels = f'gpu="3",node="a",uuid="{gpu(3).uuid}"'
    assert f'supervisord_cp_gpu_health{{gpu="3",node="a",state="lost",uuid="{gpu(3).uuid}"}} 1.0' in page
    assert f'supervisord_cp_gpu_health{{gpu="3",node="a",state="healthy",uuid="{gpu(3).uuid}"}} 0.0' in page
    assert f'supervisord_cp_gpu_xid_errors_total{{{labels},xid="79"}} 1.0' in page
