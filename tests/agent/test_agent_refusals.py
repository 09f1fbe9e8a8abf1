"""Configurations with which an agent does not start."""

import asyncio
from pathlib import Path

import pytest

from supervisord_cp.agent.app import run_agent
from supervisord_cp.config.schema import AgentConfig, Config, Listen
from supervisord_cp.errors import UsageError


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"advertise": "192.0.2.1"}, "advertise = 192.0.2.1 cannot be bound"),
        ({"advertise": "0.0.0.0"}, "every address"),
        ({"listen": Listen(host="0.0.0.0", port=1)}, "tokens_file is not set"),
        ({"token_file": Path("/nonexistent/token")}, "/nonexistent/token cannot be read"),
        ({"log_dir": Path("/dev/null/log")}, "log_dir = /dev/null/log cannot be made"),
        ({"state_dir": Path("/dev/null/state")}, "/dev/null/state cannot be used"),
        ({"backend": "systemd"}, 'backend = "systemd"'),
    ],
)
def test_what_cannot_be_is_said(tmp_path: Path, settings: dict[str, object], words: str) -> None:
    usual = {"state_dir": tmp_path / "state", "log_dir": tmp_path / "log", "device": "cpu", "listen": None}
    agent = AgentConfig(**{**usual, **settings})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=words):
        asyncio.run(run_agent(Config(agent=agent), stop_engines=False))
