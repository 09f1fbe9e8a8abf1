"""Finding central, and talking to it."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisord_cp.cli.client import ControlClient, NotFound
from supervisord_cp.cli.connect import find_central, person_token, reachable
from supervisord_cp.errors import SupervisordError, UsageError
from tests.cli.conftest import Run
from tests.cli.samples import STATUS
from tests.cli.stub import StubCentral


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that is bound by us and on which nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def test_unreachable_exits_6_and_says_how_to_go_on(run: Run, closed_port: int) -> None:
    result = run("status", "--address", f"http://127.0.0.1:{closed_port}")
    assert result.exit_code == 6
    assert result.stderr.startswith(
        f"supervisord-cp: central does not answer at http://127.0.0.1:{closed_port}: "
    )
    assert "supervisord-cp up" in result.stderr


def test_something_that_is_no_central(run: Run, central: StubCentral) -> None:
    central.says("status", b"<html>")
    result = run("status")
    assert result.exit_code == 1
    assert "does not answer like a central" in result.stderr


@pytest.mark.parametrize("words", [["--address", "URL", "status"], ["status", "--address", "URL"]])
def test_the_address_may_stand_before_or_after_the_command(
    run: Run, central: StubCentral, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    central.says("status", STATUS)
    monkeypatch.setenv("SUPERVISORD_CP_ADDRESS", "http://127.0.0.1:1")
    assert run(*(central.url if word == "URL" else word for word in words)).exit_code == 0


@pytest.mark.parametrize("address", ["", "ftp://x", "http://", "http://[::1"])
def test_an_address_that_is_none(address: str) -> None:
    with pytest.raises(UsageError, match="address"):
        ControlClient(address)


def test_names_in_paths_are_quoted(central: StubCentral) -> None:
    with pytest.raises(NotFound):
        ControlClient(central.url).get("explain", "request", "a/b c?d")
    assert central.requests[0][1] == "/api/v1/explain/request/a%2Fb%20c%3Fd"


def test_a_stream_is_passed_on_whole(central: StubCentral) -> None:
    content = b"line\n" * 100_000
    central.says("instances/chat-0/logs", content)
    pieces = list(ControlClient(central.url).stream("instances", "chat-0", "logs", lines=5))
    assert b"".join(pieces) == content
    assert central.requests[0][1] == "/api/v1/instances/chat-0/logs?lines=5"


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_says_where_tokens_come_from(central: StubCentral, status: int) -> None:
    central.says("status", {"error": "a token is needed"}, status)
    with pytest.raises(SupervisordError, match=r"a token is needed.*--token-file"):
        ControlClient(central.url).get("status")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    tokens = tmp_path / "tokens"
    tokens.write_text("agent: a\nviewer: v\noperator: o\n")
    tokens.chmod(0o600)
    path = tmp_path / "config.toml"
    path.write_text('[central]\ncontrol_listen = "0.0.0.0:9301"\ntokens_file = "tokens"\n')
    return path


def test_options_come_before_the_environment_and_that_before_the_configuration(
    config: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine").write_text("t\n")
    (tmp_path / "mine").chmod(0o600)
    environment = {"SUPERVISORD_CP_ADDRESS": "http://e:1", "SUPERVISORD_CP_TOKEN": "e"}
    assert _found(find_central("http://o:1", tmp_path / "mine", config, environment)) == ("http://o:1", "t")
    assert _found(find_central(None, None, config, environment)) == ("http://e:1", "e")
    assert _found(find_central(None, None, config, {})) == ("http://127.0.0.1:9301", "o")
    assert _found(find_central(None, None, None, {})) == ("http://127.0.0.1:9001", "")


def test_a_host_with_an_agent_only_knows_central_from_it(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text('[agent]\ncentral = "http://10.1.1.1:9001"\n')
    assert _found(find_central(None, None, path, {})) == ("http://10.1.1.1:9001", "")


def test_a_mistake_in_the_configuration_hides_nobody(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text(f"{config.read_text()}[deployments.chat]\nreplicas = -1\n")
    assert _found(find_central(None, None, config, {})) == ("http://127.0.0.1:9301", "o")
    assert capsys.readouterr().err == f"{config} has mistakes: supervisord-cp config check {config}\n"


def _found(client: ControlClient) -> tuple[str, str]:
    return client.address, client._token


def test_the_token_is_sent(run: Run, central: StubCentral, tmp_path: Path) -> None:
    central.says("status", STATUS)
    path = tmp_path / "token"
    path.write_text("secret\n")
    path.chmod(0o600)
    assert run("status", "--token-file", str(path)).exit_code == 0
    assert central.tokens == ["Bearer secret"]


@pytest.mark.parametrize(
    ("text", "token"),
    [
        ("plain\n", "plain"),
        ("# ours\noperator: o\n", "o"),
        ("agent: a\nviewer: v\n", "v"),
        ("agent: a\n", "a"),
    ],
)
def test_token_files(tmp_path: Path, text: str, token: str) -> None:
    path = tmp_path / "token"
    path.write_text(text)
    path.chmod(0o600)
    assert person_token(path) == token


@pytest.mark.parametrize("text", ["", "one\ntwo\n"])
def test_token_files_without_a_token_for_people(tmp_path: Path, text: str) -> None:
    path = tmp_path / "token"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(UsageError, match="holds no token"):
        person_token(path)


def test_a_token_file_that_is_not_there(run: Run, central: StubCentral) -> None:
    result = run("status", "--token-file", "/nowhere")
    assert result.exit_code == 2
    assert "/nowhere cannot be read" in result.stderr
    assert not central.requests


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "http://127.0.0.1:1"),
        ("::", "http://[::1]:1"),
        ("::1", "http://[::1]:1"),
        ("gpu-a", "http://gpu-a:1"),
    ],
)
def test_wildcards_are_reached_at_loopback(host: str, url: str) -> None:
    assert reachable(host, 1) == url
