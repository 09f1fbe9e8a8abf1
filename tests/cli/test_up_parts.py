"""The parts that `up` is made of."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from supervisord_cp.adapters.listeners import bind_error, in_use, listener_of
from supervisord_cp.cli import up_lock
from supervisord_cp.cli.main import program
from supervisord_cp.cli.up import default_state_dir
from supervisord_cp.cli.up_children import USAGE_EXIT, Child, restart_delay
from supervisord_cp.cli.up_fleet import api_url, roles_of
from supervisord_cp.cli.up_host import engine_ports, metrics_listen, require_free, settled
from supervisord_cp.cli.up_plan import Wish
from supervisord_cp.cli.up_progress import Progress, ready_line, routed
from supervisord_cp.cli.up_signals import caught
from supervisord_cp.config.load import parse
from supervisord_cp.config.schema import Listen
from supervisord_cp.errors import SupervisordError, UsageError
from tests.cli.samples import CHAT, CRASHED, STARTING, STATUS

HOST = "127.0.0.1"


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which this process listens."""
    with socket.create_server((HOST, 0)) as server:
        yield server.getsockname()[1]


class Said(list[str]):
    def __call__(self, line: str) -> None:
        self.append(line)


# The lock of a state directory.


def test_a_second_lock_names_the_holder(tmp_path: Path) -> None:
    lock = up_lock.acquire(tmp_path, say=Said())
    lock.write({"pid": os.getpid(), "api": "http://a", "control": "http://c"})
    with pytest.raises(up_lock.AlreadyRunning, match=f"pid {os.getpid()}, API http://a, control http://c"):
        up_lock.acquire(tmp_path, say=Said())
    lock.release()
    assert not list(tmp_path.iterdir())
    up_lock.acquire(tmp_path, say=Said()).release()


def test_a_file_without_a_holder_is_no_lock(tmp_path: Path) -> None:
    (tmp_path / "up.lock").write_text('{"pid": 1}')
    up_lock.acquire(tmp_path, say=Said()).release()


def test_what_a_killed_up_left_behind_is_waited_for(tmp_path: Path) -> None:
    """A child that has inherited the descriptor holds the lock; the owner's pid is nobody's by now."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    lock = up_lock.acquire(tmp_path, say=Said())
    lock.write({"pid": ended.pid})
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=(lock.descriptor,))
    os.close(lock.descriptor)

    def end_child(line: str) -> None:
        said.append(line)
        child.communicate()

    said = Said()
    up_lock.acquire(tmp_path, say=end_child).release()
    assert said == [f"the `up` with pid {ended.pid} was killed; waiting for its engines to be stopped"]


def test_patience_with_leftovers_ends(tmp_path: Path) -> None:
    lock = up_lock.acquire(tmp_path, say=Said())
    try:
        with pytest.raises(up_lock.AlreadyRunning):
            up_lock.acquire(tmp_path, say=Said(), ending_s=0.0)
    finally:
        lock.release()


# Children.


def test_restarts_are_delayed_longer_each_time_up_to_a_limit() -> None:
    delays = [restart_delay(failures) for failures in range(1, 12)]
    assert delays[:3] == [0.1, 0.2, 0.4]
    assert delays == sorted(delays)
    assert delays[-1] == 30.0
    assert restart_delay(10_000) == 30.0


def started(child: Child, now: float) -> Child:
    child.start(now)
    assert child._process is not None
    child._process.wait()
    return child


def test_a_child_that_ends_is_started_again_when_it_is_time(tmp_path: Path) -> None:
    said = Said()
    child = started(Child("no-such-daemon", [], tmp_path / "log", 0), 100.0)
    assert child.watch(100.0, said) == USAGE_EXIT
    assert child.watch(100.09, said) is None
    assert child.starts == 1
    assert child.watch(100.1, said) is None
    assert child.starts == 2
    assert child._process is not None
    child._process.wait()
    assert "no-such-daemon" in child.last_words()


def test_the_end_of_a_child_is_told(tmp_path: Path) -> None:
    said = Said()
    child = Child("router", ["-c", "/nowhere"], tmp_path / "router.log", 0)
    child.start(0.0)
    child.signal(signal.SIGKILL)
    assert child._process is not None
    child._process.wait()
    assert child.watch(0.0, said) == -signal.SIGKILL
    assert said == [f"router ended with signal 9; next start in 0.1 s; see {tmp_path / 'router.log'}"]
    assert not child.running


def test_a_failure_is_told_with_the_last_line_of_the_log(tmp_path: Path) -> None:
    said = Said()
    child = Child("router", [], tmp_path / "router.log", 0)
    child._argv = [sys.executable, "-c", "print('first'); raise SystemExit('no such thing')"]
    started(child, 0.0)
    assert child.watch(0.0, said) == 1
    assert said[0].startswith("router ended with status 1: no such thing; next start in 0.1 s;")


def test_a_large_log_is_put_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("supervisord_cp.cli.up_children.LOG_KEEP_BYTES", 3)
    (tmp_path / "log").write_text("earlier")
    child = started(Child("no-such-daemon", [], tmp_path / "log", 0), 0.0)
    assert "earlier" not in child.last_words()
    assert (tmp_path / "log.1").read_text() == "earlier"


# Signals.


def test_signals_are_values() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with caught() as signals:
        assert signals.wait(0.0) == []
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGHUP)
        assert sorted(signals.wait(5.0)) == sorted([signal.SIGTERM, signal.SIGHUP])
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.asked_to_stop(5.0) == 1
        os.kill(os.getpid(), signal.SIGCHLD)
        assert signals.asked_to_stop(5.0) == 0
    assert signal.getsignal(signal.SIGTERM) is before


def test_nohup_is_respected() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with caught() as signals:
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGTERM)
            assert signals.wait(5.0) == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGHUP, before)


# Ports.


def test_a_taken_port_names_its_holder(taken: int) -> None:
    error = bind_error(HOST, taken)
    assert error is not None
    assert in_use(error)
    assert listener_of(taken).startswith(f"{os.getpid()} (")
    with pytest.raises(
        SupervisordError, match=rf"{HOST}:{taken} is taken by process {os.getpid()} .*--api HOST:PORT"
    ):
        require_free(Listen(host=HOST, port=taken), "--api")


def test_an_address_of_another_host() -> None:
    with pytest.raises(UsageError, match=r"--api 192\.0\.2\.1:9000"):
        require_free(Listen(host="192.0.2.1", port=9000), "--api")


def test_port_0_becomes_a_free_one() -> None:
    listen = settled(Listen(host=HOST, port=0))
    assert listen.port
    require_free(listen, "--api")
    assert settled(listen) == listen


def test_the_agents_metrics_stand_aside(taken: int) -> None:
    free = settled(Listen(host=HOST, port=0))
    assert metrics_listen(Listen(host=HOST, port=taken - 1), free) is None
    assert metrics_listen(Listen(host="0.0.0.0", port=free.port - 1), free) is None
    assert metrics_listen(Listen(host=HOST, port=free.port - 1), free) is None
    other = Listen(host=HOST, port=1)
    assert metrics_listen(Listen(host=HOST, port=free.port - 1), other) == free


def test_engine_ports_leave_out_what_others_want() -> None:
    first, last = engine_ports(())
    assert last - first == 99
    again, _ = engine_ports({first + 5})
    assert again > first


# What is said.


def test_only_news_is_said() -> None:
    progress = Progress()
    assert progress.news([STARTING], []) == ["chat-1: starting, loading weights, about 41s left"]
    assert progress.news([STARTING | {"eta_s": 38.0}], []) == []
    assert progress.news([STARTING | {"eta_s": 12.0}], []) == [
        "chat-1: starting, loading weights, about 12s left"
    ]
    ready = STARTING | {"state": "ready", "ready": True, "phase": "ready", "eta_s": None}
    assert progress.news([ready], []) == ["chat-1: ready"]
    assert progress.news([ready | {"uptime_s": 9.0, "requests_running": 3}], []) == []
    assert progress.news([ready | {"incarnation": "chat-1.cc"}], []) == ["chat-1: ready"]
    assert progress.news([CRASHED], []) == ["chat-2: crashed, last exit signal 9 (killed), 12s ago"]


def test_how_a_life_ended_is_said_once_with_its_evidence() -> None:
    progress = Progress()
    last = {"code": 1, "signal": None, "cause": "configuration", "age_s": 0.1, "detail": "no such model"}
    crashed = CRASHED | {"last_exit": last}
    assert progress.news([crashed], []) == [
        "chat-2: crashed, last exit code 1 (configuration), 0.1s ago, no such model"
    ]
    assert progress.news(
        [STARTING | {"id": "chat-2", "phase": "", "eta_s": None, "last_exit": last}], []
    ) == ["chat-2: starting"]


def test_what_is_about_to_start_is_no_news() -> None:
    gated = STARTING | {"state": "gated", "phase": "", "eta_s": None, "message": "not taken over yet"}
    assert Progress().news([gated], []) == []
    waiting = gated | {"reason": "awaiting_memory", "message": "waiting for 20 GiB of GPU memory, 3 GiB free"}
    assert Progress().news([waiting], []) == ["chat-1: gated, waiting for 20 GiB of GPU memory, 3 GiB free"]


def test_a_replica_that_cannot_be_placed_is_said_once() -> None:
    progress = Progress()
    unplaced = CHAT | {"cannot_place": [{"message": "no free device"}, {"message": "no free device"}]}
    assert progress.news([], [unplaced]) == ["chat: cannot place a replica: no free device"]
    assert progress.news([], [unplaced]) == []
    assert progress.news([], [CHAT]) == []
    assert progress.news([], [unplaced]) == ["chat: cannot place a replica: no free device"]


def test_that_the_agent_is_still_starting_is_no_news() -> None:
    waiting = CHAT | {"cannot_place": [{"reason": "no_nodes", "message": "no node is connected"}]}
    assert Progress().news([], [waiting]) == []


@pytest.mark.parametrize(
    ("routers", "answer"),
    [
        ([], False),
        ([{"connected": True, "version": 6}], False),
        ([{"connected": False, "version": 7}], False),
        ([{"connected": False, "version": 6}, {"connected": True, "version": 7}], True),
    ],
)
def test_routed_is_a_router_with_the_current_view(routers: list[dict[str, Any]], answer: bool) -> None:
    assert routed(STATUS | {"routers": routers}) is answer


def test_how_many_are_ready() -> None:
    assert ready_line(STATUS) == "2 of 2 engines ready."
    assert ready_line(STATUS | {"deployments": [CHAT | {"wanted": 0, "ready": 0}]}) == "Ready."


# Which daemons.


@pytest.mark.parametrize(
    ("text", "roles"),
    [
        ("[central]", ("central",)),
        ("[central]\n[agent]", ("central", "agent")),
        ('[deployments.a]\nmodel = "m"', ("central", "agent")),
        ('[deployments.a]\nengine = "none"', ("central",)),
        ("[central]\nstart_router = false\n[agent]", ("central", "agent", "router")),
    ],
)
def test_roles_of_a_file(text: str, roles: tuple[str, ...]) -> None:
    assert roles_of(parse(text)) == roles


def test_the_api_url_is_one_that_works_here() -> None:
    assert api_url(parse('[router]\napi_listen = "0.0.0.0:9000"')) == "http://127.0.0.1:9000"


# The command line of `up`.


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
