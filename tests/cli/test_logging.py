"""Log lines of the daemons."""

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisord_cp.obs.logging import JsonFormatter, KeyValueFormatter, configure


@pytest.fixture
def restored() -> Iterator[None]:
    root = logging.getLogger()
    before = root.level, root.handlers[:]
    yield
    root.setLevel(before[0])
    root.handlers[:] = before[1]


def record_of(
    message: str, *args: object, name: str = "supervisord_cp.agent.app", **extra: object
) -> logging.LogRecord:
    record = logging.LogRecord(name, logging.WARNING, __file__, 1, message, args, None)
    vars(record).update(extra)
    record.created = 1_760_000_000.25
    return record


def line(message: str, *args: object, **extra: object) -> str:
    return KeyValueFormatter().format(record_of(message, *args, **extra))


def test_one_line_of_key_and_value() -> None:
    assert line("started %d", 3) == (
        'time=2025-10-09T08:53:20.250Z level=warning logger=agent.app msg="started 3"'
    )


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("plain", "plain"),
        ("", '""'),
        ("two words", '"two words"'),
        ('say "x"', '"say \\"x\\""'),
        ("a\nb", '"a\\nb"'),
        ("a=b", '"a=b"'),
        ("c:\\d e", '"c:\\\\d e"'),
    ],
)
def test_values_stay_on_their_line(message: str, shown: str) -> None:
    assert line(message).endswith(f" msg={shown}")


def test_extra_fields_follow() -> None:
    assert line("x", instance="chat-0", count=2).endswith(" msg=x instance=chat-0 count=2")


def test_a_traceback_follows_indented() -> None:
    try:
        raise ValueError("boom")
    except ValueError as error:
        text = line("failed", exc_info=(type(error), error, error.__traceback__))
    first, *more = text.splitlines()
    assert first.endswith("msg=failed")
    assert more[-1] == "    ValueError: boom"
    assert all(each.startswith("    ") for each in more)


def test_one_json_object_a_line() -> None:
    text = JsonFormatter().format(record_of("said\n%s", "x", instance="chat-0", count=2, path=Path("/a")))
    assert "\n" not in text
    assert json.loads(text) == {
        "time": "2025-10-09T08:53:20.250Z",
        "level": "warning",
        "logger": "agent.app",
        "msg": "said\nx",
        "instance": "chat-0",
        "count": 2,
        "path": "/a",
    }


def test_a_traceback_is_a_field_of_the_object() -> None:
    try:
        raise ValueError("boom")
    except ValueError as error:
        text = JsonFormatter().format(record_of("failed", exc_info=(type(error), error, error.__traceback__)))
    assert json.loads(text)["traceback"].endswith("ValueError: boom")


@pytest.mark.usefixtures("restored")
def test_json_is_chosen_by_its_name() -> None:
    stream = io.StringIO()
    configure("info", "json", stream)
    logging.getLogger("supervisord_cp.x").info("yes")
    assert json.loads(stream.getvalue())["msg"] == "yes"


@pytest.mark.usefixtures("restored")
def test_the_level_counts_and_libraries_are_quiet() -> None:
    stream = io.StringIO()
    configure("info", stream=stream)
    logging.getLogger("supervisord_cp.x").debug("no")
    logging.getLogger("supervisord_cp.x").info("yes")
    logging.getLogger("asyncio").info("no")
    logging.getLogger("asyncio").warning("careful")
    assert [each.rpartition("msg=")[2] for each in stream.getvalue().splitlines()] == ["yes", "careful"]
