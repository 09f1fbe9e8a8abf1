"""Load tools and processes: compiled, started on a core, watched."""

import hashlib
import os
import resource
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import psutil

REPOSITORY = Path(__file__).resolve().parent.parent.parent
TOOLS = Path(os.environ.get("SUPERVISORD_CP_BENCH", REPOSITORY.parent / "shared" / "bench"))
BUILD = REPOSITORY / "benchmarks" / ".build"
COMPILED = BUILD / "compiled"
"""Holds a copy of the package, compiled as an installation does it."""
MEASURED_CORE, OTHER_CORE = 0, 1
WAIT_S = 20.0


class Missing(Exception):
    """Something that the benchmark needs is not there."""


def build() -> tuple[Path, Path]:
    """The compiled backend and load generator."""
    if not TOOLS.is_dir():
        raise Missing(f"no load tools in {TOOLS}; $SUPERVISORD_CP_BENCH can name another folder")
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise Missing("no C compiler (gcc)")
    BUILD.mkdir(parents=True, exist_ok=True)
    for name, libraries in (("mock_backend", []), ("load", ["-lm"])):
        source, program = TOOLS / f"{name}.c", BUILD / name
        if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
            subprocess.run([compiler, "-O2", "-w", "-o", program, source, *libraries], check=True)
    return BUILD / "mock_backend", BUILD / "load"


def compile_package() -> bool:
    """Whether `COMPILED` is of the present sources, or could be made; says why not."""
    script, package = REPOSITORY / "packaging" / "compile.py", REPOSITORY / "supervisord_cp"
    digest = hashlib.sha256(sys.version.encode())
    for path in (script, *sorted(package.rglob("*.py")), *sorted(package.rglob("*.pxd"))):
        digest.update(f"{path} {path.stat().st_size}\n".encode() + path.read_bytes())
    mark = COMPILED / "digest"
    if mark.exists() and mark.read_text() == digest.hexdigest():
        return True
    shutil.rmtree(COMPILED, ignore_errors=True)
    ignored = shutil.ignore_patterns("__pycache__", "*.so")
    shutil.copytree(package, COMPILED / package.name, ignore=ignored)
    print("compiling the router", file=sys.stderr)
    ended = subprocess.run(
        [sys.executable, script, COMPILED], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    if ended.returncode:
        print(ended.stderr.rstrip().rpartition("\n")[2], file=sys.stderr)
        return False
    mark.write_text(digest.hexdigest())
    return True


def raise_file_limit() -> None:
    """For thousands of connections, here and in what we start."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def start(argv: list[str], core: int, log: Path) -> "subprocess.Popen[bytes]":
    """A process pinned to a core."""
    with log.open("ab") as out:
        return subprocess.Popen(
            argv, stdout=out, stderr=out, preexec_fn=lambda: os.sched_setaffinity(0, {core})
        )


def get(port: int, path: str) -> str:
    """The answer's text.

    Raises:
        OSError: there is none, or it is an error.
    """
    request = urllib.request.Request(  # our own address, made here
        f"http://127.0.0.1:{port}{path}", headers={"authorization": "Bearer sk-bench"}
    )
    with urllib.request.urlopen(request, timeout=1) as answer:
        return str(answer.read().decode())


def answers(port: int) -> bool:
    try:
        get(port, "/v1/models")
    except OSError:
        return False
    return True


def wait_until(condition: Callable[[], bool], what: str, every_s: float = 0.05) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        if time.monotonic() > deadline:
            raise Missing(f"{what} did not happen")
        time.sleep(every_s)


def family(pid: int) -> list[int]:
    """A process and all that it has started."""
    try:
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


def cpu_s(pid: int) -> float:
    """CPU time of a process and of those that it has started, user and system, to the nanosecond."""
    tasks = (task for one in family(pid) for task in Path(f"/proc/{one}/task").glob("*/schedstat"))
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


def resident_kb(pid: int) -> int:
    """Of the same processes."""
    total = 0
    for one in family(pid):
        for line in Path(f"/proc/{one}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                total += int(line.split()[1])
    return total
