"""Engines that crash in their start, or again and again."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest

from supervisord_cp.doctor.finding import Level
from supervisord_cp.doctor.instances import MOST, failing, instance_findings


def one(name: str = "chat-0", state: str = "ready", **fields: Any) -> dict[str, Any]:
    return {"id": name, "node": "gpu-a", "state": state, "restarts": 0, "last_exit": None, **fields}


def ended(
    cause: str = "gpu_memory", age_s: float = 12.0, detail: str = "CUDA out of memory"
) -> dict[str, Any]:
    return {"code": 1, "signal": None, "cause": cause, "age_s": age_s, "detail": detail}


@pytest.mark.parametrize(
    ("instance", "level", "said"),
    [
        (one(), Level.OK, "none of 1"),
        (one(state="starting"), Level.OK, "none of 1"),
        (
            one(state="backoff", restarts=4, last_exit=ended()),
            Level.ERROR,
            "backoff on gpu-a, ended 4 times: gpu_memory, 12 s ago: CUDA out of memory",
        ),
        (one(state="crashed", restarts=1, last_exit=ended(age_s=9999)), Level.ERROR, "ended once"),
        (one(state="starting", restarts=2, last_exit=ended("start_timeout")), Level.ERROR, "start_timeout"),
        (one(state="starting", restarts=2, last_exit=ended(age_s=9999)), Level.OK, "none"),
        (one(state="starting", restarts=2, last_exit=ended("requested")), Level.OK, "none"),
        (one(restarts=3, last_exit=ended("engine_dead")), Level.WARNING, "ready, but ended 3 times"),
        (one(restarts=2, last_exit=ended()), Level.OK, "none"),
        (one(restarts=3, last_exit=ended(age_s=9999)), Level.OK, "none"),
        (
            one(state="backoff", message="waits for the program to be installed"),
            Level.ERROR,
            "waits for the program",
        ),
    ],
)
def test_what_is_told_of_an_instance(instance: dict[str, Any], level: Level, said: str) -> None:
    [found] = failing([instance])
    assert (found.level, said in found.message) == (level, True), found
    if level is not Level.OK:
        assert found.subject == "chat-0"
        assert "explain instance chat-0" in found.remedy
        assert "logs chat-0 --previous" in found.remedy


def test_a_fleet_that_fails_is_told_in_a_few_lines() -> None:
    found = list(failing(one(f"chat-{n}", "backoff", last_exit=ended()) for n in range(3 * MOST)))
    assert len(found) == MOST + 1
    assert "20 more" in found[-1].message


@pytest.fixture
def central() -> Iterator[str]:
    class Central(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.headers.get("Authorization") == "Bearer good"
            listed = [one(state="backoff", last_exit=ended()), {**one("b-0"), "node": "gpu-b"}]
            self.send_response(200 if known and self.path == "/api/v1/instances" else 401)
            self.end_headers()
            self.wfile.write(json.dumps(listed).encode() if known else b"{}")

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Central) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_node_is_told_its_own(central: str) -> None:
    def subjects(token: str, node: str) -> list[tuple[str, str]]:
        return [(found.subject, found.level) for found in instance_findings(central, token, node)]

    assert subjects("good", "") == subjects("good", "gpu-a") == [("chat-0", "error")]
    assert subjects("good", "gpu-b") == [("instances", "ok")]
    assert subjects("bad", "") == [], "an unknown token is told elsewhere"


def test_central_that_does_not_say_is_told_elsewhere() -> None:
    assert list(instance_findings("http://127.0.0.1:1", "", "")) == []
