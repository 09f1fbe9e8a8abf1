"""What a start waits for on a GPU, in the words that users read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from supervisord_cp.core.instances.admission import Occupancy, admission
from supervisord_cp.model.base import DeviceId, InstanceId
from supervisord_cp.model.gpu import Gpu, GpuHealth, Holder
from supervisord_cp.model.launch import EngineKind
from supervisord_cp.model.reason import NO_REASON, Reason, ReasonCode, render
from tests.core.instances_kit import desired
from tests.fakes.gpu import gpu

GIB = 2**30


def vllm(name: str = "chat-0", *devices: DeviceId, **args: float) -> object:
    return desired(
        name,
        engine=EngineKind.VLLM,
        devices=devices or (gpu(0).uuid,),
        args={key.replace("_", "-"): value for key, value in args.items()},
    )


def judge(*gpus: Gpu, wanted: object = None, busy: dict[DeviceId, InstanceId] | None = None) -> Reason:
    return admission(
        wanted or vllm(),
        occupancy=Occupancy(devices=busy or {}, loading=0),
        known_devices=[one.uuid for one in gpus],
        gpus={one.uuid: one for one in gpus},
        max_loading=4,
    )


def test_memory_that_strangers_hold_is_waited_for_and_they_are_named() -> None:
    holders = (
        Holder(pid=4711, owner="alice", command="python train.py", bytes=20 * GIB),
        Holder(pid=12, owner="", command="", bytes=GIB, instance="chat-7"),
    )
    reason = judge(replace(gpu(0), memory_used=21 * GIB, holders=holders))
    assert reason.code is ReasonCode.AWAITING_MEMORY
    assert render(reason) == (
        "waiting for 72.0 GiB of GPU memory, 59.0 GiB free; "
        "held by pid 4711 (alice, 20.0 GiB), chat-7 (?, 1.0 GiB)"
    )
    assert judge(replace(gpu(0), memory_used=21 * GIB), wanted=vllm(gpu_memory_utilization=0.7)) == NO_REASON


def test_memory_that_nobody_is_seen_to_hold() -> None:
    assert render(judge(gpu(0, used=21 * GIB))).endswith("held by no process that the driver lists")


@pytest.mark.parametrize("health", [GpuHealth.QUARANTINED, GpuHealth.LOST])
def test_no_engine_is_started_on_a_gpu_that_is_ill(health: GpuHealth) -> None:
    why = Reason(code=ReasonCode.GPU_XID, params={"xid": 79, "meaning": "fallen off the bus"})
    reason = judge(replace(gpu(0), health=health, health_reason=why))
    assert reason.code is ReasonCode.AWAITING_DEVICE
    assert render(reason) == f"waiting for {gpu(0).uuid}, which is {health} (Xid 79: fallen off the bus)"


@pytest.mark.parametrize("health", [GpuHealth.SUSPECT, GpuHealth.UNKNOWN])
def test_a_doubt_does_not_hold_a_start_up(health: GpuHealth) -> None:
    assert judge(replace(gpu(0), health=health)) == NO_REASON


def test_old_figures_do_not_hold_a_start_up() -> None:
    assert judge(replace(gpu(0, used=70 * GIB), health=GpuHealth.UNKNOWN)) == NO_REASON


def test_each_gpu_of_a_group_counts() -> None:
    ill = replace(gpu(1), health=GpuHealth.QUARANTINED)
    group = vllm("chat-0", gpu(0).uuid, gpu(1).uuid)
    assert judge(gpu(0), ill, wanted=group).code is ReasonCode.AWAITING_DEVICE
    assert judge(gpu(0), gpu(1, used=70 * GIB), wanted=group).code is ReasonCode.AWAITING_MEMORY
    assert judge(gpu(0), gpu(1), wanted=group) == NO_REASON


SHARES = st.floats(0.1, 1.0)
STEPS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1), SHARES, st.booleans()), max_size=60)


@given(STEPS, st.integers(0, 60))
def test_never_more_memory_is_granted_than_the_card_has(
    steps: list[tuple[int, int, float, bool]], foreign_gib: int
) -> None:
    """Instances come and go at random; memory of the gone stays in use for one more step."""
    total = 80 * GIB
    running: dict[str, tuple[int, float]] = {}
    lagging: list[tuple[int, float]] = []
    for number, device, share, leaves in steps:
        name = f"chat-{number}"
        if leaves:
            lagging = [running.pop(name)] if name in running else []
            continue
        used = [foreign_gib * GIB, 0]
        for where, granted in (*running.values(), *lagging):
            used[where] += int(granted * total)
        gpus = [replace(gpu(index), memory_used=used[index]) for index in range(2)]
        busy = {gpu(where).uuid: InstanceId(other) for other, (where, _) in running.items() if other != name}
        wanted = vllm(name, gpu(device).uuid, gpu_memory_utilization=share)
        if name not in running and judge(*gpus, wanted=wanted, busy=busy) == NO_REASON:
            running[name] = (device, share)
            assert used[device] + share * total <= total + 1
