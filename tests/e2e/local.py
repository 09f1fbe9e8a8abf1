"""`supervisord-cp up` as a process, and what it leaves behind."""

import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeVar

import psutil

from tests.ports import free_ports
from tests.waiting import PATIENCE_S, eventually

MARK: Final = "E2E_MARK"
"""A variable that every process of one `up` inherits, engines included: it finds what is left."""

T = TypeVar("T")

CONFIG: Final = """
[central]
control_listen = "127.0.0.1:{control}"
state_dir = "central"
settle_s = 0
[router]
api_listen = "127.0.0.1:{api}"
central = "http://127.0.0.1:{control}"
[agent]
central = "http://127.0.0.1:{control}"
listen = ""
state_dir = "agent"
log_dir = "logs"
device = "cpu"
ports = "{first}-{last}"
{agent}
{deployments}"""


def configured(folder: Path, deployments: str, agent: str = "slots = 2") -> Path:
    """A file for a host with everything, on free ports and in this folder; `agent`: more of its table."""
    api = free_ports(20)
    numbers = {"api": api, "control": api + 1, "first": api + 2, "last": api + 19}
    path = folder / "config.toml"
    path.write_text(CONFIG.format(agent=agent, deployments=deployments, **numbers))
    return path


class Up:
    """One running `up`."""

    def __init__(self, folder: Path, words: Sequence[str], environ: Mapping[str, str] = os.environ) -> None:
        self.state_dir = folder / "state"
        self.mark = secrets.token_hex(8)
        self._output = folder / f"output-{self.mark}"
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [*PROGRAM, "up", "--state-dir", str(self.state_dir), *words],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**environ, MARK: self.mark},
                cwd=folder,
            )

    @property
    def output(self) -> str:
        return self._output.read_text()

    def said(self, pattern: str) -> str:
        """Wait until a line matches; its first group, or the whole match."""

        def look() -> re.Match[str] | None:
            found = re.search(pattern, self.output, re.MULTILINE)
            assert found or self.process.poll() is None, f"ended without saying {pattern!r}:\n{self.output}"
            return found

        match = eventually(look, f"{pattern!r}", tell=lambda: self.output)
        return match[match.lastindex or 0]

    @property
    def api(self) -> str:
        return self.said(r"^API +(\S+)/v1$")

    @property
    def control(self) -> str:
        return self.said(r"^Control +(\S+)$")

    @property
    def curl(self) -> str:
        return self.said(r"^(curl .*)$")

    def ready(self) -> "Up":
        """Wait until everything that is wanted is ready."""
        self.said(r"engines? ready\. Ctrl-C")
        return self

    def ask(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a client command against it."""
        return run(*words, "--address", self.control)

    def look(self, what: str) -> Any:
        """The JSON of a listing."""
        return json.loads(self.ask(what, "-o", "json").stdout)

    def instances(self) -> dict[str, dict[str, Any]]:
        """Instances by id."""
        return {item["id"]: item for item in self.look("instances")}

    def processes(self) -> list[psutil.Process]:
        """Everything that it has started and that lives, itself included; zombies do not."""
        return list(marked(self.mark))

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to end and wait for that; the exit status."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)

    def close(self) -> None:
        """End it, if it has not ended, and kill what is left of it."""
        if self.process.poll() is None:
            try:
                self.stop()
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                process.kill()


PROGRAM: Final = (sys.executable, "-m", "supervisord_cp")


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the program to its end."""
    return subprocess.run(
        [*PROGRAM, *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
        stdin=subprocess.DEVNULL,
    )


def marked(mark: str) -> Iterator[psutil.Process]:
    """Living processes with this mark in their environment."""
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                yield process
        except psutil.Error:
            continue


@contextmanager
def running(folder: Path, *words: str, environ: Mapping[str, str] = os.environ) -> Iterator[Up]:
    """An `up` on free ports (unless a file, `-c`, says which) that is ended, with all that is left of it,
    when the block is left."""
    ports = () if "-c" in words else ("--api", "127.0.0.1:0", "--control", "127.0.0.1:0")
    up = Up(folder, (*ports, *words), environ)
    try:
        yield up
    finally:
        up.close()


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


def bindable(port: int) -> bool:
    """Whether nobody listens there, as a server would find out."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
        except OSError:
            return False
    return True
