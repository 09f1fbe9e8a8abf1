"""`policy list | check | test | reload`."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from supervisord_cp.cli import policy as policy_commands
from supervisord_cp.cli.main import program
from supervisord_cp.cli.policy import policies_sheet
from supervisord_cp.plugin_host import trial
from tests.plugins.files import likes, scorer, write


def run(*words: str) -> Result:
    return CliRunner().invoke(program, ["policy", *words])


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials in this process."""
    monkeypatch.setattr(trial, "try_out", trial.judge)


@pytest.mark.usefixtures("here")
class TestCheck:
    def test_a_good_file(self, tmp_path: Path) -> None:
        path = write(tmp_path, "a.py", likes("mine", 0))
        result = run("check", str(path))
        assert result.exit_code == 0
        assert result.output == f'{path} is fine: scorer "mine", 63 questions answered\n'

    @pytest.mark.parametrize(
        ("text", "line", "message"),
        [
            ("def f(:\n", 1, "not Python: invalid syntax"),
            (scorer("mine", "return 1 / 0"), 5, "it raised ZeroDivisionError"),
            ("x = 1\n", 1, "declares no policy"),
        ],
    )
    def test_a_bad_file_is_told_with_its_line(
        self, tmp_path: Path, text: str, line: int, message: str
    ) -> None:
        path = write(tmp_path, "a.py", text)
        result = run("check", str(path))
        assert result.exit_code == 2
        assert result.stdout == ""
        assert result.stderr.startswith(f"{path}:{line}")
        assert message in result.stderr

    def test_parameters_can_be_given(self, tmp_path: Path) -> None:
        before = "class P(Value, frozen=True, kw_only=True):\n    a: int\n    b: str = 'x'\n"
        body = "return [float(context.params.a)] * len(candidates)"
        path = str(write(tmp_path, "a.py", scorer("mine", body, before=before, arguments="params=P")))
        assert "not asked anything: without --params" in run("check", path).output
        assert "63 questions answered" in run("check", path, "--params", 'a = 3, b = "y"').output
        assert 'has no parameter "c"; known: a, b' in run("check", path, "--params", "c = 3").output
        assert "not TOML" in run("check", path, "--params", "a = ").output

    def test_a_file_that_is_not_there(self) -> None:
        assert run("check", "/nowhere/x.py").exit_code == 2


@pytest.mark.usefixtures("here")
@pytest.mark.process
@pytest.mark.parametrize(
    ("test", "status", "told"),
    [
        ("def test_it():\n    import mine\n    assert mine.score\n", 0, "is fine"),
        ("def test_it():\n    assert False\n", 1, "failed; pytest ended with status 1"),
        ("", 2, "has no test"),
        (None, 0, "it has no tests of its own"),
    ],
)
def test_own_tests_are_run(
    tmp_path: Path, test: str | None, status: int, told: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, "mine.py", likes("mine", 0))
    if test is not None:
        (tmp_path / "tests").mkdir()
        write(tmp_path / "tests", "test_mine.py", test)
    result = run("test", str(path))
    capfd.readouterr()
    assert (result.exit_code, told in result.output) == (status, True)


@pytest.mark.usefixtures("here")
@pytest.mark.process
def test_own_tests_want_pytest_and_say_how_it_is_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "mine.py", likes("mine", 0))
    write(tmp_path, "test_mine.py", "def test_it():\n    pass\n")
    monkeypatch.setattr("supervisord_cp.cli.policy.find_spec", lambda name: None)
    result = run("test", str(path))
    assert result.exit_code == 2
    assert "test_mine.py needs pytest: " in result.output
    assert "-m pip install pytest" in result.output


# --- what central says


class Central:
    """Answers as central would."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def get(self, *path: str) -> Any:
        assert path == ("policies",)
        return self.answer

    def post(self, *path: str, body: Any, timeout_s: float) -> Any:
        assert path == ("policies", "reload")
        return self.answer


@pytest.fixture
def central(monkeypatch: pytest.MonkeyPatch) -> Central:
    made = Central([])
    monkeypatch.setattr("supervisord_cp.cli.connect.find_central", lambda *_: made)
    return made


FROM = "/p/mine.py@0123456789ab"
ROW: dict[str, Any] = {
    "name": "mine", "kind": "scorer", "origin": "file", "where": "/p/mine.py", "summary": "What it does.",
    "version": "0123456789ab", "used_by": ["chat"], "calls": 12, "failures": 3, "breaker_open": False,
    "problem": "", "state": "", "shadow": [],
}  # fmt: skip
BUILT_IN: dict[str, Any] = ROW | {
    "name": "fifo",
    "origin": "built-in",
    "version": "",
    "used_by": [],
    "calls": 0,
}


@pytest.mark.parametrize(
    ("row", "state", "origin", "about"),
    [
        (ROW, "in use", FROM, "What it does."),
        (BUILT_IN, "available", "built-in", "What it does."),
        (
            ROW | {"breaker_open": True, "problem": "it broke"},
            "left alone",
            FROM,
            "it broke",
        ),
        (ROW | {"problem": "line 3"}, "old version", FROM, "line 3"),
        (ROW | {"problem": "line 3", "version": ""}, "unusable", "/p/mine.py", "line 3"),
        (ROW | {"state": "fifo: quiet"}, "in use", FROM, "fifo: quiet"),
        (
            BUILT_IN | {"shadow": [{"deployment": "chat", "decisions": 9, "agreed": 7}]},
            "in use",
            "built-in",
            "shadow of chat: agrees in 7 of 9; What it does.",
        ),
    ],
)
def test_a_row_says_how_a_policy_does(row: dict[str, Any], state: str, origin: str, about: str) -> None:
    ((_, shown, _, where, *_, last),) = policies_sheet([row]).rows
    assert (shown, where, last) == (state, origin, about)


def test_the_list(central: Central) -> None:
    central.answer = [ROW, BUILT_IN]
    lines = run("list").output.splitlines()
    assert lines[0].split() == ["POLICY", "STATE", "KIND", "FROM", "USED", "BY", "CALLS", "FAILED", "ABOUT"]
    assert lines[1].split()[:3] == ["mine", "in", "use"]
    assert json.loads(run("list", "-o", "json").output) == [ROW, BUILT_IN]


@pytest.mark.parametrize(
    ("answer", "status", "told"),
    [
        ({"problems": [], "routers": {"r": []}}, 0, "all policies can be used\n"),
        ({"problems": ["a: bad"], "routers": {"r": ["a: bad", "b: worse"]}}, 1, "a: bad\nb: worse\n"),
        (
            {"problems": [], "routers": {"r": {"error": "no answer in time"}}},
            1,
            "router r: no answer in time\n",
        ),
    ],
)
def test_reload_says_what_cannot_be_used(central: Central, answer: Any, status: int, told: str) -> None:
    central.answer = answer
    result = run("reload")
    assert result.exit_code == status
    assert result.output.removeprefix("supervisord-cp: ") == told
    assert policy_commands.RELOAD_S > trial.TIMEOUT_S
