"""Policies that a configuration names are checked with everything else in it, each mistake with its place."""

import logging
from pathlib import Path

import pytest

from supervisord_cp.config.findings import Level
from supervisord_cp.config.load import read_file
from supervisord_cp.errors import ConfigErrors
from supervisord_cp.plugin_host.checks import load_for_daemon, named_policies, policy_findings
from supervisord_cp.plugin_host.host import PolicyHost
from tests.plugins.files import likes, scorer, write

pytestmark = pytest.mark.usefixtures("tried")

MISTAKES = """\
[plugins]
paths = ["plugins"]
[deployments.chat]
engine = "fake"
model = "m"
router = ["mine", { use = "prefix", params = { bounds = 3 } }, "rondom"]
scheduler = { use = "priority", params = { ageing_s = -1 } }
shadow = "hpa"
[deployments.chat.autoscale]
max = 3
scalers = [{ use = "kpb" }, { use = "fifo" }]
"""
FOLDERS = '[plugins]\npaths = ["plugins"]\n'
CHAT = '[deployments.chat]\nengine = "fake"\nmodel = "m"\n'
SCALED = f"""\
{CHAT}[deployments.chat.autoscale]
max = 3
scalers = [{{ use = "hpa", params = {{ query = "QUERY", target_value = 1 }} }}]
[prometheus]
url = "http://127.0.0.1:9090"
queries = {{ chat_queue = "up" }}
"""
EXPECTED = [
    (6, 11, 'deployments.chat.router[0]: no routing policy is called "mine"'),
    (6, 57, 'deployments.chat.router[1].params.bounds: routing policy "prefix" has no parameter "bounds"'),
    (6, 64, 'deployments.chat.router[2]: no routing policy is called "rondom"'),
    (7, 55, 'deployments.chat.scheduler.params.ageing_s: scheduler "priority" parameter ageing_s: expected'),
    (8, 10, 'deployments.chat.shadow: "hpa" is a scaler, not a routing policy'),
    (11, 12, 'deployments.chat.autoscale.scalers[0]: no scaling policy is called "kpb"'),
    (11, 29, 'deployments.chat.autoscale.scalers[1]: "fifo" is a scheduler, not a scaling policy'),
]


def config(folder: Path, text: str) -> Path:
    (folder / "plugins").mkdir(exist_ok=True)
    path = folder / "config.toml"
    path.write_text(text)
    return path


def problems(path: Path, *, lenient: bool = False, level: Level = Level.ERROR) -> list[tuple[int, int, str]]:
    reading = read_file(path)
    host = PolicyHost(reading.config.plugins.paths)
    registry = host.look() if lenient else host.refresh(named_policies(reading))
    found = reading.problems(level, policy_findings(reading, registry, lenient=lenient))
    return [(problem.line, problem.column, problem.message) for problem in found]


def test_every_mistake_is_told_with_its_place(tmp_path: Path) -> None:
    found = problems(config(tmp_path, MISTAKES))
    assert [place[:2] for place in found] == [place[:2] for place in EXPECTED]
    assert all(text.startswith(expected) for (*_, text), (*_, expected) in zip(found, EXPECTED, strict=True))


def test_a_file_that_is_broken_is_an_error_at_its_name(tmp_path: Path) -> None:
    path = config(tmp_path, MISTAKES)
    write(tmp_path / "plugins", "mine.py", scorer("mine", "return 1 / 0"))
    message = problems(path)[0][2]
    assert 'routing policy "mine" cannot be used: ' in message
    assert "mine.py:5: an ordinary request" in message


def test_a_configuration_without_mistakes_has_none(tmp_path: Path) -> None:
    text = MISTAKES.replace("bounds", "bound").replace('"rondom"', '"random"').replace("-1", "9.5")
    text = text.replace('"hpa"', '"mine"').replace("kpb", "kpa").replace('{ use = "fifo" }', "")
    write(config(tmp_path, text).parent / "plugins", "mine.py", likes("mine", 0))
    assert problems(tmp_path / "config.toml") == []


def test_a_daemon_starts_without_what_a_file_can_mend(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = (
        '[plugins]\npaths = ["plugins"]\n[deployments.chat]\nengine = "fake"\nmodel = "m"\nrouter = "zzz"\n'
    )
    path = config(tmp_path, text)
    with caplog.at_level(logging.WARNING):
        assert load_for_daemon(path).deployments[0].router[0].use == "zzz"
    assert 'config.toml:6:10: deployments.chat.router: no routing policy is called "zzz"' in caplog.text


def test_a_daemon_does_not_run_policies_to_check_its_configuration(tmp_path: Path) -> None:
    text = (
        '[plugins]\npaths = ["plugins"]\n[deployments.chat]\nengine = "fake"\nmodel = "m"\nrouter = "mine"\n'
    )
    path = config(tmp_path, text)
    write(tmp_path / "plugins", "mine.py", scorer("mine", "return []", before="raise SystemExit('run')\n"))
    assert load_for_daemon(path).deployments


@pytest.mark.parametrize(
    "line",
    [
        'router = "fifo"',
        'router = "rondom"',
        'scheduler = { use = "fifo", params = { x = 1 } }',
        'shadow = "kpa"',
        'placer = "kpa"',
        'placer = { use = "pack", params = { x = 1 } }',
    ],
)
@pytest.mark.parametrize("folders", ['[plugins]\npaths = ["plugins"]\n', ""])
def test_a_daemon_does_not_start_with_what_no_file_can_mend(tmp_path: Path, line: str, folders: str) -> None:
    path = config(tmp_path, f"{folders}{CHAT}{line}\n")
    with pytest.raises(ConfigErrors, match=r"deployments\.chat"):
        load_for_daemon(path)


def test_a_name_that_is_unknown_where_no_folder_is_configured_is_a_mistake(tmp_path: Path) -> None:
    path = config(tmp_path, f'{CHAT}router = "zzz"\n')
    with pytest.raises(ConfigErrors, match="zzz"):
        load_for_daemon(path)


def test_a_folder_that_is_not_there_is_a_warning(tmp_path: Path) -> None:
    path = config(tmp_path, '[plugins]\npaths = ["plugins", "nope"]\n')
    assert problems(path, level=Level.WARNING) == [
        (2, 21, f"plugins.paths[1]: there is no folder {tmp_path / 'nope'}")
    ]


@pytest.mark.parametrize(
    ("written", "hint"),
    [("chat_queu", 'did you mean "chat_queue"?'), ("nope", "add `nope = 'PromQL'` to [prometheus.queries]")],
)
def test_hpa_reads_a_query_that_there_is(tmp_path: Path, written: str, hint: str) -> None:
    reading = read_file(config(tmp_path, SCALED.replace("QUERY", written)))
    [wrong] = policy_findings(reading, PolicyHost(reading.config.plugins.paths).look())
    assert wrong.message == (
        "deployments.chat.autoscale.scalers[0].params.query "
        f'is "{written}", and [prometheus.queries] has none of that name'
    )
    assert wrong.hint == hint
    right = read_file(config(tmp_path, SCALED.replace("QUERY", "chat_queue")))
    assert not list(policy_findings(right, PolicyHost(right.config.plugins.paths).look()))
