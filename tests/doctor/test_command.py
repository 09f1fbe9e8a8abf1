"""`doctor` as it is typed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ports import free_ports

pytestmark = pytest.mark.process


def doctor(*words: str, environ: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "supervisord_cp", "doctor", *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
        env=environ,
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


def test_the_configuration_of_a_running_up_is_looked_at_and_its_warnings_told(tmp_path: Path) -> None:
    first = free_ports(12)
    path = tmp_path / "mine.toml"
    path.write_text(
        f'[agent]\ncentral = "http://127.0.0.1:{first}"\nlisten = "127.0.0.1:{first + 1}"\n'
        f'ports = "{first + 2}-{first + 11}"\ndevice = "cpu"\nstate_dir = "state"\nlog_dir = "logs"\n'
        '[deployments.chat]\nmodel = "m"\nexecutable = "/nowhere/vllm"\n'
    )
    state = tmp_path / "supervisord-cp"
    state.mkdir()
    (state / "up.lock").write_text(json.dumps({"pid": os.getpid(), "config": str(path)}))
    environ = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}
    environ.pop("SUPERVISORD_CP_CONFIG", None)
    ended = doctor("-o", "json", environ=environ)
    told = [one for one in json.loads(ended.stdout) if one["subject"] == "configuration"]
    assert [one["level"] for one in told] == ["ok", "warning"], ended.stderr
    assert str(path) in told[0]["message"]
    assert "/nowhere/vllm is not in allow.executables" in told[1]["message"]


def test_what_the_up_of_a_state_directory_runs_is_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[agent]\nslotz = 2\n")
    ended = doctor("--state-dir", str(tmp_path))
    assert (ended.returncode, ended.stdout) == (2, "")
    assert f"no `up` runs in {tmp_path}; name its configuration with -c FILE" in ended.stderr
    (tmp_path / "up.lock").write_text(json.dumps({"pid": os.getpid(), "config": str(path)}))
    ended = doctor("--state-dir", str(tmp_path))
    assert f"{path}:2" in ended.stdout
