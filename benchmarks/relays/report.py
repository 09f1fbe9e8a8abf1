"""The table and what it is held against."""

import os
import platform
import statistics
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from relays.measure import (
    CHUNK,
    COPIES,
    DELIVERED,
    LEFT,
    P50,
    P99,
    PROMPT,
    RATE,
    REQUEST,
    STREAM_KB,
)
from relays.peers import BARE, DIRECT, HAPROXY, INTERPRETED, OURS, PLAIN, SGLANG_ROUTER, VLLM_ROUTER, Target

_RUST = (VLLM_ROUTER, SGLANG_ROUTER)
_COLUMNS = {
    RATE: "{:,.0f}",
    REQUEST: "{:.1f}",
    CHUNK: "{:.1f}",
    DELIVERED: "{:.0%}",
    STREAM_KB: "{:.1f}",
    P50: "{:.2f}",
    P99: "{:.2f}",
    PROMPT: "{:.0f}",
    COPIES: "{:.1f}",
    LEFT: "{:.0f}",
}

_PAGE = """# The router beside other relays

Made by `python benchmarks/router.py --write`; {date}, {machine}.
Medians of {rounds} rounds of {seconds} s in which all are measured in turn; {busy}.
Compare the ratios: absolute figures differ from machine to machine, and with what else runs.

{table}

## What the router is held to

{targets}

## How it is measured

Each relay has one core and one process that serves; clients and engines are C programs on another core.
CPU is the time that a relay's processes were given, user and system.
The router runs as it is shipped: compiled as `pip install .` does it, with API keys, the default routing
policy, accounting, metrics and retries on. It is what the targets are about. The interpreted one is what an
installation without a C compiler is; where only that can be measured, the targets are about it.
The plain aiohttp proxy (`web.Application`, `ClientSession`, uvloop) and the bare relay (asyncio protocols on
uvloop, no policy, no checks) do nothing but relay. nginx and HAProxy are those of Debian, with connections to
engines kept and logs off. vllm-router and sglang-router are those of PyPI (`$SUPERVISORD_CP_PEERS` is the
`bin` of their environment), with a cheap policy that looks at load, `power_of_two`, and errors logged only.

* requests: about 900 bytes there and 600 back, 32 connections, as many as go through; each client sends the
  same headers every time but for the length of the body, as clients do;
* chunks: 500 streams of 50 events a second each, about 200 bytes an event;
* memory: resident, above that of the process just before: 2,000 streams, and then 100 prompts of 100 kB whose
  answers have not begun (a relay that may have to send them again holds one copy);
* latency: 300 requests a second on a timetable; what is added is the difference to direct;
* leaving: 100 clients close their connections at once; until no engine works on any of their streams.
"""


def middle(target: Target | None, column: str) -> float | None:
    values = target.figures.get(column) if target is not None else None
    return statistics.median(values) if values else None


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next(
        (line.partition(":")[2].strip() for line in lines if "model name" in line), platform.machine()
    )
    return (
        f"{model}, {os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}, "
        f"host {platform.node()}"
    )


def table(targets: Sequence[Target]) -> list[str]:
    lines = ["| | " + " | ".join(_COLUMNS) + " |", "|---" + "|---:" * len(_COLUMNS) + "|"]
    for target in targets:
        cells = [_cell(middle(target, column), form) for column, form in _COLUMNS.items()]
        lines.append(f"| {target.name} | " + " | ".join(cells) + " |")
    return lines


def targets_met(targets: Sequence[Target]) -> list[str]:
    """Each target of the router, what was measured, and whether that is enough."""
    by_name = {target.name: target for target in targets}
    own, direct = by_name.get(OURS) or by_name.get(INTERPRETED), by_name.get(DIRECT)

    def ratio(column: str, *others: str) -> float | None:
        """To the best of the others."""
        mine = middle(own, column)
        theirs = [found for name in others if (found := middle(by_name.get(name), column))]
        return None if mine is None or not theirs else mine / min(theirs)

    def added(column: str) -> float | None:
        mine, floor = middle(own, column), middle(direct, column)
        return None if mine is None or floor is None else mine - floor

    rows = (
        ("CPU per request, to a plain aiohttp proxy", ratio(REQUEST, PLAIN), 0.25, ""),
        ("CPU per request, to HAProxy (the aim)", ratio(REQUEST, HAPROXY), 2.0, ""),
        ("CPU per request, to the cheaper gateway in Rust", ratio(REQUEST, *_RUST), 1.0, ""),
        ("CPU per streamed chunk, to the bare relay", ratio(CHUNK, BARE), 1.3, ""),
        ("CPU per streamed chunk, to the cheaper gateway in Rust", ratio(CHUNK, *_RUST), 1.0, ""),
        ("memory per open stream", middle(own, STREAM_KB), 12, " kB"),
        ("added latency at 300 requests/s, p50", added(P50), 0.5, " ms"),
        ("added latency at 300 requests/s, p99", added(P99), 2.0, " ms"),
        ("copies of a 100 kB prompt, held until the answer begins", middle(own, COPIES), 1.5, ""),
        ("a stream ends at its engine when its client goes, after", middle(own, LEFT), 100, " ms"),
    )
    lines = ["| target | measured | at most | |", "|---|---:|---:|---|"]
    for text, measured, most, unit in rows:
        if measured is not None:
            verdict = "met" if measured <= most else "**not met**"
            lines.append(f"| {text} | {measured:.2f}{unit} | {most:g}{unit} | {verdict} |")
    return lines


def page(targets: Sequence[Target], rounds: int, seconds: float, busy: str) -> str:
    """The document: what was measured, how, and what came out."""
    return _PAGE.format(
        date=datetime.now(UTC).date(),
        machine=machine(),
        rounds=rounds,
        seconds=f"{seconds:g}",
        busy=busy,
        table="\n".join(table(targets)),
        targets="\n".join(targets_met(targets)),
    )


def _cell(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)
