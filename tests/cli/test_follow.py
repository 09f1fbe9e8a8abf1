"""Logs, events, explanations."""

import json
import re

import pytest

from supervisord_cp.cli.follow import outline, server_sent
from tests.cli.conftest import Run
from tests.cli.stub import StubCentral

EVENT = {
    "id": 1,
    "at": 1_760_000_000.0,
    "kind": "instance.state",
    "subject": "chat-0",
    "message": "crashed (killed)",
    "severity": "warning",
}


def test_logs_ask_for_what_was_said(run: Run, central: StubCentral) -> None:
    central.says("instances/chat-0/logs", b"caf\xc3\xa9\nlast")
    result = run("logs", "chat-0", "-n", "5", "-f")
    assert result.stdout_bytes == b"caf\xc3\xa9\nlast"
    assert central.requests[0][1] == "/api/v1/instances/chat-0/logs?lines=5&follow=1&previous=0"


def test_logs_of_nobody(run: Run, central: StubCentral) -> None:
    central.says("instances/x/logs", {"error": "no instance named x is known to have a log"}, 404)
    result = run("logs", "x")
    assert (result.exit_code, result.stderr) == (
        1,
        "supervisord-cp: no instance named x is known to have a log\n",
    )


def test_a_previous_log_cannot_be_followed(run: Run, central: StubCentral) -> None:
    assert run("logs", "chat-0", "-f", "--previous").exit_code == 2
    assert not central.requests


def test_events(run: Run, central: StubCentral) -> None:
    central.says("events", [EVENT])
    line = run("events").stdout
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d !  instance.state chat-0 crashed \(killed\)\n", line)


def test_events_are_followed_after_those_that_were(run: Run, central: StubCentral) -> None:
    central.says("events", [EVENT])
    later = EVENT | {"id": 2, "message": "ready"}
    central.says("events/stream", f": hello\n\nid: 2\ndata: {json.dumps(later)}\n\n".encode())
    result = run("events", "-f", "-o", "json")
    assert [json.loads(line)["id"] for line in result.stdout.splitlines()] == [1, 2]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_server_sent_events_at_every_split(size: int) -> None:
    stream = ': keep-alive\r\n\r\nid: 1\r\ndata: {"é":\r\ndata: 1}\r\n\r\n: \n\ndata: 2\n\ndata: 3'.encode()
    pieces = [stream[start : start + size] for start in range(0, len(stream), size)]
    assert list(server_sent(pieces)) == [{"é": 1}, 2]


def test_explain_in_both_forms(run: Run, central: StubCentral) -> None:
    value = {"deployment": {"name": "chat", "held": False}, "events": [EVENT], "limits": [], "override": None}
    central.says("explain/deployment/chat", value)
    assert json.loads(run("explain", "deployment", "chat", "-o", "json").stdout) == value
    assert run("explain", "deployment", "chat").stdout.splitlines()[:6] == [
        "deployment:",
        "  name: chat",
        "  held: no",
        "events:",
        "  - id: 1",
        "    at: 1760000000.0",
    ]


CAPSULE = {
    "instance": "chat-0",
    "incarnation": "chat-0.aa",
    "revision": "r1",
    "cause": "stalled",
    "at": "2026-01-02T03:04:05+00:00",
    "evidence": "requests run but no token was made for 120 s",
    "signal": 9,
    "served": True,
    "devices": ["GPU-5c1b2d3e-aaaa"],
    "gpus": [
        {"before_s": float(before), "uuid": "GPU-5c1b2d3e-aaaa", "memory_used": 2**30, "utilization": 1.0}
        for before in range(60, 0, -1)
    ],
    "stacks": "pid 7 VLLM::EngineCore",
    "log_tail": "".join(f"line {number}\x1b[2J\n" for number in range(100)),
}


def test_explain_shows_the_last_abnormal_end(run: Run, central: StubCentral) -> None:
    value = {"instance": {"id": "chat-0"}, "events": [], "capsule": CAPSULE, "capsule_missing": ""}
    central.says("explain/instance/chat-0", value)
    assert json.loads(run("explain", "instance", "chat-0", "-o", "json").stdout) == value
    lines = run("explain", "instance", "chat-0").stdout.splitlines()
    assert "last abnormal end: stalled at 2026-01-02T03:04:05+00:00" in lines
    assert "  evidence: requests run but no token was made for 120 s" in lines
    assert "    GPU-5c1b2d3e 1.0s before: 1.0 GiB, 100%, -, -, unknown" in lines
    assert sum("before:" in line for line in lines) == 11
    assert "    pid 7 VLLM::EngineCore" in lines
    assert "  its log (the last 40 of 100 lines; -o json has all):" in lines
    assert lines[-1] == "    line 99\ufffd[2J"


def test_explain_of_an_instance_that_never_failed(run: Run, central: StubCentral) -> None:
    value = {"instance": {"id": "chat-0"}, "capsule": None, "capsule_missing": "none that its node remembers"}
    central.says("explain/instance/chat-0", value)
    assert run("explain", "instance", "chat-0").stdout.splitlines()[-1] == (
        "last abnormal end: none that its node remembers"
    )


def test_explain_knows_three_kinds(run: Run, central: StubCentral) -> None:
    assert run("explain", "weather", "x").exit_code == 2
    assert not central.requests


def test_outline_of_nested_values() -> None:
    value = {"a": [[1, 2], {}], "b": {"c": None}}
    assert list(outline(value)) == ["a:", "  - - 1", "    - 2", "  - -", "b:", "  c: -"]
