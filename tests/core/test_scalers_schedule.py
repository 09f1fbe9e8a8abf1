"""schedule: cron expressions, time zones, minimum and maximum."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from supervisord_cp.builtin.scalers.cron import parse
from supervisord_cp.core.scaling.scalers import ask
from supervisord_cp.errors import UsageError
from supervisord_cp.model.reason import ReasonCode, render
from tests.core.scaling_kit import scaler, view

BERLIN = ZoneInfo("Europe/Berlin")


def moment(text: str, zone: ZoneInfo | None = None) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=zone or UTC)


@pytest.mark.parametrize(
    ("expression", "now", "last"),
    [
        ("* * * * *", "2026-11-22T13:37:59", "2026-11-22T13:37"),
        ("0 8 * * *", "2026-11-22T08:00", "2026-11-22T08:00"),
        ("0 8 * * *", "2026-11-22T07:59:59", "2026-11-21T08:00"),
        ("30 8 * * *", "2026-11-22T08:29", "2026-11-21T08:30"),
        ("*/15 * * * *", "2026-11-22T13:37", "2026-11-22T13:30"),
        ("5/20 * * * *", "2026-11-22T13:03", "2026-11-22T12:45"),
        ("10-20/5 9 * * *", "2026-11-22T10:00", "2026-11-22T09:20"),
        ("0 6,18 * * *", "2026-11-22T17:59", "2026-11-22T06:00"),
        ("0 8 * * 1-5", "2026-11-22T13:00", "2026-11-20T08:00"),  # a Sunday
        ("0 8 * * mon-fri", "2026-11-22T13:00", "2026-11-20T08:00"),
        ("0 8 * * 0", "2026-11-22T13:00", "2026-11-22T08:00"),
        ("0 8 * * 7", "2026-11-22T13:00", "2026-11-22T08:00"),
        ("0 8 * * SUN", "2026-11-22T13:00", "2026-11-22T08:00"),
        ("0 0 1 * *", "2026-11-22T13:00", "2026-11-01T00:00"),
        ("0 0 31 * *", "2026-11-22T13:00", "2026-10-31T00:00"),
        ("0 0 1 jan *", "2026-11-22T13:00", "2026-01-01T00:00"),
        ("0 0 13 * 5", "2026-11-22T13:00", "2026-11-20T00:00"),  # the 13th or a Friday
        ("0 0 22 * 1", "2026-11-22T13:00", "2026-11-22T00:00"),
        ("0 0 */2 * 1", "2026-11-22T13:00", "2026-11-09T00:00"),  # a step is no restriction of its own
        ("0 0 29 2 *", "2026-11-22T13:00", "2024-02-29T00:00"),
    ],
)
def test_when_an_expression_was_due_last(expression: str, now: str, last: str) -> None:
    assert parse(expression).last_before(moment(now)) == moment(last).timestamp()


def test_a_day_that_never_comes() -> None:
    assert parse("0 0 30 2 *").last_before(moment("2026-11-22T13:00")) is None


@pytest.mark.parametrize(
    ("expression", "now", "last"),
    [
        ("0 8 * * *", "2026-07-01T06:30+00:00", "2026-07-01T06:00+00:00"),  # summer
        ("0 8 * * *", "2026-12-01T06:30+00:00", "2026-11-30T07:00+00:00"),  # winter
        # the hour from 2 to 3 does not exist: what falls into it comes an hour later
        ("30 2 * * *", "2026-03-29T01:29+00:00", "2026-03-28T01:30+00:00"),
        ("30 2 * * *", "2026-03-29T01:30+00:00", "2026-03-29T01:30+00:00"),
        # the hour from 2 to 3 comes twice: the first counts
        ("30 2 * * *", "2026-10-25T00:30+00:00", "2026-10-25T00:30+00:00"),
        ("30 2 * * *", "2026-10-25T01:00+00:00", "2026-10-25T00:30+00:00"),
        ("30 2 * * *", "2026-10-25T01:30+00:00", "2026-10-25T00:30+00:00"),
    ],
)
def test_time_zones(expression: str, now: str, last: str) -> None:
    there = datetime.fromisoformat(now).astimezone(BERLIN)
    assert parse(expression).last_before(there) == datetime.fromisoformat(last).timestamp()


@pytest.mark.parametrize(
    "expression",
    [
        "* * * *",
        "* * * * * *",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * * 13 *",
        "* * * * 8",
        "x * * * *",
        "-1 * * * *",
        "5-1 * * * *",
        "*/0 * * * *",
        "1,,2 * * * *",
        "",
    ],
)
def test_what_is_no_expression(expression: str) -> None:
    with pytest.raises(ValueError, match=r"fields|number|between|backwards"):
        parse(expression)


DAY = {"start": "0 8 * * mon-fri", "end": "0 18 * * mon-fri", "min": 4, "max": 8}
NIGHT = {"start": "0 22 * * *", "end": "0 6 * * *", "max": 1}
LUNCH = {"start": "0 11 * * *", "end": "0 13 * * *", "min": 6}


@pytest.mark.parametrize(
    ("periods", "now", "least", "most"),
    [
        ([DAY], "2026-11-20T07:59:59", 0, None),
        ([DAY], "2026-11-20T08:00", 4, 8),
        ([DAY], "2026-11-20T17:59:59", 4, 8),
        ([DAY], "2026-11-20T18:00", 0, None),
        ([DAY], "2026-11-21T12:00", 0, None),  # a Saturday
        ([NIGHT], "2026-11-20T23:00", 0, 1),  # over midnight
        ([NIGHT], "2026-11-20T05:59", 0, 1),
        ([NIGHT], "2026-11-20T06:00", 0, None),
        ([DAY, LUNCH], "2026-11-20T12:00", 6, 8),
        ([LUNCH, DAY], "2026-11-20T12:00", 6, 8),
        ([DAY, {**LUNCH, "min": 9}], "2026-11-20T12:00", 8, 8),  # a maximum goes before a minimum
        ([{**LUNCH, "max": 9}, {**DAY, "max": 7}], "2026-11-20T12:00", 6, 7),
        ([{**DAY, "end": DAY["start"]}], "2026-11-20T12:00", 0, None),  # it ends as it begins
        ([{**DAY, "min": 8}], "2026-11-20T12:00", 8, 8),
        ([], "2026-11-20T12:00", 0, None),
    ],
)
def test_minimum_and_maximum(periods: list[dict], now: str, least: int, most: int | None) -> None:
    made = ask(scaler("schedule", periods=periods), view(wall_s=moment(now).timestamp())).proposal
    assert (made.replicas, made.at_least, made.at_most) == (least, least, most)
    assert made.reason.code is ReasonCode.SCHEDULE
    assert render(made.reason) == f"the schedule asks for {least} to {'any' if most is None else most}"


def test_the_time_zone_of_the_schedule() -> None:
    there = scaler("schedule", periods=[DAY], timezone="Europe/Berlin")
    for hour, least in ((6, 0), (7, 4), (16, 4), (17, 0)):  # in UTC; it is an hour later there
        now = moment(f"2026-11-20T{hour:02}:30").timestamp()
        assert ask(there, view(wall_s=now)).proposal.at_least == least


def test_outside_of_all_periods() -> None:
    made = ask(
        scaler("schedule", periods=[DAY], min=1, max=2), view(wall_s=moment("2026-11-21T12:00").timestamp())
    )
    assert (made.proposal.at_least, made.proposal.at_most) == (1, 2)


def test_without_a_clock_it_cannot_tell() -> None:
    made = ask(scaler("schedule", periods=[DAY]), view()).proposal
    assert (made.replicas, made.at_least, made.at_most) == (None, None, None)
    assert made.reason.code is ReasonCode.NO_WALL_CLOCK


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({}, "periods"),
        ({"periods": [{"start": "0 8 * *", "end": "0 18 * * *"}]}, "five"),
        ({"periods": [{"start": "0 8 * * *"}]}, "end"),
        ({"periods": [{**DAY, "min": 9}]}, "more than max"),
        ({"periods": [DAY], "timezone": "Europe/Berlln"}, "Europe/Berlln"),
        ({"periods": [DAY], "timezone": "../../etc/passwd"}, "passwd"),
        ({"periods": [DAY], "min": 3, "max": 1}, "more than max"),
        ({"periods": [DAY], "period": []}, 'did you mean "periods"?'),
    ],
)
def test_parameters_are_checked(params: dict, says: str) -> None:
    with pytest.raises(UsageError, match="schedule") as caught:
        scaler("schedule", **params)
    assert says in str(caught.value)
