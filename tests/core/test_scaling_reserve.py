"""Which replicas sleep, wake and end, by tables."""

import pytest
from msgspec.structs import replace

from supervisord_cp.builtin.placers.spread import spread
from supervisord_cp.core.scaling.placement import DeviceMemory, NodeCapacity
from supervisord_cp.core.scaling.reconcile import Wanted, plan
from supervisord_cp.core.scaling.reserve import Reserve
from supervisord_cp.model.assignment import Assignment, Leave, Leaving
from supervisord_cp.model.base import DeviceId, InstanceId
from supervisord_cp.model.gpu import GpuHealth
from supervisord_cp.model.instance import InstanceState
from supervisord_cp.model.launch import EngineKind, LaunchSpec, RunState, SleepLevel, revision_of
from supervisord_cp.model.reason import ReasonCode, render
from supervisord_cp.model.scaling import Retire, ScalePlan, Start, Wake

CHAT = LaunchSpec(engine=EngineKind.VLLM, model="chat", served_names=("chat",), sleep=SleepLevel.LEVEL1)
CODE = replace(CHAT, model="code", served_names=("code",))
GIB = 2**30


def replica(name: str, device: str = "gpu-0", *, spec: LaunchSpec = CHAT, **fields: object) -> Assignment:
    return Assignment(
        id=name,
        deployment=name.rpartition("-")[0],
        node="a",
        devices=(device,),
        revision=revision_of(spec),
        spec=spec,
        **fields,
    )


def asleep(name: str, device: str = "gpu-0", *, spec: LaunchSpec = CHAT) -> Assignment:
    return replica(name, device, spec=spec, run=RunState.SLEEPING)


def gpus(count: int = 2, **fields: object) -> NodeCapacity:
    devices = tuple(DeviceId(f"gpu-{n}") for n in range(count))
    return NodeCapacity(node="a", devices=devices, executables=("vllm",), **fields)


def sleeper_on(*devices: str, taken: tuple[str, ...] = (), **fields: object) -> NodeCapacity:
    return gpus(asleep=frozenset(devices), taken=frozenset(taken), **fields)


def want(replicas: int, *, most: int = 2, spec: LaunchSpec = CHAT, name: str = "chat") -> Wanted:
    return Wanted(deployment=name, replicas=replicas, spec=spec, asleep=most - replicas)


def made(
    wanted: list[Wanted],
    assignments: list[Assignment],
    node: NodeCapacity,
    states: dict[str, InstanceState] | None = None,
    reserve: Reserve | None = None,
) -> ScalePlan:
    seen = {a.id: InstanceState.SLEEPING if a.asleep else InstanceState.READY for a in assignments}
    able = Reserve(able={a.id for a in assignments})
    return plan(wanted, assignments, {**seen, **(states or {})}, [node], spread, reserve=reserve or able)


def told(plan: ScalePlan) -> list[tuple[str, str, bool | str]]:
    """What is done with whom; a retirement with whether it is sleep, or why it is the end."""
    out: list[tuple[str, str, bool | str]] = []
    for action in plan.actions:
        match action:
            case Start():
                out.append(("start", action.instance, ",".join(action.devices)))
            case Wake():
                out.append(("wake", action.instance, ""))
            case Retire():
                out.append(("sleep" if action.sleep else "end", action.instance, action.reason.code))
    return out


def test_what_is_not_needed_sleeps_as_far_as_there_are_beds() -> None:
    three = [replica(f"chat-{n}", f"gpu-{n}") for n in range(3)]
    plan = made([want(1, most=2)], three, gpus(3, taken=frozenset({"gpu-0", "gpu-1", "gpu-2"})))
    assert told(plan) == [("sleep", "chat-2", "not_needed"), ("end", "chat-1", "removed")]


def test_what_cannot_sleep_ends() -> None:
    plan = made([want(0)], [replica("chat-0")], gpus(), reserve=Reserve(able={InstanceId("chat-1")}))
    assert told(plan) == [("end", "chat-0", "removed")]


def test_waking_comes_before_starting() -> None:
    plan = made([want(2)], [asleep("chat-0")], sleeper_on("gpu-0"))
    assert told(plan) == [("wake", "chat-0", ""), ("start", "chat-1", "gpu-1")]


def test_one_that_is_about_to_sleep_is_called_back_first() -> None:
    draining = replica("chat-1", "gpu-1", leaving=Leaving(to=Leave.SLEEP))
    plan = made([want(1)], [asleep("chat-0"), draining], sleeper_on("gpu-0", taken=("gpu-1",)))
    assert told(plan) == [("wake", "chat-1", "")]


@pytest.mark.parametrize(
    "node",
    [
        gpus(1, taken=frozenset({"gpu-0"})),
        gpus(1, asleep=frozenset({"gpu-0"}), cordoned=True),
        gpus(1, asleep=frozenset({"gpu-0"}), cordoned_devices=frozenset({"gpu-0"})),
        gpus(0, ill={"gpu-0": GpuHealth.QUARANTINED}),
        replace(gpus(1, asleep=frozenset({"gpu-0"})), node="b"),
    ],
)
def test_it_does_not_wake_where_it_cannot(node: NodeCapacity) -> None:
    assert ("wake", "chat-0", "") not in told(made([want(1, most=2)], [asleep("chat-0")], node))


def test_two_on_one_gpu_do_not_both_wake() -> None:
    both = [asleep("chat-0"), asleep("code-0", spec=CODE)]
    plan = made([want(1), want(1, spec=CODE, name="code")], both, gpus(1, asleep=frozenset({"gpu-0"})))
    assert told(plan) == [("wake", "chat-0", "")]
    assert [(u.deployment, u.reason.code) for u in plan.unplaced] == [("code", ReasonCode.NO_FREE_DEVICE)]


def test_an_empty_gpu_is_taken_before_one_with_a_sleeper() -> None:
    wanted = [want(0), want(2, spec=CODE, name="code")]
    plan = made(wanted, [asleep("chat-0")], sleeper_on("gpu-0"))
    assert told(plan) == [("start", "code-0", "gpu-1"), ("start", "code-1", "gpu-0")]


@pytest.mark.parametrize(
    ("used", "ends"),
    [(2 * GIB, False), (8 * GIB, False), (9 * GIB, True), (None, False)],
)
def test_a_sleeper_ends_when_what_it_holds_is_needed(used: int | None, ends: bool) -> None:
    memory = {} if used is None else {"gpu-0": DeviceMemory(total=80 * GIB, used=used)}
    node = gpus(1, asleep=frozenset({"gpu-0"}), memory=memory)
    plan = made([want(0), want(1, spec=CODE, name="code")], [asleep("chat-0")], node)
    assert ("start", "code-0", "gpu-0") in told(plan)
    assert (("end", "chat-0", "memory_needed") in told(plan)) is ends
    assert all("?" not in render(a.reason) for a in plan.actions if isinstance(a, Retire))


def test_what_one_that_wakes_holds_is_not_in_its_way_but_what_others_hold_is() -> None:
    held = {"chat-0": 6 * GIB, "code-0": 6 * GIB}
    both = [asleep("chat-0"), asleep("code-0", spec=CODE)]
    wanted = [want(1), want(0, spec=CODE, name="code")]
    for used, ends in ((12 * GIB, False), (15 * GIB, True)):
        memory = {"gpu-0": DeviceMemory(total=80 * GIB, used=used, held=held)}
        plan = made(wanted, both, gpus(1, asleep=frozenset({"gpu-0"}), memory=memory))
        assert ("wake", "chat-0", "") in told(plan)
        assert (("end", "code-0", "memory_needed") in told(plan)) is ends


@pytest.mark.parametrize(
    ("one", "state", "slept_s", "ends"),
    [
        (asleep("chat-0"), InstanceState.SLEEPING, 59.0, None),
        (asleep("chat-0"), InstanceState.SLEEPING, 60.0, "slept_enough"),
        (asleep("chat-0"), InstanceState.STOPPED, 0.0, "removed"),
        (asleep("chat-0"), InstanceState.BACKOFF, 0.0, "removed"),
        (asleep("chat-0"), InstanceState.UNKNOWN, 0.0, None),
        (asleep("chat-0", spec=CODE), InstanceState.SLEEPING, 0.0, "replaced"),
        (replica("chat-0", leaving=Leaving(to=Leave.SLEEP)), InstanceState.READY, 0.0, None),
        (replace(asleep("chat-0"), lost=True), InstanceState.UNKNOWN, 99.0, None),
    ],
)
def test_the_end_of_sleep(one: Assignment, state: InstanceState, slept_s: float, ends: str | None) -> None:
    wanted = replace(want(0), sleep_s=60.0)
    reserve = Reserve(able={one.id}, slept_s={one.id: slept_s})
    plan = made([wanted], [one], sleeper_on("gpu-0"), {one.id: state}, reserve)
    assert told(plan) == ([] if ends is None else [("end", "chat-0", ends)])


def test_no_more_sleep_than_the_maximum_leaves_room_for() -> None:
    sleepers = [asleep(f"chat-{n}", f"gpu-{n}") for n in range(3)]
    plan = made([want(0, most=2)], sleepers, gpus(3, asleep=frozenset({"gpu-0", "gpu-1", "gpu-2"})))
    assert told(plan) == [("end", "chat-2", "removed")]


def test_a_sleeper_does_not_hold_up_a_roll_out() -> None:
    old = replace(CHAT, args={"max-model-len": 1})
    plan = made(
        [want(1)],
        [replica("chat-0", spec=old), asleep("chat-1", "gpu-1")],
        sleeper_on("gpu-1", taken=("gpu-0",)),
    )
    assert [name for name, _, _ in told(plan)] == ["start"]
