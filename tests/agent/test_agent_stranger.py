"""A stranger on an engine's port: what answers there is not the engine, and nobody is sent to it."""

import os
import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import psutil
import pytest

from supervisord_cp.adapters.listeners import listens
from supervisord_cp.config.schema import AllowConfig
from supervisord_cp.model.instance import ExitCause, InstanceState
from supervisord_cp.model.launch import EngineKind
from tests.agent.daemon import AgentHost, members
from tests.agent.fake_central import FakeCentral
from tests.agent.fakes import assembled
from tests.core.instances_kit import desired
from tests.waiting import until

NOBODY = 2**22 + 1
"""Above the highest pid that Linux gives."""


class Stranger(ThreadingHTTPServer):
    """Answers 200 whatever it is asked."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.asked = Event()
        super().__init__(*arguments, **options)


class Healthy(BaseHTTPRequestHandler):
    """What the stranger says."""

    def do_GET(self) -> None:
        self.server.asked.set()  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_who_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as silent:
        port = server.getsockname()[1]
        silent.bind(("127.0.0.1", 0))
        assert listens([NOBODY, os.getpid()], port) is True
        assert listens([NOBODY, os.getppid()], port) is False
        assert listens([], port) is False
        assert listens([os.getpid()], silent.getsockname()[1]) is False, "bound is not listening"

        def denied(process: psutil.Process, kind: str) -> None:
            raise psutil.AccessDenied(process.pid)

        monkeypatch.setattr(psutil.Process, "net_connections", denied)
        assert listens([os.getpid()], port) is None, "another user's process: unknown, not no"


@pytest.mark.asyncio
async def test_an_engine_whose_port_a_stranger_answers_on_is_not_ready(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with assembled(tmp_path) as parts:
        parts.stranger_ports.add(100)
        parts.reporter.begin()
        parts.take(desired("chat-0"))
        await until(lambda: len(parts.http.keys) > 0 and parts.state_of("chat-0") is InstanceState.STARTING)
        parts.take(desired("chat-0"), desired("chat-1", devices=("slot-1",)))
        await until(lambda: parts.state_of("chat-1") is InstanceState.READY)
        assert parts.url_of("chat-0").endswith(":100")
        assert parts.state_of("chat-0") is InstanceState.STARTING
        await until(lambda: parts.http.probes[parts.url_of("chat-0")] > 4)
        assert caplog.text.count("another process answers") == 1, "said once"
        parts.stranger_ports.clear()
        await until(lambda: parts.state_of("chat-0") is InstanceState.READY)


@pytest.mark.asyncio
async def test_of_a_command_it_is_not_asked_who_listens(tmp_path: Path) -> None:
    """A container runtime listens in its engine's place."""
    with assembled(tmp_path, engine_kind="command", allow=AllowConfig(executables=("/bin/fake",))) as parts:
        parts.stranger_ports.add(100)
        parts.reporter.begin()
        parts.take(desired("chat-0", engine=EngineKind.COMMAND, command=("/bin/fake",)))
        await until(lambda: parts.state_of("chat-0") is InstanceState.READY)


@pytest.mark.process
@pytest.mark.asyncio
async def test_a_stranger_that_takes_the_port_of_a_loading_engine(
    host: AgentHost, central: FakeCentral
) -> None:
    """It is bound before the engine and listens before it: the engine ends when it wants to, as vLLM does."""
    address = (str(host.settings["advertise"]), 0)
    with Stranger(address, Healthy, bind_and_activate=False) as stranger:
        stranger.server_bind()
        port = stranger.server_port
        host.settings["ports"] = f"{port}-{port + 1}"
        await host.connect()
        await central.desire(desired("fake-0", args={"fake-load-s": 1.0}))
        await central.reached(InstanceState.STARTING, "fake-0")
        stranger.server_activate()
        Thread(target=stranger.serve_forever, daemon=True).start()
        try:
            await central.reached(InstanceState.READY, "fake-0")
        finally:
            stranger.shutdown()
    assert stranger.asked.is_set(), "the agent has asked the stranger"
    ready = [event.data["to"] for event in central.events if event.kind == "instance.state"]
    assert ready == ["starting", "backoff", "starting", "ready"]
    status = central.instances["fake-0"]
    assert status.last_exit is not None
    assert status.last_exit.cause is ExitCause.PORT_TAKEN
    assert status.pid is not None
    assert status.url.endswith(f":{port + 1}")
    assert listens(members(status.pid), port + 1)
