"""Figures as people read them."""

import pytest

from supervisord_cp.cli import text


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, "-"),
        (-1, "0.0s"),
        (0.42, "0.4s"),
        (12, "12s"),
        (59.4, "59s"),
        (59.6, "1m00s"),
        (184, "3m04s"),
        (7860, "2h11m"),
        (525_600, "6d02h"),
    ],
)
def test_durations(seconds: float | None, shown: str) -> None:
    assert text.duration(seconds) == shown


@pytest.mark.parametrize(
    ("count", "shown"),
    [(None, "-"), (0, "0 B"), (1536, "1.5 KiB"), (150 * 2**30, "150 GiB"), (2**50, "1024 TiB")],
)
def test_sizes(count: int | None, shown: str) -> None:
    assert text.size(count) == shown


def test_unknown_is_no_zero() -> None:
    assert (text.percent(None), text.percent(0.0)) == ("-", "0%")
    assert (text.number(None, " C"), text.number(0.0, " C")) == ("-", "0 C")


def test_counts() -> None:
    assert (text.count(1, "node"), text.count(2, "node")) == ("1 node", "2 nodes")


def test_devices_are_cut_to_what_tells_them_apart() -> None:
    assert text.devices(["GPU-5c1b2d3e-aaaa", "slot-0"]) == "GPU-5c1b2d3e,slot-0"
    assert text.devices([]) == "-"


@pytest.mark.parametrize(("seconds", "shown"), [(0.00484, "5 ms"), (0.9994, "999 ms"), (1.24, "1.2 s")])
def test_times_to_a_token(seconds: float, shown: str) -> None:
    assert text.time_in_ms(seconds) == shown


def test_long_lines_are_cut() -> None:
    assert text.short("a" * 160) == "a" * 160
    assert text.short("a" * 161) == "a" * 159 + "…"
