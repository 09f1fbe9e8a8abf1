"""The same on a real installation: `SUPERVISORD_CP_REAL_VLLM` names the folder of its environment."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisord_cp.engines.base import Capabilities
from supervisord_cp.engines.environment import base_environment
from supervisord_cp.engines.vllm import OWNED_FLAGS, PREFIXES_IN_USE, VllmEngine
from supervisord_cp.model.instance import ExitCause, Phase
from tests.engines.samples import context, spec

FOLDER = os.environ.get("SUPERVISORD_CP_REAL_VLLM", "")

pytestmark = [
    pytest.mark.real_vllm,
    pytest.mark.skipif(not FOLDER, reason="SUPERVISORD_CP_REAL_VLLM does not name a vLLM installation"),
]


@pytest.fixture(scope="module")
def found() -> Capabilities:
    return VllmEngine().probe(str(Path(FOLDER, "venv/bin/vllm")))


def ask(found: Capabilities, question: str) -> str:
    """What the installation's own Python answers."""
    return subprocess.run(
        [Path(found.executable).parent / "python", "-c", question],
        env=base_environment(os.environ),
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    ).stdout.splitlines()[-1]


def test_probe(found: Capabilities) -> None:
    version = ask(found, "import importlib.metadata; print(importlib.metadata.version('vllm'))")
    assert found.version == version
    assert found.flags == {"shutdown-timeout", "disable-access-log-for-endpoints"}


PARSER = """
from vllm.utils.argparse_utils import FlexibleArgumentParser
from vllm.entrypoints.launchers.cli_args import make_arg_parser
parser = make_arg_parser(FlexibleArgumentParser(prog="vllm serve"))
"""


def test_every_flag_of_ours_is_read_as_meant(found: Capabilities) -> None:
    asked = spec(
        model="/models/llama",
        served_names=("llama", "default"),
        args={"max_model_len": 2048, "enable-prefix-caching": False, "disable-log-stats": False, "seed": -1},
    )
    argv = VllmEngine().prepare(asked, context(device_kind="cpu"), found).argv
    read = ask(
        found,
        f"{PARSER}\nargs = parser.parse_args({list(argv[2:])!r})\n"
        "print(args.model_tag, args.host, args.port, args.served_model_name, args.max_model_len,"
        " args.enable_prefix_caching, args.disable_log_stats, args.seed, args.enforce_eager,"
        " args.shutdown_timeout, args.disable_access_log_for_endpoints)",
    )
    assert read == (
        "/models/llama 127.0.0.1 8000 ['llama', 'default'] 2048 False False -1 True 20 /health,/metrics"
    )


def test_no_other_flag_is_taken_for_one_of_ours(found: Capabilities) -> None:
    names = ask(found, f"{PARSER}\nprint(' '.join(parser._option_string_actions))").split()
    flags = {name.removeprefix("--") for name in names if name.startswith("--")}
    assert flags >= set(OWNED_FLAGS) - {"model-tag"}
    beginnings = {flag for flag in flags for owned in OWNED_FLAGS if owned.startswith(flag) and owned != flag}
    assert beginnings - set(OWNED_FLAGS) <= PREFIXES_IN_USE


def test_switches_are_what_has_no_opposite(found: Capabilities) -> None:
    answer = ask(
        found,
        f"{PARSER}\nimport argparse\nprint(' '.join(name for name, action in"
        " parser._option_string_actions.items() if type(action) is argparse._StoreTrueAction))",
    )
    assert {name.removeprefix("--") for name in answer.split() if name.startswith("--")} == found.switches


@pytest.mark.process
def test_a_whole_life(found: Capabilities, tmp_path: Path) -> None:
    """It starts as we start it, says how far it is, serves, counts, and its engine's death is told."""
    engine = VllmEngine()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    asked = spec(model=str(Path(FOLDER, "tiny-llama")), served_names=("tiny",), args={"max-model-len": 2048})
    prepared = engine.prepare(asked, context(port=port, device_kind="cpu"), found)
    log = tmp_path / "log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            prepared.argv,
            env={**base_environment(os.environ), **prepared.env},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_for(lambda: get(port, engine.ready_path(asked)) is not None or server.poll() is not None)
        assert server.poll() is None, log.read_text()
        phases = [phase for line in log.read_text().splitlines() if (phase := engine.phase(line))]
        assert list(dict.fromkeys(phases)) == [Phase.LOADING, Phase.WARMING, Phase.READY]

        complete(port, "tiny", tokens=7)
        load = engine.load(get(port, engine.metrics_path) or "")
        assert (load.running, load.waiting, load.kv_cache_usage) == (0, 0, 0.0)
        assert (load.generation_tokens_total, load.preemptions_total) == (7.0, 0.0)
        assert load.prompt_tokens_total is not None
        assert load.prompt_tokens_total > 0
        assert "GET /health" not in log.read_text()  # our polling is not logged

        os.kill(child(server.pid, "VLLM::EngineCor"), signal.SIGKILL)
        assert server.wait(60) == 0
        assert engine.classify(0, None, log.read_text(), was_ready=True) is ExitCause.ENGINE_DEAD
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def wait_for(done: Callable[[], bool]) -> None:
    for _ in range(900):
        if done():
            return
        time.sleep(0.1)
    pytest.fail("not done in time")


def get(port: int, path: str) -> str | None:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return str(answer.read().decode())
    except OSError:
        return None


def complete(port: int, model: str, tokens: int) -> None:
    body = {"model": model, "prompt": "def main(", "max_tokens": tokens, "ignore_eos": True}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.status == 200


def child(parent: int, comm: str) -> int:
    for children in Path(f"/proc/{parent}/task").glob("*/children"):
        for pid in children.read_text().split():
            if Path(f"/proc/{pid}/comm").read_text().strip() == comm:
                return int(pid)
    pytest.fail(f"no child {comm}")
