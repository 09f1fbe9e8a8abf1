"""Each look on what it may find."""

import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from supervisord_cp.adapters.nvml_lines import ProbeLine, Unreadable
from supervisord_cp.config.schema import Listen
from supervisord_cp.doctor.engines import engine_findings, interpreter_of
from supervisord_cp.doctor.finding import Finding, Level
from supervisord_cp.doctor.gpus import gpu_findings
from supervisord_cp.doctor.host import build_finding, folder_findings, room, secret_findings
from supervisord_cp.doctor.network import (
    central_findings,
    listener_findings,
    port_range_finding,
    prometheus_findings,
    skew,
)
from supervisord_cp.doctor.units import unit_finding
from supervisord_cp.model.gpu import Gpu, GpuHealth, Holder
from tests.ports import free_ports

GIB = 2**30
HELD = Holder(pid=4711, owner="bob", command="train.py", bytes=20 * GIB)


def worst(findings: Iterator[Finding]) -> Finding:
    order = list(Level)
    return max(findings, key=lambda one: order.index(one.level))


@pytest.mark.parametrize(
    ("line", "device", "level", "said"),
    [
        (ProbeLine(), "cuda", Level.OK, "0 GPUs"),
        (ProbeLine(absent="NVML Shared Library Not Found"), "auto", Level.WARNING, "no NVIDIA driver"),
        (ProbeLine(absent="NVML Shared Library Not Found"), "cuda", Level.ERROR, "no NVIDIA driver"),
        (ProbeLine(error="Driver/library version mismatch"), "auto", Level.ERROR, "old kernel module"),
        (ProbeLine(error="no answer"), "auto", Level.ERROR, "does not answer"),
        (
            ProbeLine(unreadable=(Unreadable(index=3, health=GpuHealth.LOST, error="GPU is lost"),)),
            "cuda",
            Level.ERROR,
            "GPU is lost",
        ),
        (ProbeLine(gpus=(Gpu(uuid="u", index=0, holders=(HELD,)),)), "cuda", Level.WARNING, "PID 4711, bob"),
        (ProbeLine(gpus=(Gpu(uuid="u", index=0, health=GpuHealth.SUSPECT),)), "cuda", Level.ERROR, "suspect"),
        (ProbeLine(error="whatever"), "cpu", Level.OK, "not looked for"),
    ],
)
def test_driver_and_gpus(line: ProbeLine, device: str, level: Level, said: str) -> None:
    found = worst(gpu_findings(line, device, ()))
    assert found.level is level
    assert said in found.message
    assert bool(found.remedy) == (level is not Level.OK)


def test_our_own_engines_are_no_strangers() -> None:
    line = ProbeLine(gpus=(Gpu(uuid="u", index=0, holders=(HELD,)),))
    assert worst(gpu_findings(line, "cuda", {4711})).level is Level.OK


@pytest.mark.parametrize(
    ("free", "level"), [(100 * GIB, Level.OK), (1 * GIB, Level.WARNING), (100 * 2**20, Level.ERROR)]
)
def test_room_on_a_disk(free: int, level: Level) -> None:
    assert room("logs", Path("/x"), free, 200 * GIB).level is level


def test_folders_that_are_not_there_yet_can_be_made(tmp_path: Path) -> None:
    [found] = folder_findings([("state", tmp_path / "a" / "b")])
    assert "b: " in found.message
    assert found.level in (Level.OK, Level.WARNING)


@pytest.mark.parametrize(("mode", "level"), [(0o600, Level.OK), (0o640, Level.OK), (0o644, Level.ERROR)])
def test_files_with_secrets(tmp_path: Path, mode: int, level: Level) -> None:
    path = tmp_path / "token"
    path.write_text("canary-0123456789")
    path.chmod(mode)
    [found] = secret_findings([("token", path), ("none", None)])
    assert found.level is level
    assert "canary" not in found.message


def test_a_file_with_secrets_that_is_missing(tmp_path: Path) -> None:
    [found] = secret_findings([("token", tmp_path / "nowhere")])
    assert found.level is Level.ERROR


def program(path: Path, first_line: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{first_line}\n")
    path.chmod(0o755)
    return path


def test_programs_of_engines(tmp_path: Path) -> None:
    gone = program(tmp_path / "gone" / "vllm", f"#!{tmp_path}/no/python")
    wrong = program(tmp_path / "wrong" / "vllm", f"#!{sys.executable}")
    other = program(tmp_path / "engine", "#!/bin/sh")
    names = (str(tmp_path / "nowhere"), str(gone), str(wrong), str(other))
    found = list(engine_findings(names))
    assert [one.level for one in found] == [Level.ERROR, Level.ERROR, Level.ERROR, Level.OK]
    assert "moved or removed" in found[1].message
    assert "wrong Python" in found[2].message


def test_a_program_that_no_deployment_uses_may_be_missing(tmp_path: Path) -> None:
    name = str(tmp_path / "nowhere")
    assert [one.level for one in engine_findings((name,), {name})] == [Level.ERROR]
    [found] = engine_findings((name,), {""})
    assert (found.level, found.message) == (Level.OK, "is not there; no deployment uses it")


@pytest.mark.parametrize(
    ("line", "python"),
    [
        ("#!/opt/x/bin/python -P", "/opt/x/bin/python"),
        ("#!/usr/bin/env sh", "sh"),
        ("\x7fELF", None),
        ("#!", None),
    ],
)
def test_the_interpreter_of_a_script(tmp_path: Path, line: str, python: str | None) -> None:
    found = interpreter_of(program(tmp_path / "x", line))
    assert found == python or Path(found or "").name == python


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that a process which is not ours has."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen()
        yield one.getsockname()[1]


def test_a_listener_that_a_stranger_has(taken: int) -> None:
    [found] = listener_findings([("api", Listen(host="127.0.0.1", port=taken))])
    assert found.level is Level.ERROR
    assert str(os.getpid()) in found.message


def test_a_port_range_that_is_taken(taken: int) -> None:
    found = port_range_finding((taken, taken), "127.0.0.1")
    assert (found.level, str(taken) in found.message) == (Level.ERROR, True)


def test_a_stranger_with_many_ports_is_named_once() -> None:
    first = free_ports(3)
    with ExitStack() as held:
        for port in (first, first + 1):
            stranger = held.enter_context(socket.socket())
            stranger.bind(("127.0.0.1", port))
            stranger.listen()
        found = port_range_finding((first, first + 2), "127.0.0.1")
    assert found.level is Level.ERROR
    assert f"most are taken: {first}, {first + 1} by PID {os.getpid()} (" in found.message
    assert found.message.count("PID") == 1


@pytest.mark.parametrize(
    ("apart", "level"), [(0, Level.OK), (1, Level.OK), (30, Level.WARNING), (-30, Level.WARNING)]
)
def test_clocks(apart: float, level: Level) -> None:
    now = 1_800_000_000.0
    assert skew(formatdate(now, usegmt=True), now + apart).level is level


@pytest.mark.parametrize(
    ("told", "level", "remedy"),
    [
        ({"LoadState": "not-found"}, Level.WARNING, "install systemd"),
        ({"LoadState": "loaded", "ActiveState": "failed", "Result": "watchdog"}, Level.ERROR, "journalctl"),
        (
            {"LoadState": "loaded", "ActiveState": "active", "UnitFileState": "disabled"},
            Level.WARNING,
            "systemctl enable",
        ),
        (
            {"LoadState": "loaded", "ActiveState": "inactive", "UnitFileState": "enabled"},
            Level.WARNING,
            "systemctl start",
        ),
        ({"LoadState": "loaded", "ActiveState": "active", "UnitFileState": "enabled"}, Level.OK, ""),
    ],
)
def test_units(told: dict[str, str], level: Level, remedy: str) -> None:
    found = unit_finding("supervisord-cp-agent.service", told)
    assert found.level is level
    assert remedy in found.remedy


class Somebody(BaseHTTPRequestHandler):
    """Central that knows one token, and a Prometheus."""

    scraped: list[dict] = []

    def do_GET(self) -> None:
        known = self.headers.get("Authorization") == "Bearer good"
        query = self.path.startswith("/api/v1/query")
        body = {"data": {"result": self.scraped}} if query else {}
        self.send_response(200 if known or query or self.path == "/healthz" else 401)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[str]:
    class Own(Somebody):
        scraped = []

    with HTTPServer(("127.0.0.1", 0), Own) as one:
        thread = Thread(target=one.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{one.server_port}"
        one.shutdown()
        thread.join()


def test_a_token_that_central_does_not_know(server: str) -> None:
    import time

    found = list(central_findings(server, [("a", "good"), ("b", "bad")], time.time()))
    assert [(one.subject, one.level) for one in found if one.subject in "ab"] == [
        ("a", Level.OK),
        ("b", Level.ERROR),
    ]
    assert "bad" not in found[-1].message


def test_central_that_does_not_answer() -> None:
    [found] = central_findings("http://127.0.0.1:1", [], 0.0)
    assert found.level is Level.ERROR


def test_prometheus_that_scrapes_nothing_of_ours(server: str) -> None:
    [found] = prometheus_findings(server)
    assert (found.level, "scrapes nothing" in found.message) == (Level.ERROR, True)


def test_prometheus_that_is_gone() -> None:
    [found] = prometheus_findings("http://127.0.0.1:1")
    assert (found.level, "does not answer" in found.message) == (Level.ERROR, True)


def test_what_a_router_that_is_not_compiled_needs() -> None:
    assert build_finding(True).level is Level.OK
    interpreted = build_finding(False)
    assert interpreted.level is Level.WARNING
    assert "apt install gcc" in interpreted.remedy
