"""The fake engine as a process of its own, and its process tree."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from tests.ports import free_ports
from tests.waiting import PATIENCE_S, eventually

MODEL = "org/model"


class Running:
    """One engine process."""

    def __init__(self, process: "subprocess.Popen[str]", port: int) -> None:
        self.process = process
        self.port = port
        self.seen: set[int] = {process.pid}
        """Every process that was ever found in the tree: all of them are killed at the end."""

    @property
    def pid(self) -> int:
        return self.process.pid

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body; status 0 when nobody answers."""
        return self._request("GET", path, None)

    def post(self, path: str, body: Mapping[str, Any]) -> tuple[int, bytes]:
        return self._request("POST", path, json.dumps(body))

    def _request(self, method: str, path: str, body: str | None) -> tuple[int, bytes]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            connection.request(method, path, body, {"content-type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read()
        except OSError:
            return 0, b""
        finally:
            connection.close()

    def tree(self) -> dict[str, int]:
        """Title of each child and grandchild, and its process id."""
        found = {}
        for child in children(self.pid):
            for pid in (child, *children(child)):
                found[title(pid)] = pid
                self.seen.add(pid)
        return found

    def ready(self) -> "Running":
        """Wait until it serves, and look at its tree."""
        eventually(lambda: self.get("/health")[0] == 200 or self.process.poll() is not None, "it serves")
        assert self.process.poll() is None, self.process.communicate()
        assert self.tree()
        return self

    def wait(self) -> int:
        """The exit status."""
        return self.process.wait(PATIENCE_S)


@contextmanager
def running(
    *flags: str, env: Mapping[str, str] | None = None, port: int = 0, **knobs: Any
) -> Iterator[Running]:
    """Start an engine with these flags and knobs; whatever is left of its tree is killed at the end."""
    port = port or free_ports(1)
    command = [sys.executable, "-m", "supervisord_cp.engines.fake", "serve", MODEL]
    process = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port), *flags],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={
            "PATH": os.environ["PATH"],
            "FAKE_VLLM": json.dumps(knobs),
            "FAKE_VLLM_CONTROL": "1",
            **(env or {}),
        },
    )
    engine = Running(process, port)
    try:
        yield engine
    finally:
        engine.tree()
        for pid in engine.seen:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            stream.close()


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except OSError:
        return ""


def status(pid: int) -> dict[str, str]:
    """State (`Z` and no process are the same: ""), parent, session."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return {"state": ""}
    return {"state": "" if stat[0] == "Z" else stat[0], "parent": stat[1], "session": stat[3]}


def alive(pid: int) -> bool:
    return bool(status(pid)["state"])
