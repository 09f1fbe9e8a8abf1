"""Reading the host."""

from pathlib import Path

import pytest

from supervisord_cp.adapters.host import CpuTimes, HostReader, utilization


def test_the_host_has_cores_memory_and_disk(tmp_path: Path) -> None:
    load = HostReader(tmp_path).read()
    assert load.cpu_count >= 1
    assert load.memory_total is not None
    assert load.memory_available is not None
    assert 0 < load.memory_available <= load.memory_total
    assert load.disk_free is not None
    assert load.disk_free > 0


def test_a_path_that_is_not_there_has_no_figure(tmp_path: Path) -> None:
    assert HostReader(tmp_path / "missing").read().disk_free is None


@pytest.mark.parametrize(
    ("idle", "expected"),
    [(10.0, 0.0), (7.5, 0.25), (0.0, 1.0), (10.01, 0.0)],
    ids=["idle", "some", "all", "rounding"],
)
def test_utilization_is_the_busy_share_of_the_time_between(idle: float, expected: float) -> None:
    before = CpuTimes(total=100.0, idle=50.0)
    after = CpuTimes(total=110.0, idle=50.0 + idle)
    assert utilization(before, after, otherwise=None) == expected


def test_without_time_between_the_figure_stays() -> None:
    moment = CpuTimes(total=100.0, idle=50.0)
    assert utilization(moment, moment, otherwise=None) is None
    assert utilization(moment, moment, otherwise=0.5) == 0.5
