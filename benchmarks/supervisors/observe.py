"""What is measured, the same for every supervisor: by looking at processes and asking engines over HTTP."""

import contextlib
import http.client
import json
import socket
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

MARK = "FAULTS_ENGINE"
"""Environment variable that each process of an engine inherits; its value names run and engine."""
POLL_S = 0.02


class Identity(NamedTuple):
    """A process, unmistakable on this machine."""

    pid: int
    start_ticks: int


def identity(pid: int) -> Identity | None:
    """None when it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else Identity(pid, int(fields[19]))


def members(mark: str) -> set[Identity]:
    """Living processes that carry a mark."""
    wanted = f"{MARK}={mark}".encode()
    found = set()
    for folder in Path("/proc").glob("[1-9]*"):
        with contextlib.suppress(OSError):
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                one = identity(int(folder.name))
                if one is not None:
                    found.add(one)
    return found


def alive(processes: set[Identity]) -> set[Identity]:
    """Those that still live."""
    return {one for one in processes if identity(one.pid) == one}


def main_of(processes: set[Identity]) -> int | None:
    """The API server: the first of those that have the command line still; its children have titles."""
    servers = [one for one in processes if " serve " in title(one.pid)]
    return min(servers, key=lambda one: (one.start_ticks, one.pid)).pid if servers else None


def title(pid: int) -> str:
    """How a process calls itself."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").rstrip("\0").replace("\0", " ")
    except OSError:
        return ""


def titled(processes: set[Identity], name: str) -> int:
    """The process of a tree with this title."""
    return next(one.pid for one in processes if name in title(one.pid))


def get(url: str, timeout_s: float = 1.0) -> tuple[int, Any]:
    """Status and JSON of a page; 0 when there is no answer."""
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as answer:
            body = answer.read()
            return answer.status, json.loads(body) if body.startswith((b"{", b"[")) else None
    except urllib.error.HTTPError as error:
        error.close()
        return error.code, None
    except (OSError, http.client.HTTPException, ValueError):
        return 0, None


def post(url: str, body: object) -> int:
    """Status of an answer to a JSON body."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        answer.read()
        return int(answer.status)


def serves(url: str) -> bool:
    """Whether an engine, and not something else, answers there."""
    return get(f"{url}/health")[0] == 200 and get(f"{url}/v1/models")[1] is not None


def wait_for(condition: Callable[[], object], what: str, timeout_s: float = 40.0) -> float:
    """Seconds until it holds.

    Raises:
        TimeoutError: it does not.
    """
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > timeout_s:
            raise TimeoutError(what)
        time.sleep(POLL_S)
    return time.monotonic() - began


def free_port(number: int = 1) -> int:
    """The first of some ports in a row that are free now."""
    while True:
        with contextlib.ExitStack() as stack:
            first = 0
            with contextlib.suppress(OSError, OverflowError):
                for step in range(number):
                    one = stack.enter_context(socket.socket())
                    one.bind(("127.0.0.1", first + step if first else 0))
                    first = first or one.getsockname()[1]
                return first


class Streams:
    """Completions that are streamed from engines, directly; counted when they break. `models`: by url."""

    def __init__(self, models: dict[str, str], each: int = 2) -> None:
        self._lost = 0
        self._lock = threading.Lock()
        self._flowing = threading.Semaphore(0)
        self._over = threading.Event()
        self._sockets: list[socket.socket] = []
        threads = [
            threading.Thread(target=self._read, args=one, daemon=True)
            for one in models.items()
            for _ in range(each)
        ]
        self.number = len(threads)
        for thread in threads:
            thread.start()
        for _ in threads:
            if not self._flowing.acquire(timeout=20):
                raise TimeoutError("stream")

    def lost(self) -> int:
        """Those that have ended before their time."""
        with self._lock:
            return self._lost

    def close(self) -> None:
        """Leave those that are left."""
        self._over.set()
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _read(self, url: str, model: str) -> None:
        body = {"model": model, "prompt": "x", "max_tokens": 8000, "ignore_eos": True, "stream": True}
        connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=600)
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection.request(
                "POST", "/v1/completions", json.dumps(body), {"content-type": "application/json"}
            )
            self._sockets.append(connection.sock)
            answer = connection.getresponse()
            if answer.readline().startswith(b"data: "):
                self._flowing.release()
            while answer.readline():
                pass
        if not self._over.is_set():
            with self._lock:
                self._lost += 1
