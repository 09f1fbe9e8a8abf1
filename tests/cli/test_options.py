"""Parameter types."""

import click
import pytest

from supervisord_cp.cli.options import duration, listen


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("30s", 30), ("5m", 300), ("1h30m", 5400), ("2d", 172800), ("0.5s", 0.5), ("0", 0)],
)
def test_durations(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "5x", "1h30", "-5s", "5 m", "1e3", "٣s"])
def test_no_durations(text: str) -> None:
    with pytest.raises(click.BadParameter, match="no duration"):
        duration(text)


def test_listeners() -> None:
    assert str(listen("127.0.0.1:9000")) == "127.0.0.1:9000"
    assert str(listen("[::1]:0")) == "[::1]:0"


@pytest.mark.parametrize("text", ["9000", ":9000", "::1:9000", "host:", "host:99999"])
def test_no_listeners(text: str) -> None:
    with pytest.raises(click.BadParameter, match="must"):
        listen(text)
