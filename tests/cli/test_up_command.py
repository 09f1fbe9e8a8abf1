"""What `up` takes and runs."""

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from supervisord_cp.cli.main import program
from supervisord_cp.cli.up import default_state_dir
from supervisord_cp.cli.up_fleet import api_url, roles_of
from supervisord_cp.cli.up_plan import Wish
from supervisord_cp.config.load import parse


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-c", "x.toml", "model"], "MODEL cannot be combined with -c"),
        (["-c", "x.toml", "--replicas", "2"], "--replicas cannot be combined with -c"),
        (["./no/such/folder"], "./no/such/folder is no folder"),
        (["--vllm", "/no/such/vllm"], "--vllm /no/such/vllm: no such program"),
        (["--api", "nonsense"], "must be HOST:PORT"),
        (["--replicas", "0"], "--replicas"),
    ],
)
def test_usage_errors(words: list[str], message: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(program, ["up", "--state-dir", str(tmp_path), *words])
    assert result.exit_code == 2
    assert message in result.stderr
    assert not list(tmp_path.iterdir())


def wish_of(monkeypatch: pytest.MonkeyPatch, *words: str) -> Wish:
    """What the command line asks for."""
    wishes: list[Wish] = []

    def run_wish(wish: Wish, *places: object) -> int:
        wishes.append(wish)
        return 0

    monkeypatch.setattr("supervisord_cp.cli.up_run.run_wish", run_wish)
    assert CliRunner().invoke(program, ["up", *words]).exit_code == 0
    return wishes[0]


def test_words_after_the_dashes_are_the_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    assert wish_of(monkeypatch, "--", "--seed", "1") == Wish(engine_args=("--seed", "1"))
    assert wish_of(monkeypatch, "m", "--", "--seed", "1") == Wish(model="m", engine_args=("--seed", "1"))


def test_paths_are_meant_from_where_up_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "vllm").symlink_to(sys.executable)
    wish = wish_of(monkeypatch, "models", "--vllm", "./vllm")
    assert (wish.model, wish.vllm) == (str(tmp_path / "models"), str(tmp_path / "vllm"))
    command = wish_of(monkeypatch, "m", "--engine", "command", "--", "./serve", "./x")
    assert command.engine_args == (str(tmp_path / "serve"), "./x")
    plain = wish_of(monkeypatch, "m", "--engine", "command", "--", "serve", "./x")
    assert plain.engine_args == ("serve", "./x")


def test_where_state_is_kept() -> None:
    assert default_state_dir({"XDG_STATE_HOME": "/s"}) == Path("/s/supervisord-cp")
    assert default_state_dir({}) == Path.home() / ".local/state/supervisord-cp"


@pytest.mark.parametrize(
    ("text", "roles"),
    [
        ("[central]", ("central", "router")),
        ("[central]\n[agent]", ("central", "agent", "router")),
        ('[deployments.a]\nmodel = "m"', ("central", "agent", "router")),
        ('[deployments.a]\nengine = "none"', ("central", "router")),
        ("[central]\nstart_router = false\n[agent]", ("central", "agent", "router")),
    ],
)
def test_roles_of_a_file(text: str, roles: tuple[str, ...]) -> None:
    assert roles_of(parse(text)) == roles


def test_the_api_url_is_one_that_works_here() -> None:
    assert api_url(parse('[router]\napi_listen = "0.0.0.0:9000"')) == "http://127.0.0.1:9000"
