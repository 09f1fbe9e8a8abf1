"""`install systemd`: what it says, what it writes, when it refuses."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import supervisord_cp
from supervisord_cp.cli import install as command
from supervisord_cp.cli.install_steps import Put, Remove, Run, Step
from supervisord_cp.cli.install_systemd import EngineUser, Installation, closed_folder, plan, quoted
from supervisord_cp.cli.main import program
from supervisord_cp.cli.package_data import packaged
from supervisord_cp.errors import SupervisordError, UsageError
from tests.shape.sources import ROOT

HERE = Installation(python=Path("/opt/cp/bin/python3"), package=Path("/opt/cp/lib/supervisord_cp"))
ALICE = EngineUser(name="alice", group="staff", home=Path("/home/alice"))
SOURCE = ROOT / "packaging" / "systemd"


def files(steps: tuple[Step, ...]) -> list[Put]:
    return [step for step in steps if isinstance(step, Put)]


def carry_out(steps: tuple[Step, ...]) -> list[str]:
    """Do all steps but commands, as far as that is possible without a group of that name."""
    told = []
    for step in steps:
        told.append(step.told)
        if isinstance(step, Put):
            Put(path=step.path, text=step.text, mode=step.mode, keep=step.keep).do()
        elif isinstance(step, Remove):
            step.do()
    return told


def test_units_run_this_installation(tmp_path: Path) -> None:
    carry_out(plan(SOURCE, HERE, root=tmp_path))
    units = tmp_path / "etc/systemd/system"
    assert {path.name for path in units.iterdir()} == {
        "supervisord-cp-agent.service",
        "supervisord-cp-central.service",
        "supervisord-cp-router.service",
        "supervisord-cp-engine@.service",
        "supervisord-cp-engines.slice",
    }
    for unit in units.iterdir():
        text = unit.read_text()
        assert "/usr/bin/python3" not in text
        assert "dist-packages" not in text
    agent = (units / "supervisord-cp-agent.service").read_text()
    assert "ExecStart=/opt/cp/bin/python3 -m supervisord_cp agent -c /etc/supervisord-cp/config.toml" in agent
    engine = (units / "supervisord-cp-engine@.service").read_text()
    assert "ExecStart=/opt/cp/bin/python3 -I -S /opt/cp/lib/supervisord_cp/keeper/__main__.py /run/" in engine


def test_everything_else_goes_where_it_is_looked_for(tmp_path: Path) -> None:
    carry_out(plan(SOURCE, HERE, root=tmp_path))
    for name in (
        "sysusers.d/supervisord-cp.conf",
        "tmpfiles.d/supervisord-cp.conf",
        "polkit-1/rules.d/50-supervisord-cp.rules",
    ):
        assert (tmp_path / "etc" / name).is_file()
    assert stat.S_IMODE((tmp_path / "etc/supervisord-cp/config.toml").stat().st_mode) == 0o640


def test_users_and_folders_are_made_before_what_belongs_to_them() -> None:
    steps = plan(SOURCE, HERE)
    commands = [step.argv[0] for step in steps if isinstance(step, Run)]
    assert commands == ["systemd-sysusers", "systemd-tmpfiles", "systemctl"]
    [config] = [step for step in files(steps) if step.group]
    assert (config.group, config.path.name) == ("supervisord-cp", "config.toml")
    assert steps.index(config) > max(n for n, step in enumerate(steps[:-1]) if isinstance(step, Run))


def test_a_second_time_nothing_changes(tmp_path: Path) -> None:
    carry_out(plan(SOURCE, HERE, root=tmp_path))
    config = tmp_path / "etc/supervisord-cp/config.toml"
    config.write_text("# mine\n")
    told = carry_out(plan(SOURCE, HERE, root=tmp_path))
    assert {line.split()[0] for line in told} == {"same", "keep", "run"}
    assert config.read_text() == "# mine\n"


def test_an_upgrade_brings_units_up_to_date(tmp_path: Path) -> None:
    carry_out(plan(SOURCE, HERE, root=tmp_path))
    newer = Installation(python=Path("/opt/cp2/bin/python3"), package=HERE.package)
    told = carry_out(plan(SOURCE, newer, root=tmp_path))
    assert f"write  {tmp_path}/etc/systemd/system/supervisord-cp-agent.service" in told
    assert f"same   {tmp_path}/etc/systemd/system/supervisord-cp-engines.slice" in told


def test_another_user_of_engines_is_a_drop_in_that_goes_with_the_setting(tmp_path: Path) -> None:
    drop_in = tmp_path / "etc/systemd/system/supervisord-cp-engine@.service.d/50-engine-user.conf"
    carry_out(plan(SOURCE, HERE, root=tmp_path, engine_user=ALICE))
    assert drop_in.read_text().splitlines()[1:] == [
        "[Service]",
        "User=alice",
        "SupplementaryGroups=staff",
        "ReadWritePaths=/home/alice",
    ]
    assert f"remove {drop_in}" in carry_out(plan(SOURCE, HERE, root=tmp_path))
    assert not drop_in.exists()


def test_without_a_running_systemd_it_is_not_told() -> None:
    assert not any("daemon-reload" in step.told for step in plan(SOURCE, HERE, booted=False))


@pytest.mark.parametrize(
    "path", ["/opt/my apps/python3", '/opt/"cp"/python3', "/opt/$x", "/opt/a;b", "/opt/a\nb"]
)
def test_paths_that_a_unit_would_misread_are_refused(path: str) -> None:
    with pytest.raises(UsageError, match="a unit cannot name"):
        quoted(Path(path))


def test_percent_signs_are_doubled() -> None:
    assert quoted(Path("/opt/100%/python3")) == "/opt/100%%/python3"


def test_programs_that_everybody_may_run_are_behind_no_closed_folder() -> None:
    assert closed_folder(Path("/usr/bin/env")) is None


def test_the_first_closed_folder_on_the_way_is_told(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    (closed / "bin").mkdir(parents=True)
    closed.chmod(0o700)
    tmp_path.chmod(0o755)
    assert closed_folder(closed / "bin" / "python") in (closed, *tmp_path.parents)


class TestSteps:
    def test_a_file_is_replaced_as_a_whole(self, tmp_path: Path) -> None:
        step = Put(path=tmp_path / "new" / "file", text="text", mode=0o640)
        assert step.told == f"write  {step.path}"
        step.do()
        assert step.told == f"same   {step.path}"
        assert stat.S_IMODE(step.path.stat().st_mode) == 0o640
        assert [path.name for path in step.path.parent.iterdir()] == ["file"]

    def test_a_command_that_fails_ends_it(self) -> None:
        with pytest.raises(SupervisordError, match="false: exit status 1"):
            Run(argv=("false",)).do()
        with pytest.raises(SupervisordError, match="No such file"):
            Run(argv=("/nowhere/program",)).do()
        Run(argv=("true",)).do()


class TestCommand:
    @pytest.fixture(autouse=True)
    def elsewhere(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """The configuration is looked for in a folder of the test."""
        monkeypatch.setattr(command, "ROOT", tmp_path)
        (tmp_path / "etc/supervisord-cp").mkdir(parents=True)
        yield

    def run(self, *words: str) -> Result:
        return CliRunner().invoke(program, ["install", "systemd", *words])

    def test_it_needs_root(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        result = self.run()
        assert result.exit_code == 2
        assert "run it as root, or with --dry-run" in result.stderr

    def test_a_dry_run_says_everything_and_does_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        for step in (Put, Remove, Run):
            monkeypatch.setattr(step, "do", lambda _: pytest.fail("it did something"))
        result = self.run("--dry-run")
        assert result.exit_code == 0, result.output
        for word in (
            "supervisord-cp-engine@.service",
            "systemd-sysusers",
            "50-supervisord-cp.rules",
            "config.toml",
        ):
            assert word in result.stdout

    def test_an_installation_that_units_cannot_run_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        monkeypatch.setattr(command, "closed_folder", lambda _: Path("/root"))
        result = self.run()
        assert result.exit_code == 2
        assert "/root is closed to them. Install supervisord_cp where they can" in result.stderr

    def test_the_user_of_engines_is_read_from_the_configuration(self, tmp_path: Path) -> None:
        config = tmp_path / "etc/supervisord-cp/config.toml"
        config.write_text('[agent]\nbackend = "systemd"\nengine_user = "root"\n')
        assert "50-engine-user.conf" in self.run("--dry-run").stdout

    def test_a_user_that_is_not_there_is_told(self, tmp_path: Path) -> None:
        config = tmp_path / "etc/supervisord-cp/config.toml"
        config.write_text('[agent]\nbackend = "systemd"\nengine_user = "no-such-user"\n')
        result = self.run("--dry-run")
        assert result.exit_code == 2
        assert 'engine_user = "no-such-user": there is no such user' in result.stderr


class TestPackagedFiles:
    def test_in_a_checkout_they_are_beside_the_package(self) -> None:
        assert packaged("systemd") == SOURCE

    def test_in_a_wheel_they_are_inside(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        inside = tmp_path / "supervisord_cp" / "_data" / "packaging" / "systemd"
        inside.mkdir(parents=True)
        monkeypatch.setattr(supervisord_cp, "__file__", str(tmp_path / "supervisord_cp" / "__init__.py"))
        assert packaged("systemd") == inside

    def test_without_them_it_is_said_where_they_were_looked_for(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(supervisord_cp, "__file__", str(tmp_path / "supervisord_cp" / "__init__.py"))
        with pytest.raises(SupervisordError, match="no systemd files; looked at"):
            packaged("systemd")
