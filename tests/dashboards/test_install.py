"""`install grafana`: what it says and writes."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from supervisord_cp.cli import install as command
from supervisord_cp.cli.install_grafana import DASHBOARDS, PROVISIONING
from supervisord_cp.cli.main import program
from supervisord_cp.obs.dashboards.files import files


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(command, "ROOT", tmp_path)
    monkeypatch.delenv("SUPERVISORD_CP_CONFIG", raising=False)
    return tmp_path


def install(*words: str) -> tuple[int, str]:
    ended = CliRunner().invoke(program, ["install", "grafana", *words])
    return ended.exit_code, ended.output


def test_everything_is_put_where_grafana_looks(root: Path) -> None:
    (root / PROVISIONING).mkdir(parents=True)
    code, output = install("--prometheus", "http://prometheus.example:9090")
    assert code == 0
    datasource = (root / PROVISIONING / "datasources" / "supervisord-cp.yaml").read_text()
    assert "url: http://prometheus.example:9090" in datasource
    assert (
        str(Path("/") / DASHBOARDS)
        in (root / PROVISIONING / "dashboards" / "supervisord-cp.yaml").read_text()
    )
    assert {path.name for path in (root / DASHBOARDS).iterdir()} == set(files())
    assert "restart grafana-server" in output


def test_a_second_time_changes_nothing_and_removes_what_is_no_longer_ours(root: Path) -> None:
    (root / PROVISIONING).mkdir(parents=True)
    install()
    old, theirs = (root / DASHBOARDS / name for name in ("supervisord-cp-old.json", "theirs.json"))
    old.write_text("{}")
    theirs.write_text("{}")
    _, output = install()
    assert "write" not in output
    assert not old.exists()
    assert theirs.exists()


def test_a_dry_run_writes_nothing(root: Path) -> None:
    code, output = install("--dry-run")
    assert (code, "write" in output) == (0, True)
    assert list(root.iterdir()) == []


def test_without_grafana_it_says_so(root: Path) -> None:
    code, output = install()
    assert (code, "install Grafana on this host first" in output) == (2, True)


def test_another_root_needs_no_grafana_here(root: Path) -> None:
    code, output = install("--root", str(root / "image"))
    assert code == 0
    assert {path.name for path in (root / "image" / DASHBOARDS).iterdir()} == set(files())
    assert "systemctl" not in output
