"""What is said about mistakes: every one at once, at its line, with what to do about it."""

from pathlib import Path

import pytest

from supervisord_cp.config.findings import Level
from supervisord_cp.config.load import load, parse, read
from supervisord_cp.errors import ConfigErrors

HERE = Path(__file__).parent
GOLDEN = HERE / "golden"
FAKE = '[deployments.a]\nengine = "fake"\nmodel = "m"\n'
STATIC = '[[static_instances]]\nid = "s"\ndeployment = "a"\nurl = "http://h:1"\n'


def found(text: str, level: Level) -> list[str]:
    """The problems of a text, without the name of the file."""
    return [str(problem).removeprefix("configuration:") for problem in read(text).problems(level)]


def cases(name: str) -> list[tuple[str, list[str]]]:
    """Texts with the messages expected of them, which follow each text after `>> `."""
    pairs = []
    for case in (GOLDEN / name).read_text().strip().split("\n\n"):
        lines = case.splitlines()
        text = "\n".join(line for line in lines if not line.startswith(">> "))
        pairs.append((text, [line.removeprefix(">> ") for line in lines if line.startswith(">> ")]))
    return pairs


def test_ten_mistakes_are_all_reported_at_once() -> None:
    with pytest.raises(ConfigErrors) as caught:
        load(GOLDEN / "ten_mistakes.toml")
    assert caught.value.exit_code == 2
    messages = str(caught.value).replace(f"{GOLDEN}/", "")
    assert messages == (GOLDEN / "ten_mistakes.txt").read_text().strip()
    marked = [
        number
        for number, line in enumerate((GOLDEN / "ten_mistakes.toml").read_text().splitlines(), 1)
        if any(f"# {mistake}:" in line for mistake in range(1, 11))
    ]
    assert [problem.line for problem in caught.value.problems] == marked


@pytest.mark.parametrize(("text", "expected"), cases("errors.txt"))
def test_every_mistake_has_its_message(text: str, expected: list[str]) -> None:
    assert found(text, Level.ERROR) == expected
    with pytest.raises(ConfigErrors):
        parse(text)


@pytest.mark.parametrize(("text", "expected"), cases("warnings.txt"))
def test_what_is_suspicious_is_a_warning_and_no_error(text: str, expected: list[str]) -> None:
    assert found(text, Level.WARNING) == expected
    parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "[deployments.a]\nmodle = 'm'",  # not also: the model is missing
        "[deployments.a]\nengine = 'vlm'",  # not also: what engine vllm needs
        "[deployment.a]\nmodel = 'm'\n" + STATIC,  # not also: there is no deployment a
        "[deployments.a.autoscale]\nmin = 5\nmax = '2'\n[deployments.a]\nmodel = 'm'",
        "[central]\ncontrol_listen = '0.0.0.0:1'\ntokens_file = 5",
        f"{FAKE}[deployments.b]\nmodel = 'm'\nserved_name = 5",  # not also: m is served twice
        f"{FAKE}gpus = 'two'\nargs = {{ tensor-parallel-size = 2 }}",
    ],
)
def test_one_mistake_is_told_once(text: str) -> None:
    assert len(found(text, Level.ERROR)) == 1
    assert found(text, Level.WARNING) == []


@pytest.mark.parametrize(
    "text",
    [
        f"{FAKE}args = {{ max-num-batched-tokens = 4, tokenizer = 'x', hf-token = true }}",
        f"{FAKE}env = {{ TOKENIZERS_PARALLELISM = 'false', HF_TOKEN_PATH = '/run/token', API_KEY = '' }}",
        f"{FAKE}gpus = 4\nargs = {{ tensor-parallel-size = 2, pipeline-parallel-size = 2 }}",
        f"[agent.allow]\ndev_mode = true\n{FAKE}sleep = 'level1'",
        "[central]\ncontrol_listen = '0.0.0.0:9001'\ntokens_file = 't'",
        "[central]\ncontrol_listen = '127.0.0.1:0'\n[router]\napi_listen = '127.0.0.1:0'",
        "[agent]\ncentral = 'http://localhost:9001'\n[router]\ncentral = 'http://[::1]:9001'",
        f"{FAKE}served_name = 'm'\naliases = ['m']",  # the same name twice within one deployment
        "[deployments.a]\nengine = 'none'\n" + STATIC.replace('"s"', '"a-0"'),
    ],
)
def test_what_is_fine_is_not_talked_about(text: str) -> None:
    assert found(text, Level.ERROR) == []
    assert found(text, Level.WARNING) == []


def test_a_syntax_error_comes_alone_with_its_place() -> None:
    with pytest.raises(ConfigErrors) as caught:
        parse("[central]\ngpu_budget = two\nzzz = 1", Path("c.toml"))
    assert str(caught.value) == "c.toml:2:14: not TOML: invalid value  (text needs quotes)"


def test_brackets_without_end_are_refused() -> None:
    with pytest.raises(ConfigErrors, match="nested too deeply"):
        parse("a = " + "[" * 100_000)


def test_who_knows_more_adds_its_findings_before_anyone_is_told() -> None:
    reading = read(f"{FAKE}gpus = 0\nscheduler = 'no_such'\nrouter = ['load_balanced', {{ use = 'x' }}]")
    uses = {policy.value.use: policy for policy in reading.policies}
    assert {name: policy.path[2:] for name, policy in uses.items()} == {
        "no_such": ("scheduler",),
        "load_balanced": ("router", 0),
        "x": ("router", 1),
    }
    with pytest.raises(ConfigErrors) as caught:
        reading.accepted(
            [uses["x"].error("use", "is no router"), uses["no_such"].error((), "is no scheduler")]
        )
    assert [(problem.line, problem.message) for problem in caught.value.problems] == [
        (4, "deployments.a.gpus must be at least 1, not 0"),
        (5, "deployments.a.scheduler is no scheduler"),
        (6, "deployments.a.router[1].use is no router"),
    ]
