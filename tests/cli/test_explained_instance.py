"""`explain instance` as a person reads it."""

import json
from typing import Any

from supervisord_cp.cli.explained_instance import instance_lines
from tests.cli.conftest import Run
from tests.cli.samples import CRASHED, READY
from tests.cli.stub import StubCentral

HERE: dict[str, Any] = {"node": "gpu-a", "revision": "r1", "run": "running", "leaving": None}


def lines(one: dict[str, Any], assigned: dict[str, Any] | None = None) -> list[str]:
    return list(instance_lines({"instance": one, "assigned": assigned}))


def test_one_that_serves() -> None:
    assert lines(READY | {"revision": "r1"}, HERE) == [
        "chat-0: ready",
        "  deployment  chat, engine vllm",
        "  place       gpu-a:GPU-5c1b2d3e",
        "  process     PID 41022 at http://127.0.0.1:8000, up 2h01m",
        "  life        chat-0.aa, revision r1",
        "  load        9 running, 0 waiting, KV cache 61%",
        "  restarts    0",
    ]


def test_one_that_crashed_says_how_and_why_in_few_words() -> None:
    detail = "ValueError: To serve at least one request, " + "more memory is needed, " * 20
    last = {"code": 1, "signal": None, "cause": "kv_cache", "age_s": 12.0, "detail": detail}
    first, *facts = lines(CRASHED | {"revision": "r1"} | {"message": detail, "last_exit": last}, HERE)
    assert first.startswith("chat-2: crashed, ValueError: To serve")
    assert len(first) <= 160
    assert f"  last exit   code 1 (kv_cache), 12s ago: {detail}" in facts


def test_what_is_wanted_is_told_where_it_is_not_so() -> None:
    leaving = {"to": "remove", "message": "no longer wanted", "waiting": True}
    assert "  wanted      remove once its requests are done (no longer wanted)" in lines(
        READY | {"revision": "r1"}, HERE | {"leaving": leaving}
    )
    assert "  wanted      stopped" in lines(READY | {"revision": "r1"}, HERE | {"run": "stopped"})
    assert lines(READY | {"revision": "r1"})[-1] == "  wanted      no: central has no place for it any more"
    assert lines(READY | {"revision": "r1", "static": True})[-1] == "  restarts    0"
    assert "  new revision  r2 waits to take its place" in lines(
        READY | {"revision": "r1"}, HERE | {"revision": "r2"}
    )


def test_its_events_are_lines_and_json_has_everything(run: Run, central: StubCentral) -> None:
    event = {"id": 1, "at": 1760000000.0, "kind": "instance.failed", "subject": "chat-0", "severity": "error"}
    value = {
        "instance": READY | {"revision": "r1"},
        "assigned": HERE,
        "events": [event | {"message": "ended " + "x" * 300}],
        "capsule": None,
        "capsule_missing": "none that its node remembers",
    }
    central.says("explain/instance/chat-0", value)
    shown = run("explain", "instance", "chat-0").stdout.splitlines()
    assert shown[-3] == "events:"
    assert "!! instance.failed chat-0 ended xxx" in shown[-2]
    assert shown[-2].endswith("…")
    assert shown[-1] == "last abnormal end: none that its node remembers"
    assert json.loads(run("explain", "instance", "chat-0", "-o", "json").stdout) == value
