"""The packaged files: systemd has no complaint, and nothing in them is looser or tighter than was decided."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from supervisord_cp.adapters import systemd_share, systemd_unit
from supervisord_cp.adapters.keeper_start import KEEPER
from supervisord_cp.adapters.systemd import STATE_DIR
from supervisord_cp.cli.install_systemd import PACKAGED_PACKAGE, PACKAGED_PYTHON, Installation, plan
from supervisord_cp.config.load import load
from supervisord_cp.config.schema import AgentConfig
from supervisord_cp.ports.process import instances_directory
from tests.shape.sources import ROOT

UNITS = ROOT / "packaging" / "systemd"
NAMES = sorted(path.name for path in UNITS.iterdir() if path.suffix in (".service", ".slice"))
ENGINE = "supervisord-cp-engine@.service"
MOST = {"supervisord-cp-agent.service": 3.0, ENGINE: 2.0}
"""Of exposure, as `systemd-analyze security` counts it."""

analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="needs systemd-analyze (Debian: systemd)"
)


def directives(name: str) -> dict[str, list[str]]:
    """Values by key; a key may come several times."""
    found: dict[str, list[str]] = {}
    for line in (UNITS / name).read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def verify(folder: Path) -> str:
    """What systemd says of the units in a folder."""
    units = [str(folder / name) for name in NAMES]
    ended = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, timeout=60
    )
    return ended.stdout + ended.stderr


@analyze
def test_systemd_has_no_complaint() -> None:
    assert verify(UNITS) == ""


@analyze
def test_systemd_has_no_complaint_of_installed_units(tmp_path: Path) -> None:
    python = Path(shutil.which("python3") or "")
    for step in plan(UNITS, Installation(python=python, package=KEEPER.parent.parent), root=tmp_path)[
        : len(NAMES)
    ]:
        step.do()
    assert verify(tmp_path / "etc/systemd/system") == ""


@analyze
def test_systemd_would_complain(tmp_path: Path) -> None:
    """It exits with 0 whatever it finds, so its words count; this is to see that there are any."""
    for name in NAMES:
        (tmp_path / name).write_text((UNITS / name).read_text().replace("Restart=", "Restart=alwayz"))
    assert "alwayz" in verify(tmp_path)


@analyze
@pytest.mark.parametrize("name", MOST)
def test_exposure_is_small(name: str) -> None:
    ended = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(UNITS / name)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    level = re.search(r"Overall exposure level for \S+: ([\d.]+)", ended.stdout)
    assert level, ended.stdout + ended.stderr
    assert float(level[1]) <= MOST[name]


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith(".service")])
def test_commands_are_those_that_the_installation_adapts(name: str) -> None:
    commands = [
        command.lstrip("-")
        for key, values in directives(name).items()
        if key.startswith("Exec") and key != "ExecReload"
        for command in values
    ]
    assert commands
    assert all(command.startswith(f"{PACKAGED_PYTHON} ") for command in commands)
    for path in re.findall(rf"{PACKAGED_PACKAGE}/(\S+)", " ".join(commands)):
        assert (ROOT / "supervisord_cp" / path).is_file()


def test_an_engine_is_started_by_its_keeper() -> None:
    keeper = KEEPER.relative_to(ROOT / "supervisord_cp")
    share = Path(systemd_share.__file__).relative_to(ROOT / "supervisord_cp")
    python, folder = f"{PACKAGED_PYTHON} -I -S {PACKAGED_PACKAGE}", systemd_unit.LINKS / "%i"
    found = directives(ENGINE)
    assert found["ExecStart"] == [f"{python}/{keeper} {folder}"]
    assert found["ExecStartPost"] == found["ExecStopPost"] == [f"-{python}/{share} {folder}"]


def test_folders_are_those_that_the_agent_uses() -> None:
    folders = {line.split()[1]: line.split()[2:5] for line in lines("tmpfiles.d/supervisord-cp.conf")}
    shared = ["supervisord-cp", "supervisord-cp-engine"]
    assert folders[str(instances_directory(STATE_DIR))] == ["2750", *shared]
    assert folders[str(systemd_unit.LINKS)] == ["2750", *shared]
    assert folders[str(AgentConfig().log_dir)] == ["2770", *shared]
    assert folders[str(AgentConfig().state_dir)] == ["0700", "supervisord-cp", "supervisord-cp"]
    writable = set(directives(ENGINE)["ReadWritePaths"][0].split())
    assert {str(AgentConfig().log_dir), f"{instances_directory(STATE_DIR)}/%i"} < writable


def lines(name: str) -> list[str]:
    """Lines of a packaged file without comments."""
    text = (UNITS / name).read_text()
    return [line for line in text.splitlines() if line and not line.startswith(("#", "//"))]


def test_users_are_those_that_the_units_name() -> None:
    users = {line.split()[1] for line in lines("sysusers.d/supervisord-cp.conf")}
    named = {directives(name)["User"][0] for name in NAMES if name.endswith(".service")}
    assert named == users == {"supervisord-cp", "supervisord-cp-engine"}
    assert directives(ENGINE)["Group"] == ["supervisord-cp-engine"]
    assert directives("supervisord-cp-agent.service")["SupplementaryGroups"] == ["supervisord-cp-engine"]


def test_the_rule_allows_what_the_agent_asks_for_and_no_more() -> None:
    rule = "\n".join(lines("rules.d/50-supervisord-cp.rules"))
    prefix, _, suffix = systemd_unit.unit_of("\0").partition("\0")
    assert f"/^{prefix}{systemd_unit.NAME.pattern}{re.escape(suffix)}$/" in rule
    assert '["start", "stop", "kill", "reset-failed"]' in rule
    assert 'subject.user == "supervisord-cp"' in rule
    assert rule.count("Result.YES") == 1


def test_engines_keep_what_they_need() -> None:
    """Routers on other hosts, downloads of models, code made at run time, homes, NUMA and affinity."""
    found = directives(ENGINE)
    assert not {"IPAddressDeny", "PrivateNetwork", "MemoryDenyWriteExecute", "PrivateDevices"} & set(found)
    assert found["ProtectHome"] == ["read-only"]
    assert found["SystemCallFilter"] == ["@system-service", "~@privileged"]
    assert "AF_INET" in found["RestrictAddressFamilies"][0]


def test_an_engine_is_restarted_by_the_agent_alone() -> None:
    found = directives(ENGINE)
    assert (found["Restart"], found["StartLimitIntervalSec"]) == (["no"], ["0"])
    assert "WantedBy" not in found
    assert found["Before"] == ["supervisord-cp-agent.service"]


@pytest.mark.parametrize("name", ["agent", "central", "router"])
def test_daemons_are_always_restarted(name: str) -> None:
    found = directives(f"supervisord-cp-{name}.service")
    assert (found["Type"], found["Restart"], found["StartLimitIntervalSec"]) == (
        ["notify"],
        ["always"],
        ["0"],
    )
    assert found["WatchdogSec"] == ["60"]


def test_a_restart_of_central_spares_a_router_that_it_started() -> None:
    assert directives("supervisord-cp-central.service")["KillMode"] == ["process"]


def test_a_restart_of_the_router_spares_the_processes_that_finish_requests() -> None:
    unit = directives("supervisord-cp-router.service")
    assert unit["KillMode"] == ["process"]
    assert unit["ExecStart"][0].endswith(" --no-wait")
    assert int(unit["FileDescriptorStoreMax"][0]) > 0
    assert unit["ExecReload"] == ["/bin/kill -HUP $MAINPID"]


def test_the_packaged_configuration_is_for_the_units() -> None:
    config = load(UNITS / "config.toml")
    assert (config.agent.backend, config.central.start_router) == ("systemd", False)
