"""One measurement of one target; each adds a figure to its columns."""

import json
import os
import re
import socket
import subprocess
import time
from pathlib import Path

from relays.peers import CHUNK_MS, CHUNKS, DIRECT, Target
from relays.tools import OTHER_CORE, Missing, cpu_s, get, resident_kb, wait_until

REQUEST, RATE = "CPU µs/request", "requests/s"
CHUNK, DELIVERED = "CPU µs/chunk", "chunks delivered"
P50, P99 = "p50 ms at 300/s", "p99 ms"
STREAM_KB = "kB/open stream"
PROMPT, COPIES = "CPU µs/100 kB prompt", "copies of it held"
LEFT = "ms until a stream ends that nobody reads"

CONNECTIONS = 32
STREAMS = 500
HELD = 2000
PROMPT_BYTES = 100 * 1024
PROMPTS = 100
LEAVING = 100
_RUNNING = re.compile(r"vllm:num_requests_running\{[^}]*\} ([0-9.]+)")


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


def requests(program: Path, target: Target, seconds: float) -> None:
    """Small ones that are not streamed, as many as go through."""
    before = cpu_s(target.pid)
    result = load(program, target, f"-m close -c {CONNECTIONS} -t {seconds} -w 0.5")
    target.note(REQUEST, (cpu_s(target.pid) - before) / result["ok"] * 1e6)
    target.note(RATE, result["rps"])


def chunks(program: Path, target: Target, seconds: float) -> None:
    """Many streams at once."""
    streams = STREAMS // 2 if target.name == DIRECT else STREAMS  # direct is one of two backends
    before = cpu_s(target.pid)
    result = load(program, target, f"-m stream -c {streams} -t {seconds} -w 1 -k {CHUNKS} -u 0.5")
    target.note(CHUNK, (cpu_s(target.pid) - before) / result["chunks"] * 1e6)
    target.note(DELIVERED, result["chunks_ps"] / (streams * 1000 / CHUNK_MS))


def latency(program: Path, target: Target, seconds: float) -> None:
    """Arrivals on a timetable."""
    result = load(program, target, f"-m open -c 64 -r 300 -t {seconds} -w 0.5")
    found: dict[str, float] = result["lat_us"]  # type: ignore[assignment]
    target.note(P50, found["p50"] / 1000)
    target.note(P99, found["p99"] / 1000)


def prompts(program: Path, target: Target, seconds: float) -> None:
    """Requests of 100 kB."""
    before = cpu_s(target.pid)
    result = load(program, target, f"-m close -c 8 -t {seconds} -w 0.5 -b {PROMPT_BYTES}")
    target.note(PROMPT, (cpu_s(target.pid) - before) / result["ok"] * 1e6)


def memory(program: Path, target: Target) -> None:
    """Above what the process had just before: streams that are open, prompts whose answer has not begun.

    To be measured once, and first: memory that was used is not given back.
    """
    grown = _growth_kb(program, target, f"-m hold -c {HELD} -H 3 -t 20 -u 2")
    target.note(STREAM_KB, grown / HELD)
    _set(target, "delay=1500")
    try:
        options = f"-m close -c {PROMPTS} -n {PROMPTS} -t 10 -w 0 -b {PROMPT_BYTES} -u 0.5"
        grown = _growth_kb(program, target, options)
        target.note(COPIES, grown / PROMPTS / (PROMPT_BYTES / 1024))
    finally:
        _set(target, "delay=0")


def leaving(target: Target) -> None:
    """How long the engines go on after all clients have gone, all at once."""
    _set(target, "chunks=1000000")
    clients = []
    try:
        for _ in range(LEAVING):
            client = socket.create_connection(("127.0.0.1", target.port))
            clients.append(client)
            body = b'{"model":"bench","messages":[{"role":"user","content":"x"}],"stream":true}'
            client.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: t\r\nauthorization: Bearer sk-bench\r\n"
                b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
            )
        wait_until(lambda: running(target) == LEAVING, f"{LEAVING} streams through {target.name}")
        gone = time.perf_counter()
        for client in clients:
            client.close()
        wait_until(lambda: running(target) == 0, f"the end of streams of {target.name}", every_s=0.0005)
        target.note(LEFT, (time.perf_counter() - gone) * 1000)
    finally:
        for client in clients:
            client.close()
        _set(target, f"chunks={CHUNKS}")


def running(target: Target) -> int:
    """Streams that the engines behind it work on."""
    found = (_RUNNING.search(get(port, "/metrics")) for port in target.backends)
    return sum(int(float(match[1])) for match in found if match)


def _growth_kb(program: Path, target: Target, options: str) -> int:
    before = most = resident_kb(target.pid)
    argv = [str(program), "-p", str(target.port), *options.split()]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, preexec_fn=on_other_core)
    while process.poll() is None:
        most = max(most, resident_kb(target.pid))
        time.sleep(0.05)
    return most - before


def _set(target: Target, setting: str) -> None:
    for port in target.backends:
        get(port, f"/ctl?{setting}")
