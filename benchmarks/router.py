"""What the router costs: CPU time per small request and per streamed chunk, beside what it is compared with.

    python benchmarks/router.py [--rounds 3] [--seconds 3] [--only "supervisord-cp,plain aiohttp"]

The router runs as it is shipped: API keys, the default routing policy, accounting, metrics, retries on. It is
compared in the same run with a plain aiohttp reverse proxy (`naive_aiohttp.py`), with a bare relay on asyncio
protocols and uvloop without any policy (`naive_protocol.py`), and with no proxy at all. What is measured is
pinned to one core and everything else to another; rounds are interleaved, medians shown. The figure to quote
is the ratio to the others in the same run: absolute times differ from machine to machine.

The load tools (`mock_backend.c`, `load.c`, the two baselines) are looked for in `../shared/bench` beside the
repository, or where $SUPERVISORD_CP_BENCH says, and compiled into `benchmarks/.build`.
"""

import argparse
import contextlib
import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import msgspec

from supervisord_cp.model.base import DeploymentName, Incarnation, InstanceId, NodeName
from supervisord_cp.model.fleet import FleetPart, FleetSnapshot, RoutedDeployment, RoutedInstance
from supervisord_cp.model.instance import InstanceState
from supervisord_cp.router.memory import Remembered

REPOSITORY = Path(__file__).resolve().parent.parent
TOOLS = Path(os.environ.get("SUPERVISORD_CP_BENCH", REPOSITORY.parent / "shared" / "bench"))
BUILD = REPOSITORY / "benchmarks" / ".build"
ROUTER_CORE, OTHER_CORE = 0, 1
TICKS = os.sysconf("SC_CLK_TCK")
BACKENDS = 2
CONNECTIONS = 32
STREAMS = 500
CHUNKS = 64
CHUNK_MS = 20
HELD = 1000


class Missing(Exception):
    """Something that the benchmark needs is not there."""


@dataclass
class Target:
    """Something that requests are sent to."""

    name: str
    port: int
    process: "subprocess.Popen[bytes] | None"
    request_us: list[float] = field(default_factory=list)
    requests_ps: list[float] = field(default_factory=list)
    chunk_us: list[float] = field(default_factory=list)
    chunk_share: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    stream_kb: list[float] = field(default_factory=list)


# --- tools and processes


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


def answers(port: int, path: str = "/v1/models") -> bool:
    request = urllib.request.Request(  # our own address, made here
        f"http://127.0.0.1:{port}{path}", headers={"authorization": "Bearer sk-bench"}
    )
    try:
        with urllib.request.urlopen(request, timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        if time.monotonic() > deadline:
            raise Missing(f"{what} did not come up")
        time.sleep(0.05)


def our_router(folder: Path, port: int, backends: list[str]) -> list[str]:
    """Write its files; the fleet is given as what an earlier router left, so that no central is needed."""
    instances = tuple(
        RoutedInstance(
            id=InstanceId(f"bench-{number}"),
            deployment=DeploymentName("bench"),
            incarnation=Incarnation(f"bench-{number}.a"),
            url=url,
            state=InstanceState.READY,
        )
        for number, url in enumerate(backends)
    )
    fleet = FleetSnapshot(
        epoch="bench",
        version=1,
        deployments=(RoutedDeployment(name=DeploymentName("bench"), names=("bench",), wanted=BACKENDS),),
        parts=(FleetPart(node=NodeName("here"), instances=instances),),
    )
    (folder / "state" / "router").mkdir(parents=True)
    (folder / "state" / "router" / "fleet.json").write_bytes(msgspec.json.encode(Remembered(snapshot=fleet)))
    (folder / "keys").write_text("bench: sk-bench\n")
    config = folder / "config.toml"
    config.write_text(
        f'[central]\nstate_dir = "state"\n'
        f'[router]\napi_listen = "127.0.0.1:{port}"\ncentral = "http://127.0.0.1:9"\napi_keys_file = "keys"\n'
    )
    return [sys.executable, "-m", "supervisord_cp", "router", "-c", str(config)]


@contextlib.contextmanager
def running(only: set[str], mock: Path) -> Iterator[list[Target]]:
    """All targets, up and answering."""
    processes: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory(prefix="router-bench-") as temporary:
        folder = Path(temporary)
        log = folder / "log"
        try:
            ports = [free_port() for _ in range(BACKENDS)]
            processes += [
                start([str(mock), "-p", str(p), "-n", str(CHUNKS), "-i", str(CHUNK_MS)], OTHER_CORE, log)
                for p in ports
            ]
            urls = [f"http://127.0.0.1:{port}" for port in ports]
            targets = [Target("direct", ports[0], processes[0])]
            ours, bare, plain = free_port(), free_port(), free_port()
            for name, port, argv in (
                ("bare relay", bare, [sys.executable, str(TOOLS / "naive_protocol.py"), str(bare), *urls]),
                ("supervisord-cp", ours, our_router(folder, ours, urls)),
                (
                    "plain aiohttp",
                    plain,
                    [sys.executable, str(TOOLS / "naive_aiohttp.py"), str(plain), *urls],
                ),
            ):
                if only and name not in only:
                    continue
                process = start(argv, ROUTER_CORE, log)
                processes.append(process)
                targets.append(Target(name, port, process))
            for target in targets:
                wait_until(partial(answers, target.port), target.name)
            yield targets
        finally:
            for process in processes:
                process.kill()
                process.wait()


# --- measuring


def on_other_core() -> None:
    os.sched_setaffinity(0, {OTHER_CORE})


def load(program: Path, target: Target, options: str) -> dict[str, float]:
    """One run of the load generator; its options are explained at the head of `load.c`."""
    argv = [str(program), "-p", str(target.port), *options.split()]
    out = subprocess.run(argv, check=True, capture_output=True, preexec_fn=on_other_core).stdout
    result: dict[str, float] = json.loads(out)
    if result["errors"]:
        raise Missing(f"{target.name}: {out.decode()[:400]}")
    return result


def cpu_s(target: Target) -> float:
    """utime + stime of the process; none of the targets has children."""
    assert target.process is not None
    fields = Path(f"/proc/{target.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident_kb(target: Target) -> int:
    assert target.process is not None
    for line in Path(f"/proc/{target.process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


def measure_requests(program: Path, target: Target, seconds: float) -> None:
    before = cpu_s(target)
    result = load(program, target, f"-m close -c {CONNECTIONS} -t {seconds} -w 0.5")
    target.request_us.append((cpu_s(target) - before) / result["ok"] * 1e6)
    target.requests_ps.append(result["rps"])


def measure_chunks(program: Path, target: Target, seconds: float) -> None:
    before = cpu_s(target)
    streams = STREAMS // BACKENDS if target.name == "direct" else STREAMS  # direct is one of the backends
    result = load(program, target, f"-m stream -c {streams} -t {seconds} -w 1 -k {CHUNKS} -u 0.5")
    target.chunk_us.append((cpu_s(target) - before) / result["chunks"] * 1e6)
    target.chunk_share.append(result["chunks_ps"] / (streams * 1000 / CHUNK_MS))


def measure_latency(program: Path, target: Target, seconds: float) -> None:
    result = load(program, target, f"-m open -c 64 -r 300 -t {seconds} -w 0.5")
    latency: dict[str, float] = result["lat_us"]  # type: ignore[assignment]
    target.p50_ms.append(latency["p50"] / 1000)
    target.p99_ms.append(latency["p99"] / 1000)


def measure_memory(program: Path, target: Target) -> None:
    """The most resident memory while streams are held, above what it was just before."""
    before = most = resident_kb(target)
    argv = [str(program), "-p", str(target.port), *f"-m hold -c {HELD} -H 2 -t 10 -u 1".split()]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, preexec_fn=on_other_core)
    while process.poll() is None:
        most = max(most, resident_kb(target))
        time.sleep(0.1)
    target.stream_kb.append((most - before) / HELD)


def middle(values: list[float]) -> float:
    return statistics.median(values) if values else float("nan")


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next(
        (line.partition(":")[2].strip() for line in lines if "model name" in line), platform.machine()
    )
    return (
        f"{model}, {os.cpu_count()} cores · Linux {platform.release()} · Python {platform.python_version()}"
    )


def report(targets: list[Target]) -> None:
    """The table, and the ratios that count."""
    print(f"\n{datetime.now(UTC).date()} · {machine()}\n")
    columns = ("requests/s", "CPU µs/request", "CPU µs/chunk", "chunks delivered")
    print("|", *columns, "p50 ms at 300/s", "p99 ms", "kB/open stream", "", sep=" | ")
    print("|---" * 8, "|", sep="")
    for t in targets:
        cells = [t.name, f"{middle(t.requests_ps):,.0f}", f"{middle(t.request_us):.1f}"]
        cells += [f"{middle(t.chunk_us):.1f}", f"{middle(t.chunk_share):.0%}"]
        cells += [f"{middle(t.p50_ms):.2f}", f"{middle(t.p99_ms):.2f}", f"{middle(t.stream_kb):.1f}"]
        print("|", " | ".join(cells), "|")
    print()
    by_name = {target.name: target for target in targets}
    ours = by_name.get("supervisord-cp")
    for name in ("plain aiohttp", "bare relay"):
        other = by_name.get(name)
        if ours is not None and other is not None:
            request = middle(ours.request_us) / middle(other.request_us)
            chunk = middle(ours.chunk_us) / middle(other.chunk_us)
            print(f"supervisord-cp to {name}: {request:.2f} per request, {chunk:.2f} per chunk")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--only", default="", help="names from the table, with commas")
    given = parser.parse_args()
    if (os.cpu_count() or 1) < 2:
        print("two cores are needed: one for what is measured, one for the rest", file=sys.stderr)
        return 1
    try:
        mock, program = build()
        with running({name for name in given.only.split(",") if name}, mock) as targets:
            for target in targets:  # first: memory that was used once is not given back
                measure_memory(program, target)
            for number in range(given.rounds):
                print(f"round {number + 1} of {given.rounds}", file=sys.stderr)
                for target in targets:
                    measure_requests(program, target, given.seconds)
                for target in targets:
                    measure_chunks(program, target, given.seconds)
                for target in targets:
                    measure_latency(program, target, given.seconds)
            report(targets)
    except Missing as missing:
        print(f"benchmark: {missing}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
