"""The process tree, its signals and its ends, on real processes."""

import os
import signal
import socket
import threading
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.engines_fake.running import Running, alive, running, status
from tests.ports import free_ports
from tests.waiting import PATIENCE_S, eventually

pytestmark = pytest.mark.process

CORE, WORKER = "VLLM::EngineCore", "VLLM::Worker"


def open_stream(engine: Running, **fields: object) -> tuple[HTTPConnection, bytes]:
    """A stream that is under way, with its first bytes."""
    body = {"prompt": "x", "max_tokens": 8000, "ignore_eos": True, "stream": True, **fields}
    connection = HTTPConnection("127.0.0.1", engine.port, timeout=PATIENCE_S)
    text = str(body).replace("'", '"').replace("True", "true")
    connection.request("POST", "/v1/completions", text, {"content-type": "application/json"})
    return connection, connection.getresponse().read1()


def test_titles_and_an_environment_that_is_wiped() -> None:
    with running("--tensor-parallel-size", "2", env={"SECRET": "x"}) as engine:
        tree = engine.ready().tree()
        assert sorted(tree) == [CORE, f"{WORKER}_TP0", f"{WORKER}_TP1"]
        assert {status(pid)["session"] for pid in tree.values()} == {str(engine.pid)}
        assert status(tree[f"{WORKER}_TP1"])["parent"] == str(tree[CORE])
        environ = Path(f"/proc/{tree[CORE]}/environ").read_bytes()
        assert b"SECRET" not in environ
        assert b"SECRET=x" in Path(f"/proc/{engine.pid}/environ").read_bytes()
    with running(env={"SPT_NOENV": "1", "SECRET": "x", "VLLM_PROCESS_NAME_PREFIX": "chat"}) as engine:
        tree = engine.ready().tree()
        assert sorted(tree) == ["chat::EngineCore", "chat::Worker"]
        assert all(b"SECRET=x" in Path(f"/proc/{pid}/environ").read_bytes() for pid in tree.values())


def test_a_killed_api_server_leaves_its_children_and_frees_its_port() -> None:
    with running() as engine:
        tree = engine.ready().tree()
        os.kill(engine.pid, signal.SIGKILL)
        assert engine.wait() == -signal.SIGKILL
        with socket.socket() as again:
            again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            again.bind(("127.0.0.1", engine.port))
        assert all(alive(pid) for pid in tree.values())
        assert status(tree[CORE])["parent"] != str(engine.pid)
        os.kill(tree[CORE], signal.SIGTERM)
        eventually(lambda: not any(alive(pid) for pid in tree.values()))


def test_sigterm_ends_the_tree_and_fails_what_is_in_flight() -> None:
    with running() as engine:
        tree = engine.ready().tree()
        connection, _ = open_stream(engine)
        response = b""
        os.kill(engine.pid, signal.SIGTERM)
        while piece := connection.sock.recv(65_536) if connection.sock else b"":
            response += piece
        connection.close()
        assert engine.wait() == 0
        assert not any(alive(pid) for pid in tree.values())
    assert b'data: {"error": {"message": "EngineCore encountered an issue.' in response
    assert b"data: [DONE]\n\n" in response


def test_sigterm_with_a_timeout_lets_requests_finish() -> None:
    with running("--shutdown-timeout", "60", itl_ms=5) as engine:
        engine.ready()
        answers: list[tuple[int, bytes]] = []
        body = {"prompt": "x", "max_tokens": 60, "ignore_eos": True}
        client = threading.Thread(target=lambda: answers.append(engine.post("/v1/completions", body)))
        client.start()
        eventually(lambda: b'"running":1' in engine.get("/fake/stats")[1])
        os.kill(engine.pid, signal.SIGTERM)
        client.join(PATIENCE_S)
        assert engine.wait() == 0
    assert answers[0][0] == 200
    assert b'"completion_tokens":60' in answers[0][1]


def test_the_drain_has_an_end() -> None:
    with running("--shutdown-timeout", "1") as engine:
        engine.ready()
        connection, _ = open_stream(engine)
        engine.post("/fake/faults", {"hang": True})
        os.kill(engine.pid, signal.SIGTERM)
        phases_until(engine, "mode=drain")
        assert b'"finish_reason":"abort"' in engine.post("/v1/completions", {"prompt": "x"})[1]
        assert engine.get("/health")[0] == 200
        assert engine.wait() == 0
        connection.close()


@pytest.mark.parametrize(("knob", "code"), [("exit0", 0), ("exit1", 1)])
@pytest.mark.parametrize("victim", [CORE, WORKER])
def test_a_dead_engine_core_ends_the_api_server(knob: str, code: int, victim: str) -> None:
    with running(on_engine_death=knob, watchdog_s=0.4) as engine:
        tree = engine.ready().tree()
        os.kill(tree[victim], signal.SIGKILL)
        eventually(lambda: engine.get("/health")[0] == 503)
        assert engine.wait() == code
        eventually(lambda: not any(alive(pid) for pid in tree.values()))


@pytest.mark.parametrize(
    "how", [{"on_engine_death": "stay"}, {"env": {"VLLM_KEEP_ALIVE_ON_ENGINE_DEATH": "1"}}]
)
def test_an_api_server_can_outlive_its_engine_core(how: dict[str, str]) -> None:
    with running(watchdog_s=0.02, **how) as engine:  # type: ignore[arg-type]
        engine.ready()
        engine.post("/fake/faults", {"engine_dies_after_s": 0})
        eventually(lambda: engine.get("/health")[0] == 503)
        assert engine.post("/v1/completions", {"prompt": "x"})[0] == 500
        assert engine.get("/health")[0] == 503
        assert engine.process.poll() is None
        os.kill(engine.pid, signal.SIGTERM)
        assert engine.wait() == 0


def test_sigterm_can_be_ignored() -> None:
    with running(ignore_sigterm=True) as engine:
        tree = engine.ready().tree()
        for pid in (engine.pid, *tree.values()):
            os.kill(pid, signal.SIGTERM)
        assert engine.get("/health")[0] == 200
        assert engine.process.poll() is None
        assert all(alive(pid) for pid in tree.values())


def test_the_end_can_hang() -> None:
    with running(shutdown_hang=True) as engine:
        tree = engine.ready().tree()
        os.kill(engine.pid, signal.SIGTERM)
        eventually(lambda: not any(alive(pid) for pid in tree.values()))
        assert engine.process.poll() is None
        engine.post("/fake/faults", {"shutdown_hang": False})
        assert engine.wait() == 0


def test_children_can_be_left_behind() -> None:
    with running(leave_children=True) as engine:
        tree = engine.ready().tree()
        os.kill(engine.pid, signal.SIGTERM)
        assert engine.wait() == 0
        assert all(alive(pid) for pid in tree.values())


@pytest.mark.parametrize("how", ["setsid", "double_fork"])
def test_workers_can_get_away(how: str) -> None:
    with running("-tp", "2", escape=how, env={"SPT_NOENV": "1", "NONCE": f"{how}-{os.getpid()}"}) as engine:
        engine.ready()
        strays = [pid for pid in with_nonce(f"{how}-{os.getpid()}") if pid != engine.pid]
        engine.seen |= set(strays)
        workers = [pid for pid in strays if status(pid)["session"] != str(engine.pid)]
        assert len(workers) == 2
        core = engine.tree()[CORE]
        assert {status(pid)["parent"] == str(core) for pid in workers} == {how == "setsid"}
        os.kill(core, signal.SIGKILL)
        eventually(lambda: engine.get("/health")[0] == 503)
        assert all(alive(pid) for pid in workers)


def with_nonce(nonce: str) -> list[int]:
    """Processes whose environment has it."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and f"NONCE={nonce}".encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize(("how", "code"), [("kill", -signal.SIGKILL), ("exit", 3)])
def test_it_can_die_in_the_middle_of_a_stream(how: str, code: int) -> None:
    with running(die_after_tokens=5, die_by=how, exit_code=3) as engine:
        tree = engine.ready().tree()
        received = raw_stream(engine)
        assert received.count(b"data: ") == 5
        assert engine.wait() == code
        assert all(alive(pid) for pid in tree.values())


def raw_stream(engine: Running) -> bytes:
    """All bytes of a stream, whether it is complete or not."""
    body = b'{"prompt": "x", "max_tokens": 50, "stream": true}'
    head = "POST /v1/completions HTTP/1.1\r\ncontent-type: application/json\r\n"
    head += f"content-length: {len(body)}\r\n\r\n"
    data = b""
    with socket.create_connection(("127.0.0.1", engine.port), timeout=PATIENCE_S) as client:
        client.sendall(head.encode() + body)
        try:
            while piece := client.recv(65_536):
                data += piece
        except ConnectionResetError:
            pass
    return data


def test_it_can_end_by_itself() -> None:
    with running(exit_after_s=0.2, exit_code=17) as engine:
        assert engine.wait() == 17
    with running() as engine:
        tree = engine.ready().tree()
        assert engine.post("/fake/faults", {"exit_after_s": 60, "exit_code": 5})[0] == 200
        engine.post("/fake/faults", {"exit_after_s": 0})
        assert engine.wait() == 5
        eventually(lambda: not any(alive(pid) for pid in tree.values()))


@pytest.mark.parametrize(
    ("failure", "code", "words"),
    [
        ("configuration", 1, "greater than the derived max_model_len"),
        ("gated_repo", 1, "gated repo"),
        ("cuda_oom", 1, "CUDA out of memory"),
        ("kv_cache", 1, "larger than the available KV cache memory"),
        ("port_in_use", 1, "Address already in use"),
        ("host_memory", -9, ""),
        ("silent", 1, ""),
    ],
)
def test_a_start_can_fail(failure: str, code: int, words: str) -> None:
    with running(fail_start=failure) as engine:
        out, err = engine.process.communicate(timeout=PATIENCE_S)
        assert engine.wait() == code
    assert words in out + err
    assert ("Engine core initialization failed" in err) == (failure in ("cuda_oom", "kv_cache"))


def test_every_failure_is_one_that_can_be_asked_for() -> None:
    from supervisord_cp.engines.fake.failures import failures
    from supervisord_cp.engines.fake.knobs import KNOBS
    from supervisord_cp.engines.fake.options import parse

    options, _ = parse(["serve", "m"], {})
    assert {"", *failures(options)} == set(KNOBS["fail_start"].metadata["choices"])


def test_a_cache_too_small_for_the_context_fails_the_start() -> None:
    with running("--max-model-len", "4096", kv_tokens=2048, fail_code=9) as engine:
        out, _ = engine.process.communicate(timeout=PATIENCE_S)
        assert engine.wait() == 9
    assert "max seq len (4096)" in out


def test_a_taken_port_fails_the_start() -> None:
    with running() as first:
        first.ready()
        with running(port=first.port) as second:
            _, err = second.process.communicate(timeout=PATIENCE_S)
            assert second.wait() == 1
        assert "OSError: [Errno 98] Address already in use" in err
        assert first.get("/health")[0] == 200


def test_until_it_is_ready_the_port_is_taken_and_clients_are_refused() -> None:
    with running(load_s=60.0) as engine:
        lines = phases_until(engine, "Starting to load model")
        assert "non-default args" in "".join(lines)
        assert engine.get("/health")[0] == 0
        with socket.socket() as other, pytest.raises(OSError, match="Address already in use"):
            other.bind(("127.0.0.1", engine.port))
        tree = engine.tree()
        os.kill(engine.pid, signal.SIGTERM)
        assert engine.wait() == -signal.SIGINT
        assert not any(alive(pid) for pid in tree.values())


def test_the_phases_are_said_in_order() -> None:
    with running(load_s=0.01, compile_s=0.01, kv_s=0.01, capture_s=0.01, never_ready=True) as engine:
        lines = phases_until(engine, "init engine")
        said = [line.split("] ", 1)[1] for line in lines]
        order = [
            "Starting to load",
            "Loading weights took",
            "torch.compile took",
            "GPU KV cache size",
            "Graph capturing",
        ]
        places = [next(index for index, line in enumerate(said) if line.startswith(words)) for words in order]
        assert places == sorted(places)
        assert engine.get("/health")[0] == 0


def phases_until(engine: Running, words: str) -> list[str]:
    """The log up to a line with these words."""
    assert engine.process.stdout is not None
    lines = []
    for line in engine.process.stdout:
        lines.append(line)
        if words in line:
            return lines
    raise AssertionError(f"{words!r} was never said: {lines}")


def test_an_engine_core_that_dies_in_the_start_fails_it() -> None:
    with running(load_s=60.0) as engine:
        phases_until(engine, "Starting to load model")
        os.kill(engine.tree()[CORE], signal.SIGKILL)
        assert engine.wait() == 1
        assert engine.process.stderr is not None
        assert "Engine core initialization failed" in engine.process.stderr.read()


def test_an_unknown_flag_ends_with_status_2() -> None:
    with running("--no-such-flag") as engine:
        _, err = engine.process.communicate(timeout=PATIENCE_S)
        assert engine.wait() == 2
    assert "unrecognized arguments: --no-such-flag" in err


def test_a_unix_socket_instead_of_a_port(tmp_path: Path) -> None:
    with running("--uds", str(tmp_path / "s")) as engine:
        eventually((tmp_path / "s").exists)
        with socket.socket(socket.AF_UNIX) as client:
            eventually(lambda: client.connect_ex(str(tmp_path / "s")) == 0)
            client.sendall(b"GET /health HTTP/1.0\r\n\r\n")
            assert client.recv(4096).startswith(b"HTTP/1.1 200 OK\r\n")
        engine.tree()


def test_the_log_goes_on_when_nobody_reads_it() -> None:
    port = free_ports(1)
    with running(port=port) as engine:
        engine.ready()
        for stream in (engine.process.stdout, engine.process.stderr):
            assert stream is not None
            stream.close()
        assert [engine.get("/health")[0] for _ in range(3)] == [200, 200, 200]
