"""`supervisord-cp up` with fake engines, from the first completion to the last process."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import psutil
import pytest

from supervisord_cp.adapters.nvml import has_gpu
from tests.e2e.load import load
from tests.e2e.local import Up, bindable, configured, port_of, run, running
from tests.waiting import PATIENCE_S, eventually

pytestmark = pytest.mark.process
MODEL = "fake-llama"
FAKE = f"""
[deployments.{MODEL}]
engine = "fake"
model = "{MODEL}"
"""


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """Two fake engines; each test leaves them as it found them."""
    with running(tmp_path_factory.mktemp("up"), "--engine", "fake") as up:
        yield up.ready()


def test_the_curl_line_works_as_printed(up: Up) -> None:
    done = subprocess.run(["sh", "-c", up.curl], capture_output=True, timeout=PATIENCE_S, check=True)
    answer = json.loads(done.stdout)
    assert answer["model"] == MODEL
    assert answer["choices"][0]["message"]["content"]


def test_what_is_printed_is_where_things_are(up: Up) -> None:
    assert up.ask("status").returncode == 0
    hint = up.said(r"^Status +supervisord-cp (.*)$")
    assert run(*hint.split()).stdout.startswith("fleet OK   1 node, 2 instances (2 ready), 1 router")
    logs = Path(up.said(r"^Logs +(.*)$"))
    assert sorted(path.name for path in logs.iterdir()) == [
        "agent.log", "central.log", "engines", "router.log",
    ]  # fmt: skip


def test_two_instances_are_ready_and_a_table_shows_them(up: Up) -> None:
    instances = up.instances()
    assert {name: item["state"] for name, item in instances.items()} == {
        f"{MODEL}-0": "ready",
        f"{MODEL}-1": "ready",
    }
    table = up.ask("instances").stdout
    assert all(str(item["pid"]) in table for item in instances.values())


def test_logs_and_events_tell_of_the_engines(up: Up) -> None:
    assert up.ask("logs", f"{MODEL}-0", "-n", "3").stdout.count("\n") == 3
    assert f"instance.state {MODEL}-0 ready" in up.ask("events").stdout


def test_a_second_up_says_where_the_first_one_is(up: Up) -> None:
    second = run("up", "--engine", "fake", "--state-dir", str(up.state_dir))
    assert second.returncode == 1
    assert f"already running in {up.state_dir}: pid {up.process.pid}" in second.stderr
    assert up.api in second.stderr
    assert up.control in second.stderr


def test_ports_that_are_taken_are_named(up: Up, tmp_path: Path) -> None:
    address = up.api.removeprefix("http://")
    second = run("up", "--engine", "fake", "--state-dir", str(tmp_path / "s"), "--api", address)
    assert second.returncode == 1
    router = next(item for item in up.look("status")["routers"])
    assert f"{address} is taken by PID {router['pid']} (" in second.stderr
    assert "--api HOST:PORT" in second.stderr
    assert not (tmp_path / "s" / "up.lock").exists()


@pytest.mark.asyncio
async def test_an_engine_that_is_killed_costs_only_the_streams_open_on_it(up: Up) -> None:
    victim = f"{MODEL}-0"
    before = up.instances()[victim]
    tree = [psutil.Process(before["pid"]), *psutil.Process(before["pid"]).children(recursive=True)]
    assert len(tree) > 1
    started = asyncio.Event()
    loading = asyncio.create_task(load(up.api, MODEL, 1000, 20, started))
    await started.wait()
    os.kill(before["pid"], signal.SIGKILL)
    outcomes = await loading
    assert len(outcomes) == 1000
    failed = [item for item in outcomes if item.failure]
    assert not [item for item in failed if not item.stream or item.instance != victim], failed
    assert len(failed) <= 20
    assert {item.instance for item in outcomes} == {victim, f"{MODEL}-1"}

    def back() -> bool:
        now = up.instances()[victim]
        return now["ready"] and now["pid"] != before["pid"]

    await asyncio.to_thread(eventually, back, "the killed engine is ready again")
    assert not [process for process in tree if process.is_running()]
    after = up.instances()[victim]
    assert after["restarts"] == before["restarts"] + 1
    assert after["last_exit"]["signal"] == signal.SIGKILL
    assert up.ask("status").returncode == 0


@pytest.mark.parametrize("daemon", ["router", "central", "agent"])
def test_a_daemon_that_is_killed_is_started_again_and_engines_run_on(up: Up, daemon: str) -> None:
    before = {name: item["pid"] for name, item in up.instances().items()}
    (victim,) = [
        process for process in up.processes() if f"supervisord_cp {daemon}" in " ".join(process.cmdline())
    ]
    victim.kill()
    up.said(rf"^{daemon} ended with signal 9")

    def well_again() -> bool:
        if up.ask("status").returncode:
            return False
        status = up.look("status")
        routers = [item["pid"] for item in status["routers"] if item["connected"]]
        return status["instances"] == {"ready": 2} and routers != [victim.pid] and bool(routers)

    eventually(well_again, f"all is well after {daemon} was killed")
    assert {name: item["pid"] for name, item in up.instances().items()} == before
    done = subprocess.run(["sh", "-c", up.curl], capture_output=True, timeout=PATIENCE_S, check=True)
    assert json.loads(done.stdout)["choices"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_end_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    with running(tmp_path, "--engine", "fake") as up:
        ports = [
            port_of(up.ready().api),
            port_of(up.control),
            *(item["port"] for item in up.instances().values()),
        ]
        assert not any(map(bindable, ports))
        assert len(up.processes()) > 6
        assert up.stop(number) == 0
        assert up.processes() == []
        assert all(map(bindable, ports))
        assert not (up.state_dir / "up.lock").exists()
        assert up.output.endswith("Stopped.\n")


def test_the_end_during_the_start_leaves_nothing(tmp_path: Path) -> None:
    with running(tmp_path, "--engine", "fake") as up:
        up.said("fake engines")
        eventually(lambda: len(up.processes()) > 1, "children")
        assert up.stop() == 0
        assert up.processes() == []


def test_a_second_signal_hurries(tmp_path: Path) -> None:
    """Engines that ignore SIGTERM have a grace, an hour here, which the second signal cuts short."""
    stubborn = f"{FAKE}args = {{ fake-ignore-sigterm = true }}\nstop_grace_s = 3600\n"
    with running(tmp_path, "-c", str(configured(tmp_path, stubborn))) as up:
        up.ready().process.send_signal(signal.SIGINT)
        up.said("^Stopping: open requests finish")
        up.process.send_signal(signal.SIGINT)
        assert up.process.wait(PATIENCE_S) == 0
        assert up.processes() == []


def test_when_up_is_killed_all_ends_and_the_next_one_takes_over(tmp_path: Path) -> None:
    with running(tmp_path, "--engine", "fake") as first:
        first.ready()
        first.process.kill()
        first.process.wait()
        with running(tmp_path, "--engine", "fake") as second:
            second.ready()
            assert first.processes() == []


def test_a_configuration_file_of_ones_own(tmp_path: Path) -> None:
    with running(tmp_path, "--engine", "fake", "--replicas", "1") as up:
        up.ready()
    own = tmp_path / "own.toml"
    own.write_text(
        (up.state_dir / "up.toml").read_text().replace("start_router = false", "start_router = true")
    )
    second = Up(tmp_path, ("-c", str(own)))
    try:
        second.ready()
        assert second.api == up.api
        assert second.stop() == 0
        assert second.processes() == []
    finally:
        second.close()


@pytest.mark.skipif(has_gpu(30.0), reason="there is a GPU here")
def test_without_a_gpu_it_says_so_in_one_line(tmp_path: Path) -> None:
    with running(tmp_path) as up:
        up.ready()
        assert up.output.startswith("No GPU here: two fake engines with made-up text ")
        assert len(up.instances()) == 2


def test_a_daemon_that_cannot_run_ends_it_with_its_last_words(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "agent").write_text("not a folder")
    with running(tmp_path, "--engine", "fake") as up:
        assert up.process.wait(60) == 1
        assert "agent cannot run:" in up.output
        assert up.processes() == []


def test_a_listener_that_is_somebody_elses(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        free = ("--api", "127.0.0.1:0", "--state-dir", str(tmp_path))
        done = run("up", "--engine", "fake", *free, "--control", address)
    assert done.returncode == 1
    assert f"{address} is taken by PID {os.getpid()} (" in done.stderr


@pytest.mark.asyncio
async def test_the_end_under_load_lets_streams_finish_and_tells_those_who_wait(tmp_path: Path) -> None:
    slow = f"{FAKE}args = {{ fake-itl-ms = 10 }}\nmax_concurrency = 2\n"
    up = Up(tmp_path, ("-c", str(configured(tmp_path, slow))))
    try:
        await asyncio.to_thread(up.ready)
        async with aiohttp.ClientSession() as session:
            asked = [asyncio.create_task(stream(session, up.api)) for _ in range(5)]
            async with asyncio.timeout(PATIENCE_S):
                while await waiting(session, up.control) < 3:
                    await asyncio.sleep(0.05)
            up.process.send_signal(signal.SIGINT)
            answers = await asyncio.gather(*asked)
        assert sorted(status for status, _, _ in answers) == [200, 200, 503, 503, 503]
        assert all(data.endswith(b"data: [DONE]\n\n") for status, _, data in answers if status == 200)
        assert {reason for status, reason, _ in answers if status == 503} == {"draining"}
        assert await asyncio.to_thread(up.process.wait, PATIENCE_S) == 0
    finally:
        up.close()


async def waiting(session: aiohttp.ClientSession, control: str) -> int:
    """Requests in line."""
    async with session.get(f"{control}/metrics") as answer:
        page = await answer.text()
    return sum(int(n) for n in re.findall(r"^supervisord_cp_queue_length{.*} (\d+)$", page, re.MULTILINE))


async def stream(session: aiohttp.ClientSession, api: str) -> tuple[int, str, bytes]:
    """A stream of some seconds: its status, our reason, and its body."""
    body = {"model": MODEL, "prompt": "x", "max_tokens": 300, "ignore_eos": True, "stream": True}
    async with session.post(f"{api}/v1/completions", json=body) as answer:
        return answer.status, answer.headers.get("x-supervisord-cp-reason", ""), await answer.read()
