"""Whether a start may go ahead, and how long a failed one waits."""

from collections.abc import Mapping

import pytest

from supervisord_cp.core.instances.admission import Occupancy, admission
from supervisord_cp.core.instances.backoff import RETRIES, backoff_s
from supervisord_cp.model.base import DeviceId, InstanceId
from supervisord_cp.model.gpu import Gpu, GpuHealth
from supervisord_cp.model.instance import ExitCause
from supervisord_cp.model.launch import EngineKind
from supervisord_cp.model.reason import NO_REASON, Reason, ReasonCode, render
from tests.core.instances_kit import desired

GIB = 2**30
DEVICE = DeviceId("GPU-1")


def ask(
    *,
    engine: EngineKind = EngineKind.VLLM,
    args: Mapping[str, object] | None = None,
    used: Mapping[str, str] | None = None,
    loading: int = 0,
    known: tuple[str, ...] | None = ("GPU-1", "GPU-2"),
    gpu: Gpu | None = None,
    max_loading: int = 1,
) -> Reason:
    devices = {DeviceId(device): InstanceId(name) for device, name in (used or {}).items()}
    return admission(
        desired(devices=(DEVICE,), engine=engine, args=dict(args or {})),
        occupancy=Occupancy(devices=devices, loading=loading),
        known_devices=None if known is None else tuple(map(DeviceId, known)),
        gpus={DEVICE: gpu} if gpu is not None else {},
        max_loading=max_loading,
    )


def card(used: float | None, total: float | None = 80.0, health: GpuHealth = GpuHealth.HEALTHY) -> Gpu:
    def gib(amount: float | None) -> int | None:
        return None if amount is None else int(amount * GIB)

    return Gpu(uuid=DEVICE, index=0, memory_total=gib(total), memory_used=gib(used), health=health)


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        (ask(), ""),
        (ask(used={"GPU-2": "chat-1", "GPU-1": "chat-0"}), ""),
        (ask(used={"GPU-1": "chat-1"}), "waiting for GPU-1, which chat-1 still uses"),
        (ask(known=("GPU-2",)), "waiting for GPU-1, which this node does not have"),
        (ask(known=None), "waiting for GPU-1: the GPU driver does not answer"),
        (ask(gpu=card(0.0, health=GpuHealth.LOST)), "waiting for GPU-1, which is lost"),
        (ask(loading=1), "waiting for its turn: this node starts 1 at a time"),
        (ask(loading=1, max_loading=2), ""),
        (ask(gpu=card(8.0)), ""),
        (
            ask(gpu=card(8.5)),
            "waiting for 72.0 GiB of GPU memory, 71.5 GiB free; held by no process that the driver lists",
        ),
        (ask(gpu=card(40.0), args={"gpu-memory-utilization": 0.5}), ""),
        (
            ask(gpu=card(41.0), args={"gpu-memory-utilization": 0.5}),
            "waiting for 40.0 GiB of GPU memory, 39.0 GiB free; held by no process that the driver lists",
        ),
        (ask(gpu=card(None)), ""),
        (ask(gpu=card(79.0, total=None)), ""),
        (ask(gpu=card(79.0), engine=EngineKind.COMMAND), ""),
        (ask(gpu=card(79.0), args={"gpu-memory-utilization": "half"}), ""),
    ],
)
def test_what_a_start_waits_for(reason: Reason, text: str) -> None:
    assert render(reason) == text
    assert (reason == NO_REASON) == (text == "")


def test_the_holder_of_memory_is_not_the_reason_when_the_device_is_taken() -> None:
    assert ask(used={"GPU-1": "chat-1"}, gpu=card(79.0)).code is ReasonCode.AWAITING_DEVICE


@pytest.mark.parametrize("cause", list(ExitCause))
def test_backoff_grows_to_its_cap_and_is_jittered(cause: ExitCause) -> None:
    waits = [backoff_s(cause, failures, 1.0) for failures in range(1, 40)]
    assert waits == sorted(waits)
    assert waits[-1] == waits[-2] <= 3600.0
    assert [backoff_s(cause, failures, 0.0) for failures in range(1, 40)] == [wait / 2 for wait in waits]
    assert waits[0] > 0


def test_backoff_by_cause() -> None:
    assert backoff_s(ExitCause.KILLED, 1, 1.0) == 1.0
    assert [backoff_s(ExitCause.UNKNOWN, failures, 1.0) for failures in (0, 1, 2, 3, 9, 10, 10_000)] == [
        1.0,
        1.0,
        2.0,
        4.0,
        256.0,
        300.0,
        300.0,
    ]
    quickest = min(RETRIES, key=lambda cause: RETRIES[cause].first_s)
    assert quickest is ExitCause.PORT_TAKEN
