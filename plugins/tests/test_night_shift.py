"""Run with `supervisord-cp policy test plugins/night_shift.py`."""

from datetime import UTC, datetime

import pytest
from night_shift import Params, is_night, night_shift

from supervisord_cp.policy.testing import assert_conforms, scale_view

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC).timestamp()
MIDNIGHT = datetime(2026, 3, 2, 0, tzinfo=UTC).timestamp()
PARAMS = Params(day_replicas=4, night_replicas=1, queued_per_replica=8)


@pytest.mark.parametrize(
    ("wall_s", "queued", "replicas"), [(NOON, 0, 4), (MIDNIGHT, 0, 1), (MIDNIGHT, 8, 2), (MIDNIGHT, 9, 3)]
)
def test_what_is_proposed(wall_s: float, queued: float, replicas: int) -> None:
    view = scale_view(wall_s=wall_s, signals={"queued": queued})
    assert night_shift(view, PARAMS).replicas == replicas


def test_it_does_not_guess() -> None:
    assert night_shift(scale_view(wall_s=None), PARAMS).replicas is None
    assert night_shift(scale_view(wall_s=MIDNIGHT), PARAMS).replicas is None


@pytest.mark.parametrize(("hour", "night"), [(21, False), (22, True), (0, True), (5, True), (6, False)])
def test_the_night_goes_over_midnight(hour: int, night: bool) -> None:
    assert is_night(hour, 22, 6) is night


def test_it_conforms() -> None:
    assert_conforms(night_shift)
