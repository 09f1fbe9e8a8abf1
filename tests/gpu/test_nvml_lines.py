"""What lines of the probe add up to: a table of sweeps."""

import pytest

from supervisord_cp.adapters.nvml_lines import ProbeLine, Unreadable, Xid, fold, view
from supervisord_cp.adapters.nvml_probe import shown_command
from supervisord_cp.model.base import DeviceId
from supervisord_cp.model.gpu import Gpu, GpuHealth

A, B = DeviceId("GPU-a"), DeviceId("GPU-b")
MIG = DeviceId("MIG-x")


def test_ages_grow_from_the_moment_of_reading() -> None:
    known = fold({}, ProbeLine(gpus=(Gpu(uuid=A, index=0, age_ms=250),)), now=100.0)
    (one,) = view(known, now=102.0, stale_after_s=10.0)
    assert (one.age_ms, one.health) == (2250, GpuHealth.HEALTHY)


@pytest.mark.parametrize(("now", "health"), [(110.0, GpuHealth.HEALTHY), (110.001, GpuHealth.UNKNOWN)])
def test_a_sample_is_unknown_once_it_is_too_old(now: float, health: GpuHealth) -> None:
    known = fold({}, ProbeLine(gpus=(Gpu(uuid=A, index=0),)), now=100.0)
    assert view(known, now, stale_after_s=10.0)[0].health is health


def test_a_lost_gpu_stays_lost_however_old() -> None:
    known = fold({}, ProbeLine(gpus=(Gpu(uuid=A, index=0),)), now=0.0)
    known = fold(known, ProbeLine(unreadable=(Unreadable(index=0, health=GpuHealth.LOST),)), now=1.0)
    assert [one.health for one in view(known, 1000.0, 10.0)] == [GpuHealth.LOST]


def test_an_unreadable_gpu_takes_the_health_that_its_error_tells() -> None:
    known = fold({}, ProbeLine(gpus=(Gpu(uuid=A, index=0), Gpu(uuid=B, index=1))), now=0.0)
    line = ProbeLine(
        gpus=(Gpu(uuid=A, index=0),), unreadable=(Unreadable(index=1, health=GpuHealth.SUSPECT),)
    )
    assert [(one.uuid, one.health) for one in view(fold(known, line, 1.0), 1.0, 10.0)] == [
        (A, GpuHealth.HEALTHY),
        (B, GpuHealth.SUSPECT),
    ]


def test_mig_devices_go_away_when_unmade_but_not_with_a_lost_parent() -> None:
    known = fold({}, ProbeLine(gpus=(Gpu(uuid=MIG, index=0),), partitioned=(A,)), now=0.0)
    lost = fold(known, ProbeLine(unreadable=(Unreadable(index=0, health=GpuHealth.LOST),)), now=1.0)
    assert [(one.uuid, one.health) for one in view(lost, 1.0, 10.0)] == [(MIG, GpuHealth.LOST)]
    unmade = fold(known, ProbeLine(gpus=(Gpu(uuid=A, index=0),)), now=1.0)
    assert [one.uuid for one in view(unmade, 1.0, 10.0)] == [A]


def test_xids_add_up_for_the_gpu_that_had_them_and_for_what_is_cut_from_it() -> None:
    both = (Gpu(uuid=A, index=0), Gpu(uuid=MIG, index=1, parent=B))
    line = ProbeLine(gpus=both, partitioned=(B,), xids=(Xid(gpu=A, code=31), Xid(gpu=B, code=48)))
    known = fold(fold({}, line, now=0.0), line, now=1.0)
    assert {uuid: sample.gpu.signs.xids for uuid, sample in known.items()} == {A: {31: 2}, MIG: {48: 2}}
    quiet = fold(known, ProbeLine(gpus=both, partitioned=(B,)), now=2.0)
    assert quiet[A].gpu.signs.xids == {31: 2}


@pytest.mark.parametrize(
    ("argv", "shown"),
    [
        (["vllm", "serve", "m", "--api-key", "x"], "vllm serve m"),
        (["python", "-m", "train", "--token=x"], "python -m train"),
        (["VLLM::EngineCore"], "VLLM::EngineCore"),
        (["sh -c secret"], "sh"),
        (["evil\x1b[2J\udce9"], "evil?[2J?"),
        (["x" * 500], "x" * 120),
        (["python", "-m"], "python -m"),
        ([], ""),
    ],
)
def test_a_shown_command_ends_before_its_options_and_is_printable(argv: list[str], shown: str) -> None:
    assert shown_command(argv) == shown
