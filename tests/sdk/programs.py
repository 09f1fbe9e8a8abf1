"""Engines as processes, and programs that use them through the Python API as it is installed."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

from tests.ports import free_ports
from tests.waiting import PATIENCE_S, eventually

LLAMA_7B = "meta-llama/Llama-2-7b"
LLAMA_70B = "meta-llama/Llama-2-70b"
HOSTS = ("127.0.0.1", "127.0.0.2")
"""What stands for the machines A and B."""
QUICK = ("--fake-itl-ms", "0.2", "--disable-uvicorn-access-log")


@dataclass(frozen=True)
class Fleet:
    """What examples expect to run: four engines on each of two hosts, and one of four GPUs."""

    base: int
    """The port of the first engine on each host; the others have the next ones."""

    @property
    def tensor_parallel(self) -> int:
        """The port of the engine of four GPUs."""
        return self.base + 4

    def patched(self, code: str) -> str:
        """An example with addresses that are free here: ports in place of 8000 and 9000, loopback
        addresses in place of 192.168.1.x."""
        code = code.replace("192.168.1.100", HOSTS[0]).replace("192.168.1.101", HOSTS[1])
        return re.sub(r"\b8000\b", str(self.base), re.sub(r"\b9000\b", str(self.tensor_parallel), code))


@contextmanager
def fake_fleet() -> Iterator[Fleet]:
    """Fake engines where the examples expect vLLM."""
    fleet = Fleet(free_ports(5, *HOSTS))
    with ExitStack() as stack:
        for host in HOSTS:
            for number in range(4):
                stack.enter_context(engine(fake(LLAMA_7B, host, fleet.base + number)))
        large = fake(LLAMA_70B, HOSTS[0], fleet.tensor_parallel)
        stack.enter_context(engine([*large, "--tensor-parallel-size", "4"]))
        for host in HOSTS:
            for number in range(4):
                healthy(host, fleet.base + number)
        healthy(HOSTS[0], fleet.tensor_parallel)
        yield fleet


def fake(model: str, host: str, port: int) -> list[str]:
    """The command line of a fake engine."""
    command = [sys.executable, "-m", "supervisord_cp.engines.fake", "serve", model, *QUICK]
    return [*command, "--host", host, "--port", str(port)]


@contextmanager
def engine(command: Sequence[str], output: Path | None = None, **environ: str) -> Iterator[None]:
    """Run an engine; its whole tree is killed at the end."""
    with (output or Path(os.devnull)).open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environ},
            start_new_session=True,
        )
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def healthy(host: str, port: int, patience_s: float = PATIENCE_S) -> None:
    """Wait until an engine serves."""
    eventually(lambda: get(host, port, "/health")[0] == 200, f"{host}:{port} serves", patience_s)


def get(host: str, port: int, path: str) -> tuple[int, bytes]:
    """Status and body; status 0 when nobody answers."""
    connection = HTTPConnection(host, port, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except OSError:
        return 0, b""
    finally:
        connection.close()


def run(code: str, python: Path = Path(sys.executable)) -> str:
    """What a program prints. It must end by itself and complain about nothing."""
    ended = subprocess.run(
        [python, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        cwd="/",
    )
    assert ended.returncode == 0, ended.stderr
    assert not ended.stderr, ended.stderr
    return ended.stdout
