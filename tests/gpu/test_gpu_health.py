"""How well a GPU is: a table of signs, and their ends."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from supervisord_cp.core.instances.gpu_health import DEFAULT_POLICY, GpuRecord, judge, judged, resumed
from supervisord_cp.core.instances.xids import meaning_of
from supervisord_cp.model.base import DeviceId
from supervisord_cp.model.gpu import Gpu, GpuHealth, GpuSigns, RecoveryAction, Slowdown
from supervisord_cp.model.reason import NO_REASON, ReasonCode, render

WELL = Gpu(uuid=DeviceId("GPU-a"), index=0, signs=GpuSigns(ecc_uncorrected=0, recovery=RecoveryAction.NONE))
CLEAN_S = DEFAULT_POLICY.clean_s


def with_signs(**signs: object) -> Gpu:
    return replace(WELL, signs=replace(WELL.signs, **signs))


def history(*samples: tuple[float, Gpu], record: GpuRecord | None = None) -> GpuRecord:
    """The record after samples with their moments."""
    for now, gpu in samples:
        record = judge(record, gpu, now)
    assert record is not None
    return record


def read(seconds: Iterable[int], gpu: Gpu) -> list[tuple[float, Gpu]]:
    return [(float(second), gpu) for second in seconds]


def test_without_a_bad_sign_it_is_healthy() -> None:
    record = history(*read(range(100), WELL))
    assert (record.health, record.reason, record.since) == (GpuHealth.HEALTHY, NO_REASON, 0.0)
    shown = judged(WELL, record, 100.0)
    assert (shown.health, shown.health_reason, shown.health_age_ms) == (GpuHealth.HEALTHY, NO_REASON, 100_000)


@pytest.mark.parametrize(
    ("signs", "health", "code"),
    [
        ({"xids": {79: 1}}, GpuHealth.QUARANTINED, ReasonCode.GPU_XID),
        ({"xids": {48: 1}}, GpuHealth.QUARANTINED, ReasonCode.GPU_XID),
        ({"xids": {94: 1}}, GpuHealth.SUSPECT, ReasonCode.GPU_XID),
        ({"xids": {31: 7, 43: 1, 45: 1, 63: 1}}, GpuHealth.HEALTHY, ReasonCode.NONE),
        ({"xids": {31: 7, 94: 1, 48: 1}}, GpuHealth.QUARANTINED, ReasonCode.GPU_XID),
        ({"xids": {999: 1}}, GpuHealth.SUSPECT, ReasonCode.GPU_XID),
        ({"ecc_uncorrected": 1}, GpuHealth.SUSPECT, ReasonCode.GPU_ECC),
        ({"remap_pending": True}, GpuHealth.SUSPECT, ReasonCode.GPU_REMAP_PENDING),
        ({"remap_failed": True}, GpuHealth.QUARANTINED, ReasonCode.GPU_REMAP_FAILED),
        ({"recovery": RecoveryAction.GPU_RESET}, GpuHealth.QUARANTINED, ReasonCode.GPU_RECOVERY_ACTION),
        ({"recovery": RecoveryAction.NODE_REBOOT}, GpuHealth.QUARANTINED, ReasonCode.GPU_RECOVERY_ACTION),
        ({"recovery": RecoveryAction.DRAIN_P2P}, GpuHealth.SUSPECT, ReasonCode.GPU_RECOVERY_ACTION),
        ({"recovery": None, "ecc_uncorrected": None}, GpuHealth.HEALTHY, ReasonCode.NONE),
        ({"slowdowns": (Slowdown.HARDWARE_THERMAL,)}, GpuHealth.HEALTHY, ReasonCode.NONE),
    ],
)
def test_one_sign_after_good_ones(signs: dict[str, object], health: GpuHealth, code: ReasonCode) -> None:
    record = history((0.0, WELL), (1.0, with_signs(**signs)))
    assert (record.health, record.reason.code) == (health, code)
    assert record.since == (0.0 if health is GpuHealth.HEALTHY else 1.0)
    assert "?" not in render(record.reason)


@pytest.mark.parametrize(
    ("said", "shown", "code"),
    [
        (GpuHealth.LOST, GpuHealth.LOST, ReasonCode.GPU_LOST),
        (GpuHealth.QUARANTINED, GpuHealth.QUARANTINED, ReasonCode.GPU_RESET_REQUIRED),
        (GpuHealth.UNKNOWN, GpuHealth.UNKNOWN, ReasonCode.GPU_NOT_READ),
    ],
)
def test_what_the_calls_themselves_say(said: GpuHealth, shown: GpuHealth, code: ReasonCode) -> None:
    record = history((0.0, WELL), (1.0, replace(WELL, health=said)))
    assert (record.health, record.reason.code) == (shown, code)


@pytest.mark.parametrize("xid", [79, 94])
def test_it_is_healthy_again_after_a_clean_interval(xid: int) -> None:
    ill = with_signs(xids={xid: 1})
    record = history((0.0, WELL), (1.0, ill), (CLEAN_S + 0.9, ill))
    assert record.health is not GpuHealth.HEALTHY
    record = history((CLEAN_S + 1.0, ill), record=record)
    assert (record.health, record.reason) == (GpuHealth.HEALTHY, NO_REASON)


def test_another_event_within_the_interval_begins_it_anew() -> None:
    record = history((0.0, with_signs(xids={48: 1})), (CLEAN_S - 1, with_signs(xids={48: 2})))
    assert history((CLEAN_S + 1, with_signs(xids={48: 2})), record=record).health is GpuHealth.QUARANTINED
    assert record.quarantines == 1, "one quarantine, not two"


def test_each_quarantine_takes_twice_as_long_until_it_is_forgiven() -> None:
    first, second = with_signs(xids={48: 1}), with_signs(xids={48: 2})
    record = history((0.0, first), (CLEAN_S, first), (CLEAN_S + 1, second), (2 * CLEAN_S + 2, second))
    assert record.health is GpuHealth.QUARANTINED
    end = 3 * CLEAN_S + 1
    record = history((end, second), record=record)
    assert record.health is GpuHealth.HEALTHY
    later = end + DEFAULT_POLICY.forgive_s
    third = with_signs(xids={48: 3})
    record = history((later, third), (later + CLEAN_S, third), record=record)
    assert record.health is GpuHealth.HEALTHY


def test_a_condition_counts_as_long_as_it_lasts() -> None:
    wants_reset = with_signs(recovery=RecoveryAction.GPU_RESET)
    record = history((0.0, wants_reset), (10 * CLEAN_S, wants_reset), (10 * CLEAN_S + 1, WELL))
    assert record.health is GpuHealth.QUARANTINED
    assert history((11 * CLEAN_S, WELL), record=record).health is GpuHealth.HEALTHY


def test_a_gpu_that_comes_back_is_not_trusted_at_once() -> None:
    lost = replace(WELL, health=GpuHealth.LOST)
    record = history((0.0, WELL), (1.0, lost), (5 * CLEAN_S, lost), (5 * CLEAN_S + 1, WELL))
    assert (record.health, record.reason.code) == (GpuHealth.QUARANTINED, ReasonCode.GPU_LOST)
    assert history((6 * CLEAN_S, WELL), record=record).health is GpuHealth.HEALTHY


def test_the_event_is_the_reason_of_what_follows_from_it() -> None:
    fallen = with_signs(xids={79: 1})
    gone = replace(fallen, health=GpuHealth.LOST)
    record = history((0.0, WELL), (1.0, fallen), (2.0, gone))
    assert (record.health, record.reason.params["xid"]) == (GpuHealth.LOST, 79)
    other_way_round = history((0.0, WELL), (1.0, replace(WELL, health=GpuHealth.LOST)), (2.0, gone))
    assert other_way_round.reason.params["xid"] == 79


def test_time_in_which_it_cannot_be_read_is_no_clean_time() -> None:
    fallen = with_signs(xids={48: 1})
    unread = replace(fallen, health=GpuHealth.UNKNOWN)
    record = history((0.0, fallen), (CLEAN_S - 1, unread), (CLEAN_S + 1, fallen))
    assert record.health is GpuHealth.QUARANTINED
    record = history((0.0, fallen), (5 * CLEAN_S, unread), (5 * CLEAN_S + 1, fallen))
    assert record.health is GpuHealth.QUARANTINED
    assert history((6 * CLEAN_S, fallen), record=record).health is GpuHealth.HEALTHY


def test_an_unread_gpu_with_old_bad_signs_is_unknown_not_ill() -> None:
    unread = replace(with_signs(remap_failed=True), health=GpuHealth.UNKNOWN)
    assert history((0.0, unread)).health is GpuHealth.UNKNOWN


def test_memory_errors_from_before_we_looked_are_no_news_xids_are() -> None:
    assert history((0.0, with_signs(ecc_uncorrected=5))).health is GpuHealth.HEALTHY
    assert history((0.0, with_signs(xids={79: 1}))).health is GpuHealth.QUARANTINED


def test_counters_that_begin_anew_are_no_errors() -> None:
    record = history((0.0, WELL), (1.0, with_signs(ecc_uncorrected=3)), (2 * CLEAN_S, WELL))
    assert record.health is GpuHealth.HEALTHY
    assert history((2 * CLEAN_S + 1, with_signs(ecc_uncorrected=1)), record=record).health is (
        GpuHealth.SUSPECT
    )


def test_slowing_down_counts_when_it_lasts_and_ends_soon_after_it() -> None:
    hot = with_signs(slowdowns=(Slowdown.HARDWARE_THERMAL, Slowdown.POWER_BRAKE))
    record = history(*read(range(30), hot))
    assert record.health is GpuHealth.HEALTHY
    record = history((30.0, hot), (500.0, hot), record=record)
    assert (record.health, record.since) == (GpuHealth.SUSPECT, 30.0)
    assert render(record.reason) == "slowed down: hardware thermal, power brake"
    assert history((559.0, WELL), record=record).health is GpuHealth.SUSPECT
    assert history((560.0, WELL), record=record).health is GpuHealth.HEALTHY


def test_a_moment_of_heat_now_and_then_is_nothing() -> None:
    hot = with_signs(slowdowns=(Slowdown.SOFTWARE_THERMAL,))
    moments = [(float(second), WELL if second % 29 == 0 else hot) for second in range(600)]
    assert history(*moments).health is GpuHealth.HEALTHY


def test_the_next_agent_goes_on_with_what_the_last_one_knew() -> None:
    record = history((0.0, WELL), (1.0, with_signs(xids={79: 1})))
    later = resumed(record, 5 * CLEAN_S)
    later = history((5 * CLEAN_S, WELL), (5 * CLEAN_S + 1, WELL), record=later)
    assert (later.health, later.reason) == (record.health, record.reason)
    assert history((6 * CLEAN_S, WELL), record=later).health is GpuHealth.HEALTHY
    again = history((6 * CLEAN_S + 1, with_signs(xids={79: 1})), record=later)
    assert again.health is GpuHealth.QUARANTINED, "counters began anew with the agent"


def test_every_xid_has_one_meaning() -> None:
    assert {meaning_of(xid).health for xid in (79, 48, 74, 95, 119)} == {GpuHealth.QUARANTINED}
    assert {meaning_of(xid).health for xid in (13, 31, 43, 45)} == {GpuHealth.HEALTHY}


SIGNS = st.builds(
    with_signs,
    xids=st.dictionaries(st.sampled_from([13, 31, 48, 79, 94, 999]), st.integers(1, 3), max_size=3),
    remap_failed=st.booleans(),
    ecc_uncorrected=st.none() | st.integers(0, 2),
    slowdowns=st.sampled_from([(), (Slowdown.HARDWARE,)]),
    recovery=st.sampled_from([None, *RecoveryAction]),
)
SAMPLES = st.builds(
    lambda gpu, health: replace(gpu, health=health),
    SIGNS,
    st.sampled_from([GpuHealth.HEALTHY, GpuHealth.LOST, GpuHealth.UNKNOWN, GpuHealth.QUARANTINED]),
)


@given(st.lists(st.tuples(st.floats(0, 2000), SAMPLES), min_size=1, max_size=30))
def test_any_history_ends_well_when_the_signs_do(moments: list[tuple[float, Gpu]]) -> None:
    now, record = 0.0, None
    for seconds, gpu in moments:
        now += seconds
        record = judge(record, gpu, now)
        assert judge(record, gpu, now) == record, "the same sample at the same time is no news"
        assert (record.reason == NO_REASON) == (record.health is GpuHealth.HEALTHY)
        if gpu.health is GpuHealth.LOST:
            assert record.health is GpuHealth.LOST
    assert record is not None
    quiet = replace(WELL, signs=replace(WELL.signs, xids=moments[-1][1].signs.xids, ecc_uncorrected=0))
    record = judge(record, quiet, now + 1)
    assert judge(record, quiet, now + 1 + DEFAULT_POLICY.longest_clean_s).health is GpuHealth.HEALTHY
