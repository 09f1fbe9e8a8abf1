"""The program as a whole."""

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from supervisord_cp.cli.main import program
from supervisord_cp.version import __version__

COMMANDS = program.list_commands(click.Context(program))


def test_every_command_has_help() -> None:
    for name in COMMANDS:
        result = CliRunner().invoke(program, [name, "--help"])
        assert result.exit_code == 0, name
        assert result.stdout.startswith(f"Usage: program {name}"), name


def test_an_unknown_command_is_a_usage_error() -> None:
    result = CliRunner().invoke(program, ["statsu"])
    assert result.exit_code == 2
    assert "statsu" in result.stderr


def test_the_version() -> None:
    assert CliRunner().invoke(program, ["--version"]).stdout == f"supervisord-cp, version {__version__}\n"


def loaded_by(*words: str) -> set[str]:
    """Modules that an interpreter has loaded after running the program with these words."""
    script = (
        "import sys, atexit; atexit.register(lambda: print('\\n@', *sys.modules));"
        "from supervisord_cp.cli.main import program; program(sys.argv[1:])"
    )
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, check=True)
    return set(done.stdout.rpartition("@")[2].split())


def test_help_loads_nothing_heavy() -> None:
    """Which is what keeps it under 150 ms."""
    heavy = {"rich", "aiohttp", "asyncio", "psutil", "pynvml"}
    assert not heavy & loaded_by("--help")
    assert not (heavy | {"msgspec", "tomli", "http.client"}) & loaded_by("up", "--help")


def test_daemons_load_no_tables() -> None:
    script = (
        "import sys, supervisord_cp.agent.app, supervisord_cp.central.app, supervisord_cp.router.app,"
        "supervisord_cp.cli.daemons; sys.exit('rich' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


@pytest.mark.parametrize("daemon", ["central", "agent", "router"])
def test_a_wrong_configuration_is_told_without_a_traceback(daemon: str, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[central]\nstat_dir = 'x'\n[agent]\nslots = 0\n")
    result = CliRunner().invoke(program, [daemon, "-c", str(path)])
    assert result.exit_code == 2
    lines = result.stderr.splitlines()
    assert len(lines) == 2
    assert all(re.match(rf"{re.escape(str(path))}:\d+:\d+: ", line) for line in lines)


@pytest.mark.parametrize("daemon", ["central", "agent", "router"])
def test_a_daemon_needs_a_configuration(daemon: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUPERVISORD_CP_CONFIG", raising=False)
    monkeypatch.setattr("supervisord_cp.cli.options.DEFAULT_CONFIG", Path("/nowhere/config.toml"))
    result = CliRunner().invoke(program, [daemon])
    assert result.exit_code == 2
    assert "-c" in result.stderr


def test_a_parent_that_has_ended_already_ends_a_daemon(tmp_path: Path) -> None:
    result = CliRunner().invoke(program, ["router", "-c", str(tmp_path / "x"), "--with-parent", "1"])
    assert result.exit_code == 0
