"""Every command of the README and of the quick starts is run, in its order, and prints what they say."""

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from supervisord_cp.adapters.nvml import has_gpu
from tests.e2e.local import MARK, PROGRAM, Up, marked, running
from tests.ports import free_ports
from tests.shape.sources import ROOT
from tests.waiting import PATIENCE_S, eventually

pytestmark = pytest.mark.process

QUICK = "docs/quickstart.md"
CHINESE = "docs/quickstart.zh.md"
README = "README.md"
GPU_S = 30.0

STARTS = ".venv/bin/supervisord-cp up"
"""What the fixture runs."""
ELSEWHERE = {
    "python3 -m venv .venv": "tests/sdk/test_installed.py",
    ".venv/bin/pip install -q .": "tests/sdk/test_installed.py",
    ".venv/bin/pip install -q -e '.[test]'": ".ci/run",
    ".venv/bin/pytest -q": ".ci/run",
    ". .venv/bin/activate": ".ci/run",
    "supervisord-cp top": "tests/cli/test_top.py",
    "supervisord-cp up Qwen/Qwen2.5-0.5B-Instruct --vllm /opt/vllm/bin/vllm": "tests/e2e/test_up_gpus.py",
    "supervisord-cp up ./tiny-llama --vllm /opt/vllm-cpu/bin/vllm --device cpu --replicas 2": (
        "tests/e2e/test_real_vllm.py"
    ),
}
"""What needs a network, a terminal, GPUs or a vLLM, and where it is run."""
COMMAND_ENGINE = (
    "supervisord-cp up my-model --engine command --replicas 2 -- ./my-server --bind {host}:{port}"
)
OTHER = "supervisord-cp up other-model --state-dir ./other --api 127.0.0.1:9010 --control 127.0.0.1:9011"
OTHER_STATUS = "supervisord-cp status --address http://127.0.0.1:9011"
CHECK_MINE = "supervisord-cp config check my.toml"
UP_MINE = "supervisord-cp up -c my.toml"
CHECK = "supervisord-cp config check config.toml"
CENTRAL = "supervisord-cp central -c config.toml"
AGENT = "supervisord-cp agent -c config.toml"
APART = (COMMAND_ENGINE, OTHER, OTHER_STATUS, CHECK_MINE, UP_MINE, CHECK, CENTRAL, AGENT)
"""What has a test of its own below."""


def fenced(document: str) -> list[tuple[str, str]]:
    """Language and text of each fenced block."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / document).read_text(), re.MULTILINE | re.DOTALL)


def blocks(document: str, language: str) -> list[str]:
    return [text for kind, text in fenced(document) if kind == language]


def commands(document: str) -> list[str]:
    """All commands, in their order, without prompts, comments and output."""
    found: list[str] = []
    for kind, block in fenced(document):
        prompt = {"sh": "", "console": "$ "}.get(kind)
        if prompt is None:
            continue
        for line in (line for line in block.splitlines() if line.startswith(prompt)):
            bare = re.sub(r"\s+#\s.*$", "", line.removeprefix(prompt))
            found += [part.strip() for part in bare.split(" && ")]
    return found


def plain(command: str) -> str:
    """As it is with the environment activated."""
    return command.replace(".venv/bin/supervisord-cp ", "supervisord-cp ")


def walked(document: str) -> list[str]:
    """The commands that are run one after the other against one `up`."""
    return [
        each
        for each in commands(document)
        if each != STARTS and each not in ELSEWHERE and plain(each) not in ELSEWHERE and each not in APART
    ]


class Reader:
    """Somebody who types what is written, in a home of their own."""

    def __init__(self, folder: Path, control: str = "") -> None:
        self.folder = folder
        self.environ = home(folder) | ({"SUPERVISORD_CP_ADDRESS": control} if control else {})
        self._pid = 0

    def types(self, command: str) -> str:
        """Run it to its end (or to its first line, when it follows); what it printed."""
        words = shlex.split(command.replace("PID", str(self._pid)))
        if words[0] == "kill":
            os.kill(int(words[2]), signal.SIGKILL)
            return ""
        assert words[0] == "supervisord-cp", command
        if words[-1] == "-f":
            return self._first_line(words[1:])
        done = self.run(words[1:])
        looks = words[1] == "doctor"
        assert done.returncode in ((0, 3) if looks else (0,)), (command, done.stdout, done.stderr)
        if words[1] == "instances":
            self._pid = int(done.stdout.splitlines()[1].split()[3])
        return done.stdout

    def run(self, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*PROGRAM, *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
            stdin=subprocess.DEVNULL,
            cwd=self.folder,
            env=self.environ,
        )

    def _first_line(self, words: Sequence[str]) -> str:
        following = subprocess.Popen(
            [*PROGRAM, *words], stdout=subprocess.PIPE, text=True, cwd=self.folder, env=self.environ
        )
        try:
            assert following.stdout is not None
            return following.stdout.readline()
        finally:
            following.send_signal(signal.SIGINT)
            following.communicate(timeout=PATIENCE_S)


def home(folder: Path) -> dict[str, str]:
    """The environment of somebody with an empty home and no vLLM."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("SUPERVISORD_", "XDG_"))
    }
    return kept | {"HOME": str(folder), "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("home")
    words = ("--engine", "fake") if has_gpu(GPU_S) else ()
    with running(folder, *words, environ=home(folder)) as up:
        yield up.ready()


def test_every_command_is_run_here_or_somewhere_else() -> None:
    walks = {each for document in (QUICK, CHINESE) for each in walked(document)}
    for document in (README, QUICK, CHINESE):
        for command in commands(document):
            known = {*walks, *APART, *ELSEWHERE, STARTS}
            assert {command, plain(command)} & known, f"{document}: {command}"
    for where in ELSEWHERE.values():
        assert (ROOT / where).exists()
    assert walked(README) == []


def test_the_chinese_quick_start_has_commands_of_the_english_one_and_of_the_help() -> None:
    looks = {"top", "events -f", "doctor", "explain instance fake-llama-0"}
    mine = set(commands(CHINESE)) - {f"supervisord-cp {look}" for look in looks}
    assert mine <= set(commands(QUICK))


@pytest.mark.parametrize("document", [QUICK, CHINESE])
def test_walk(document: str, up: Up) -> None:
    reader = Reader(up.state_dir.parent, up.control)
    for command in walked(document):
        before = up.instances()
        shown = reader.types(command)
        if command == "kill -9 PID":
            eventually(lambda before=before: replaced(before, up.instances()), "it is back with another PID")
        elif "drain" in command:
            eventually(lambda: up.instances()["fake-llama-0"]["state"] == "stopped", "it is held")
        else:
            eventually(lambda: settled(up), f"all is quiet after {command}", tell=lambda: str(up.instances()))
            assert shown or "scale" in command, command


def replaced(before: Mapping[str, dict[str, object]], after: Mapping[str, dict[str, object]]) -> bool:
    ready = all(one["ready"] for one in after.values())
    return ready and [one["pid"] for one in before.values()] != [one["pid"] for one in after.values()]


def settled(up: Up) -> bool:
    held = any(one["state"] == "stopped" for one in up.instances().values())
    (deployment,) = up.look("deployments")
    moving = deployment["starting"] or deployment["draining"] or deployment["progress"]
    return not moving and (held or deployment["ready"] == deployment["wanted"])


def test_what_up_prints_is_what_is_written(up: Up) -> None:
    if has_gpu(GPU_S):
        pytest.skip("it is written for a host without a GPU")
    (example,) = [block for block in blocks(QUICK, "") if block.startswith("No GPU here")]
    for line in example.splitlines():
        if line.endswith(": starting"):
            continue  # an engine may be ready before it is looked at
        pattern = re.escape(line).replace(re.escape("/home/you/.local/state/supervisord-cp/logs"), r"\S+")
        pattern = re.sub(r"http://127\\\.0\\\.0\\\.1:\d+", r"http://\\S+", pattern).replace("…", ".*")
        pattern = pattern.replace(r"cp\ status", r"cp\ status(?: --address \S+)?")
        assert re.search(rf"^{pattern}$", up.output, re.MULTILINE), line


def test_what_status_prints_is_what_is_written(up: Up) -> None:
    (block,) = [block for block in blocks(QUICK, "console") if "fleet OK" in block]
    written = block.partition("$ supervisord-cp status\n")[2]
    eventually(lambda: up.look("status")["healthy"], "all engines are back from what was tried before")
    shown = Reader(up.state_dir.parent, up.control).types("supervisord-cp status")
    assert shape(shown) == shape(written)


def shape(text: str) -> list[list[str]]:
    """Words of each line, without what time and version do to them."""
    return [re.sub(r"central \S+ up \S+", "central", line).split() for line in text.splitlines()]


def test_the_sections_of_explain_are_those_that_are_written(up: Up) -> None:
    """As far as there is something to tell: nothing limits two fake engines."""
    known = set(re.findall(r"^([a-z][a-z ,]*):$", (ROOT / "docs/autoscaling.md").read_text(), re.MULTILINE))
    shown = Reader(up.state_dir.parent, up.control).types("supervisord-cp explain deployment fake-llama")
    first, *lines = shown.splitlines()
    assert re.fullmatch(r"fake-llama: \d+ wanted \(\d+ ready, \d+ starting, \d+ draining\)", first)
    found = {line.removesuffix(":") for line in lines if re.fullmatch(r"[a-z][a-z ,]*:", line)}
    assert found
    assert found <= known | {"events"}


def test_the_python_example(up: Up, capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = blocks(QUICK, "python")
    exec(example.replace("http://127.0.0.1:9000", up.api), {})
    assert "chat.completion" in capsys.readouterr().out


def test_two_at_once_and_a_file_of_ones_own(tmp_path: Path) -> None:
    port = free_ports(2)

    def moved(command: str) -> list[str]:
        return shlex.split(command.replace("9010", str(port)).replace("9011", str(port + 1)))[1:]

    reader = Reader(tmp_path)
    with started(reader, moved(OTHER), tmp_path / "output-1") as other:
        assert "2 of 2 engines ready" in other
        assert reader.run(moved(OTHER_STATUS)).stdout.startswith("fleet OK")
    (tmp_path / "my.toml").write_text((tmp_path / "other" / "up.toml").read_text())
    assert reader.run(moved(CHECK_MINE)).returncode == 0
    with started(reader, moved(UP_MINE), tmp_path / "output-2"):
        assert reader.run(moved(OTHER_STATUS)).stdout.startswith("fleet OK")


@contextlib.contextmanager
def started(reader: Reader, words: Sequence[str], output: Path) -> Iterator[str]:
    """An `up` that is ready; what it has said."""
    with output.open("wb") as out:
        process = subprocess.Popen(
            [*PROGRAM, *words], stdout=out, stderr=out, cwd=reader.folder, env=reader.environ
        )
    try:
        eventually(lambda: "engines ready. Ctrl-C" in output.read_text(), "ready", tell=output.read_text)
        yield output.read_text()
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0


SERVER = """\
#!{python}
import http.server, sys
host, port = sys.argv[sys.argv.index("--bind") + 1].split(":")

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

http.server.ThreadingHTTPServer((host, int(port)), Handler).serve_forever()
"""


def test_a_server_of_ones_own(tmp_path: Path) -> None:
    server = tmp_path / "my-server"
    server.write_text(SERVER.format(python=sys.executable))
    server.chmod(0o755)
    words = shlex.split(COMMAND_ENGINE)[2:]
    split = words.index("--")
    with running(tmp_path, *words[:split], *words[split:], environ=home(tmp_path)) as up:
        assert len(up.ready().instances()) == 2


def test_the_daemons_of_the_readme(tmp_path: Path) -> None:
    port = free_ports(8)
    (tmp_path / "config.toml").write_text(
        f'[central]\ncontrol_listen = "127.0.0.1:{port}"\nstate_dir = "central"\nsettle_s = 0.0\n'
        f'[router]\napi_listen = "127.0.0.1:{port + 1}"\ncentral = "http://127.0.0.1:{port}"\n'
        f'[agent]\ncentral = "http://127.0.0.1:{port}"\nlisten = ""\nstate_dir = "agent"\nlog_dir = "logs"\n'
        f'device = "cpu"\nports = "{port + 2}-{port + 7}"\n'
        '[deployments.chat]\nengine = "fake"\nmodel = "fake-llama"\n'
    )
    reader = Reader(tmp_path, f"http://127.0.0.1:{port}")
    reader.environ[MARK] = mark = f"readme-{port}"
    reader.types(CHECK)
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        for command in (CENTRAL, AGENT):
            with (tmp_path / "log").open("ab") as log:
                words = [*PROGRAM, *shlex.split(command)[1:]]
                daemons.append(
                    subprocess.Popen(words, stdout=log, stderr=log, cwd=tmp_path, env=reader.environ)
                )
        eventually(
            lambda: reader.run(["status"]).stdout.startswith("fleet OK"),
            "the fleet is well",
            tell=(tmp_path / "log").read_text,
        )
        (chat,) = json.loads(reader.run(["instances", "-o", "json"]).stdout)
        assert chat["ready"]
    finally:
        for process in marked(mark):
            with contextlib.suppress(Exception):
                process.kill()
        for daemon in daemons:
            daemon.wait(PATIENCE_S)
