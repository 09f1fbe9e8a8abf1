"""Placement: measured memory, room that is reserved, and what would have to change for a place."""

import pytest
from msgspec.structs import replace

from supervisord_cp.builtin.placers.spread import spread
from supervisord_cp.core.scaling.arbitrate import Claim, Tenant, preempt
from supervisord_cp.core.scaling.drain import next_turns
from supervisord_cp.core.scaling.placement import DeviceMemory, NodeCapacity, Place, place
from supervisord_cp.core.scaling.reconcile import plan
from supervisord_cp.core.scaling.room import Wanted
from supervisord_cp.core.scaling.ways import ways
from supervisord_cp.model.assignment import Assignment, Leave, Leaving
from supervisord_cp.model.gpu import GpuHealth
from supervisord_cp.model.instance import InstanceState
from supervisord_cp.model.launch import EngineKind, LaunchSpec, revision_of
from supervisord_cp.model.reason import Reason, ReasonCode, render
from supervisord_cp.model.scaling import Start

GIB = 2**30
VLLM = LaunchSpec(engine=EngineKind.VLLM, model="m", served_names=("m",))
PAIR = replace(VLLM, gpus=2)
HALF = replace(VLLM, args={"gpu-memory-utilization": 0.5})
READY = InstanceState.READY


def node(name: str, free: list[int] | None = None, *, gpus: int = 2, **fields: object) -> NodeCapacity:
    """A node with GPUs of 80 GiB, and of each the GiB that are free; None: nothing was measured."""
    uuids = tuple(f"GPU-{name}-{n}" for n in range(gpus if free is None else len(free)))
    memory = {
        uuid: DeviceMemory(total=80 * GIB, used=(80 - gib) * GIB)
        for uuid, gib in zip(uuids, free or (), strict=False)
    }
    given: dict = {"devices": uuids, "memory": memory, "executables": ("vllm",), **fields}
    return NodeCapacity(node=name, **given)


def where(found: Place | Reason) -> str:
    return found.devices[0] if isinstance(found, Place) else found.code.value


@pytest.mark.parametrize(
    ("spec", "nodes", "expected"),
    [
        (VLLM, [node("a", [80, 80])], "GPU-a-0"),
        (VLLM, [node("a", [71, 80])], "GPU-a-1"),
        (VLLM, [node("a", [72, 80])], "GPU-a-0"),
        (VLLM, [node("a", [10, 10]), node("b", [10, 75])], "GPU-b-1"),
        (VLLM, [node("a")], "GPU-a-0"),
        (HALF, [node("a", [30, 41])], "GPU-a-1"),
        (HALF, [node("a", [30, 39])], "no_free_memory"),
        (PAIR, [node("a", [80, 10, 80]), node("b", [80, 10])], "GPU-a-0"),
        (PAIR, [node("a", [80, 10]), node("b", [10, 80])], "no_free_memory"),
        (PAIR, [node("a", [80]), node("b", [80])], "no_free_device"),
        (replace(VLLM, engine=EngineKind.FAKE), [node("a", [1])], "GPU-a-0"),
    ],
)
def test_a_replica_goes_where_its_memory_is_free(spec: LaunchSpec, nodes: list, expected: str) -> None:
    assert where(place("chat", spec, (), nodes, spread)) == expected


def test_a_group_gets_the_devices_that_fit() -> None:
    assert place("chat", PAIR, (), [node("a", [80, 10, 80])], spread) == Place(
        node="a", devices=("GPU-a-0", "GPU-a-2")
    )


def test_the_nearest_device_is_named_when_no_memory_is_free() -> None:
    found = place("chat", VLLM, (), [node("a", [10, 40]), node("b", [30, 1])], spread)
    assert isinstance(found, Reason)
    assert render(found) == "no free GPU has the memory: 72.0 GiB needed, 40.0 GiB free on GPU-a-1 of a"


BUSY = frozenset({"GPU-a-0", "GPU-a-1"})


@pytest.mark.parametrize(
    ("spec", "patterns", "nodes", "told"),
    [
        (VLLM, (), [node("a", cordoned=True)], ["on a, if it were not cordoned"]),
        (VLLM, ("gpu-*",), [node("a")], ["on a, if `nodes` allowed it"]),
        (
            VLLM,
            (),
            [node("a", gpus=0, foreign=("GPU-a-7",))],
            ["on a, if strangers left GPU-a-7"],
        ),
        (VLLM, (), [node("a", gpus=0, ill={"GPU-a-7": GpuHealth.LOST})], ["on a, if GPU-a-7 were well"]),
        (VLLM, (), [node("a", [40])], ["on a, if 72.0 GiB were free on each of GPU-a-0"]),
        (
            replace(VLLM, executable="/opt/x"),
            (),
            [node("a")],
            ["on a, if its [agent.allow] executables had /opt/x"],
        ),
        (PAIR, (), [node("a", taken=frozenset({"GPU-a-1"}))], ["on a, if 1 more of its 2 devices were free"]),
        (VLLM, (), [node("a", taken=BUSY), node("b", cordoned=True)], ["on b, if it were not cordoned"]),
        (VLLM, (), [], ["if a node connected that has 1 devices"]),
        (replace(VLLM, gpus=8), (), [node("a")], ["if a node connected that has 8 devices"]),
    ],
)
def test_what_would_have_to_change_for_a_place(spec, patterns, nodes, told) -> None:
    assert isinstance(place("chat", spec, patterns, nodes, spread), Reason)
    assert [render(way) for way in ways("chat", spec, patterns, nodes, spread)] == told


# room that is made for somebody


def assigned(name: str, device: int, where: str = "a", leaving: Leaving | None = None) -> Assignment:
    return Assignment(
        id=name,
        deployment=name.rpartition("-")[0],
        node=where,
        devices=(f"GPU-{where}-{device}",),
        revision=revision_of(VLLM),
        leaving=leaving,
    )


def yielding(*, waiting: bool = False) -> Leaving:
    reason = Reason(code=ReasonCode.PREEMPTED, params={"deployment": "vip"})
    return Leaving(to=Leave.REMOVE, reason=reason, waiting=waiting)


def test_room_that_is_being_made_is_for_whom_it_is_made() -> None:
    """One GPU is free, the other one gets free: the one that yields must not come back onto the first."""
    have = [assigned("low-0", 0, leaving=yielding())]
    nodes = [node("a", taken=frozenset({"GPU-a-0"}))]
    wanted = [
        Wanted(deployment="vip", replicas=1, spec=PAIR),
        Wanted(deployment="low", replicas=1, spec=VLLM),
    ]
    made = plan(wanted, have, {"low-0": READY}, nodes, spread)
    assert made.actions == ()
    assert [item.deployment for item in made.unplaced] == ["vip", "low"]
    gone = plan(wanted, [], {}, [node("a")], spread)
    assert [(a.deployment, a.devices) for a in gone.actions if isinstance(a, Start)] == [
        ("vip", ("GPU-a-0", "GPU-a-1"))
    ]


def test_the_one_that_yields_may_go_to_another_node() -> None:
    have = [assigned("low-0", 0, leaving=yielding(waiting=True))]
    nodes = [node("a", taken=frozenset({"GPU-a-0"})), node("b", gpus=1)]
    wanted = [
        Wanted(deployment="vip", replicas=1, spec=PAIR),
        Wanted(deployment="low", replicas=1, spec=VLLM),
    ]
    made = plan(wanted, have, {"low-0": READY}, nodes, spread)
    assert [(a.instance, a.node) for a in made.actions if isinstance(a, Start)] == [("low-1", "b")]


@pytest.mark.parametrize(
    ("room", "serving", "waits"), [(True, True, True), (False, True, False), (True, False, False)]
)
def test_the_one_that_yields_serves_on_where_a_successor_finds_a_place(room, serving, waits) -> None:
    tenants = [Tenant(assignment=assigned("low-0", 0), serving=serving, ready_s=1000.0)]
    (made,) = preempt(
        [Wanted(deployment="vip", replicas=1, spec=PAIR)],
        tenants,
        [node("a", taken=frozenset({"GPU-a-0"}))],
        {"vip": Claim(priority=1)},
        lambda deployment, where: room,
    )
    assert (made.instance, made.wait) == ("low-0", waits)


@pytest.mark.parametrize(
    ("successor", "goes"),
    [
        (None, False),
        (InstanceState.GATED, False),
        (InstanceState.STARTING, False),
        (InstanceState.READY, True),
        (InstanceState.BACKOFF, True),
        (InstanceState.CRASHED, True),
    ],
)
def test_it_goes_when_its_successor_is_ready_or_has_failed(successor, goes) -> None:
    have = [assigned("low-0", 0, leaving=yielding(waiting=True)), assigned("low-1", 0, "b")]
    states = {"low-0": READY} | ({} if successor is None else {"low-1": successor})
    assert next_turns(have, states) == (["low-0"] if goes else [])


def test_one_that_does_not_serve_goes_at_once() -> None:
    have = [assigned("low-0", 0, leaving=yielding(waiting=True)), assigned("low-1", 0, "b")]
    assert next_turns(have, {"low-0": InstanceState.BACKOFF}) == ["low-0"]
