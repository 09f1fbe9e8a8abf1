"""`config check`, `config show` and `config plan` as they are run."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import tomli
from click.testing import CliRunner, Result

from supervisord_cp.cli.main import program
from supervisord_cp.config.effective import masked, plain
from supervisord_cp.config.load import parse

FAKE = '[deployments.a]\nengine = "fake"\nmodel = "m"\n'


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No configuration, address or token of this machine's."""
    monkeypatch.chdir(tmp_path)
    for name in ("CONFIG", "ADDRESS", "TOKEN"):
        monkeypatch.delenv(f"SUPERVISORD_CP_{name}", raising=False)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(program, ["config", *arguments], prog_name="supervisord-cp")


def write(text: str, name: str = "config.toml") -> str:
    Path(name).write_text(text)
    return name


def test_a_good_file_is_fine() -> None:
    write(FAKE + '[[static_instances]]\nid = "s"\ndeployment = "a"\nurl = "http://h:1"')
    result = run("check")
    assert (result.exit_code, result.stdout, result.stderr) == (
        0,
        "config.toml is fine: 1 deployment, 1 static instance\n",
        "",
    )


def test_a_bad_file_has_exit_code_2_and_every_error_on_stderr() -> None:
    write("[central]\nzzz = 1\ngpu_budget = -1", "bad.toml")
    result = run("check", "bad.toml")
    assert (result.exit_code, result.stdout) == (2, "")
    first, second = result.stderr.splitlines()
    assert first.startswith("bad.toml:2:1: central.zzz is an unknown key  (known keys: control_listen, ")
    assert second == "bad.toml:3:14: central.gpu_budget must be at least 0, not -1"


def test_what_is_suspicious_is_said_and_fine() -> None:
    write(f'[central]\nstate_dir = "none"\ntokens_file = "none"\n{FAKE}env = {{ HF_TOKEN = "s3cret" }}')
    result = run("check")
    assert result.exit_code == 0
    first, second = result.stderr.splitlines()
    assert first.startswith("warning: config.toml:3:15: central.tokens_file names ")
    assert first.endswith("/none: no such file or directory")
    assert second.startswith("warning: config.toml:7:20: deployments.a.env.HF_TOKEN is a secret")
    assert "s3cret" not in result.output


def test_what_the_files_own_agent_refuses_is_said() -> None:
    write(
        '[agent]\n[deployments.a]\nmodel = "m"\nexecutable = "/opt/vllm"\n[deployments.b]\nengine = "none"\n'
    )
    lines = run("check").stderr.splitlines()
    assert "warning: config.toml:2:14: deployments.a cannot run on this file's agent:" in lines[0]
    assert lines[0].endswith("/opt/vllm is not in allow.executables")
    assert lines[1:] == [
        'warning: config.toml:6:10: deployments.b.engine is "none" and no static instance serves it'
    ]


def test_no_file_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUPERVISORD_CP_CONFIG", "/none.toml")
    result = run("check")
    assert (result.exit_code, result.stderr) == (
        2,
        "/none.toml: there is no such file  (config.example.toml is a start)\n",
    )


def test_what_is_in_effect_is_shown_without_secrets() -> None:
    write(f'{FAKE}env = {{ HF_TOKEN = "s3cret" }}')
    shown = run("show")
    assert shown.exit_code == 0
    assert "s3cret" not in shown.output
    document = tomli.loads(shown.stdout)
    assert document["deployments"]["a"]["env"] == {"HF_TOKEN": "***"}
    assert document["router"]["max_body"] == "64MiB"
    assert json.loads(run("show", "-o", "json").stdout) == document


def test_a_bad_file_is_not_shown() -> None:
    write("[central]\nzzz = 1")
    result = run("show")
    assert (result.exit_code, result.stdout) == (2, "")


@contextmanager
def central(answer: Any) -> Iterator[tuple[str, list[str]]]:
    """A control listener that answers any GET; its address, and what it is asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(f"{self.path} {self.headers.get('Authorization', '')}".strip())
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def served(text: str) -> dict[str, object]:
    """What a central with this configuration answers."""
    return plain(masked(parse(text)))


def test_the_plan_of_a_reload() -> None:
    old = f'{FAKE}gpus = 2\nenv = {{ HF_TOKEN = "old" }}\n[deployments.b]\nmodel = "b"\n'
    new = f'{FAKE}replicas = 3\nenv = {{ HF_TOKEN = "new" }}\n[deployments.c]\nmodel = "c"\n'
    write(f"{new}[central]\nsettle_s = 1.0\n")
    Path("token").write_text("t0ken\n")
    with central(served(old)) as (address, asked):
        result = run("plan", "--address", address, "--token-file", "token")
        as_json = run("plan", "--address", address, "-o", "json")
    assert asked[0] == "/api/v1/config Bearer t0ken"
    assert (result.exit_code, result.stdout.splitlines()) == (
        0,
        [
            "- deployments.b: removed",
            "+ deployments.c: added",
            "~ deployments.a: new replicas",
            "    gpus 2 -> 1  [new replicas]",
            "    replicas 1 -> 3  [live]",
            "~ central: restart",
            "    settle_s 5.0 -> 1.0  [restart]",
        ],
    )
    removed, _, changed, _ = json.loads(as_json.stdout)
    assert removed == {"kind": "removed", "table": "deployments", "name": "b", "effect": "live", "keys": []}
    assert changed["keys"][0] == {"key": "gpus", "old": "2", "new": "1", "effect": "new replicas"}


def test_nothing_to_do() -> None:
    write(FAKE)
    with central(served(FAKE)) as (address, _):
        result = run("plan", "config.toml", "--address", address)
        assert (result.exit_code, result.stdout) == (0, "nothing changes\n")
        assert run("plan", "--address", address, "-o", "json").stdout == "[]\n"


def test_central_is_where_the_file_says() -> None:
    with central(served("")) as (address, asked):
        write(f'[central]\ncontrol_listen = "{address.removeprefix("http://")}"')
        assert "control_listen" in run("plan").stdout
    assert asked == ["/api/v1/config"]


def test_no_central_is_exit_code_6() -> None:
    write(FAKE)
    with central({}) as (address, _):
        pass
    result = run("plan", "--address", address)
    assert (result.exit_code, result.stdout) == (6, "")
    assert "does not answer" in result.stderr


def test_an_answer_that_is_no_configuration_is_refused() -> None:
    write(FAKE)
    with central(["not", "this"]) as (address, _):
        result = run("plan", "--address", address)
    assert result.exit_code == 1
    assert "does not answer with a configuration" in result.stderr
