"""The example policies can be used as they are, and their own tests pass."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from supervisord_cp.cli.main import program
from supervisord_cp.plugin_host.catalog import survey
from supervisord_cp.plugin_host.source import read_source
from supervisord_cp.plugin_host.trial import Subject, judge
from tests.shape.sources import ROOT

FOLDER = ROOT / "plugins"
FILES = sorted(FOLDER.glob("*.py"))


def test_there_are_examples_of_several_kinds() -> None:
    kinds = {offer.kind for offer in survey([FOLDER]) if offer.where.startswith(str(FOLDER))}
    assert {"scorer", "scheduler", "scaler"} <= kinds


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_example_is_fine_and_says_how_it_is_used(path: Path) -> None:
    text = path.read_bytes()
    verdict = judge(Subject(path=str(path), text=text))
    assert verdict.problems == ()
    assert verdict.cases
    declaration = read_source(str(path), text).declaration
    assert declaration is not None
    assert declaration.summary
    assert f'"{declaration.name}"' in text.decode().partition('"""')[2].partition('"""')[0]


@pytest.mark.process
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_examples_own_tests_pass(
    path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", "-n0")
    result = CliRunner().invoke(program, ["policy", "test", str(path)])
    shown = capfd.readouterr()
    assert result.exit_code == 0, f"{result.output}{shown.out}{shown.err}"
    assert "passed" in shown.out
