"""The router that central starts: one that serves already is let be, and not complained of."""

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisord_cp.central import router_child
from supervisord_cp.central.router_child import RouterChild
from supervisord_cp.config.schema import Listen
from tests.waiting import until

pytestmark = pytest.mark.asyncio


def child_of(folder: Path, port: int, connected: Callable[[str], int | None]) -> RouterChild:
    return RouterChild(folder / "none.toml", folder, Listen(host="127.0.0.1", port=port), connected)


async def test_a_router_that_has_yet_to_connect_is_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    asked: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def connected(address: str) -> int | None:
            asked.append(address)
            return os.getpid() if len(asked) > 2 else None

        child = child_of(tmp_path, port, connected)
        running = asyncio.create_task(child.run())
        await until(lambda: child.pid == os.getpid())
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        child.close()
    assert asked == [f"127.0.0.1:{port}"] * 3
    assert "no router is started" not in caplog.text
    assert "goes on serving" in caplog.text


async def test_somebody_else_on_the_address_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(router_child, "CONNECTS_S", 0.0)
    asked: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def connected(address: str) -> None:
            asked.append(address)

        child = child_of(tmp_path, server.getsockname()[1], connected)
        running = asyncio.create_task(child.run())
        await until(lambda: len(asked) > 3)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert caplog.text.count("no router is started") == 1
    assert f"PID {os.getpid()} (" in caplog.text
