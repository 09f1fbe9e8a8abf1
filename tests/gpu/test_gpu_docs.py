"""What docs/gpus.md says of Xids and intervals is what the code does."""

import re

import pytest

from supervisord_cp.agent.release import PATIENCE_S, READING_S
from supervisord_cp.core.instances.gpu_health import DEFAULT_POLICY
from supervisord_cp.core.instances.xids import meaning_of
from supervisord_cp.model.gpu import GpuHealth
from tests.shape.sources import ROOT

PAGE = (ROOT / "docs/gpus.md").read_text()
CATALOG = range(1, 200)
"""Numbers that NVIDIA has given, and some that it has not."""


def listed(health: GpuHealth) -> set[int]:
    row = re.search(rf"^\| ([0-9, ]+) \| {health} \|$", PAGE, re.MULTILINE)
    assert row is not None
    return {int(number) for number in row[1].split(",")}


@pytest.mark.parametrize("health", [GpuHealth.QUARANTINED, GpuHealth.SUSPECT])
def test_the_tables_of_xids_are_those_of_the_code(health: GpuHealth) -> None:
    known = {
        xid
        for xid in CATALOG
        if meaning_of(xid).health is health and meaning_of(xid).words != meaning_of(-1).words
    }
    assert listed(health) == known


def test_the_intervals_are_those_of_the_code() -> None:
    policy = DEFAULT_POLICY
    assert f"healthy again after {policy.clean_s:.0f} s" in PAGE
    assert f"power brake for {policy.slowed_s:.0f} s" in PAGE
    assert f"until {policy.cool_s:.0f} s after it" in PAGE
    assert f"after {READING_S:.0f} s without\na reading, or after {PATIENCE_S:.0f} s" in PAGE
