"""`doctor` as it is typed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ports import free_ports

pytestmark = pytest.mark.process


def doctor(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "supervisord_cp", "doctor", *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def test_a_broken_configuration_is_all_that_is_told(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[agent]\nslotz = 2\n")
    ended = doctor("-c", str(path))
    assert ended.returncode == 3
    assert "slots" in ended.stdout
    assert "driver" not in ended.stdout


def test_a_host_is_looked_at_as_its_configuration_says(tmp_path: Path) -> None:
    token = tmp_path / "agent-token"
    token.write_text("secret-canary-0123456789\n")
    token.chmod(0o644)
    first = free_ports(12)
    path = tmp_path / "config.toml"
    path.write_text(
        f'[agent]\ncentral = "http://127.0.0.1:{first}"\ntoken_file = "agent-token"\n'
        f'listen = "127.0.0.1:{first + 1}"\nports = "{first + 2}-{first + 11}"\ndevice = "cpu"\n'
        'state_dir = "state"\nlog_dir = "logs"\n[agent.allow]\nexecutables = []\n'
    )
    ended = doctor("-c", str(path), "-o", "json")
    assert ended.returncode == 3
    found = {one["subject"]: one for one in json.loads(ended.stdout)}
    assert found["[agent] token_file"]["level"] == "error"
    assert found["central"]["level"] == "error"
    assert found["engine ports"]["level"] == "ok"
    assert "[central] state_dir" not in found
    assert "canary" not in ended.stdout + ended.stderr
    assert not (tmp_path / "state").exists(), "it changes nothing"
