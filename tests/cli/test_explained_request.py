"""`explain request` as a person reads it."""

from typing import Any

from tests.cli.conftest import Run
from tests.cli.stub import StubCentral

FIRST: dict[str, Any] = {
    "request": "abc-1",
    "pick": "chat-2",
    "incarnation": "chat-2.aa",
    "alternates": ["chat-0", "chat-1"],
    "left_out": ["chat-3"],
    "scores": {"chat-0": -40.0, "chat-1": -17.25, "chat-2": -17.0},
    "booked": {"chat-0": 23, "chat-1": 0, "chat-2": 0, "chat-3": 900},
    "inflight": {"chat-0": 1, "chat-1": 0, "chat-2": 0, "chat-3": 7},
    "policy": "within_load + load_balanced",
    "snapshot_version": 85,
    "age_s": 59.351,
}
AGAIN: dict[str, Any] = {
    "request": "abc-1",
    "pick": "chat-0",
    "incarnation": "chat-0.aa",
    "alternates": [],
    "left_out": [],
    "scores": {},
    "booked": {"chat-0": 5},
    "inflight": {"chat-0": 1},
    "policy": "",
    "age_s": 58.0,
}


def told(run: Run, central: StubCentral, decisions: list[dict[str, Any]]) -> list[str]:
    central.says("explain/request/abc-1", {"request": "abc-1", "decisions": {"host:9000/1": decisions}})
    return [line.rstrip() for line in run("explain", "request", "abc-1").stdout.splitlines()]


def test_where_it_went_and_what_else_there_was(run: Run, central: StubCentral) -> None:
    assert told(run, central, [FIRST]) == [
        "abc-1 went to chat-2 59s ago, by within_load + load_balanced (router host:9000/1)",
        "INSTANCE  SCORE   TOKENS BOOKED  REQUESTS  WHAT",
        "chat-2    -17     0              0         chosen",
        "chat-1    -17.25  0              0",
        "chat-0    -40     23             1",
        "chat-3    -       900            7         left out by a filter",
    ]


def test_each_time_that_it_was_sent(run: Run, central: StubCentral) -> None:
    lines = told(run, central, [FIRST, AGAIN])
    assert lines[6] == "sent again, to chat-0 58s ago, the only one with room (router host:9000/1)"
    assert lines[8] == "chat-0    -      5              1         chosen"
