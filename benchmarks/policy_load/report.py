"""Tables of what was measured."""

import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from policy_load.run import Figures
from policy_load.site import FLEET
from policy_load.workload import SLO_TTFT_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One run."""

    table: str
    policy: str
    figures: Figures
    per_s: float
    """Requests a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One figure; the best of each column is bold."""

    name: str
    value: Callable[[Figures], float]
    shown: Callable[[float], str]
    more_is_better: bool


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %"


def _seconds(value: float) -> str:
    return f"{value:.2f} s"


IN_TIME: Final = Column(name="in time", value=lambda f: f.in_time, shown=_percent, more_is_better=True)
P50: Final = Column(name="TTFT p50", value=lambda f: f.p50_s, shown=_seconds, more_is_better=False)
P99: Final = Column(name="TTFT p99", value=lambda f: f.p99_s, shown=_seconds, more_is_better=False)
COST: Final = Column(name="cost", value=lambda f: f.cost, shown="{:.2f}".format, more_is_better=False)
ROUTING: Final = (
    IN_TIME,
    P50,
    P99,
    Column(name="prefix hits", value=lambda f: f.prefix_hits, shown=_percent, more_is_better=True),
    Column(name="session kept", value=lambda f: f.together, shown=_percent, more_is_better=True),
    Column(name="own zone", value=lambda f: f.near, shown=_percent, more_is_better=True),
    COST,
)
SCHEDULING: Final = (
    IN_TIME,
    Column(name="high: in time", value=lambda f: f.high_in_time, shown=_percent, more_is_better=True),
    P50,
    P99,
    Column(name="high: p99", value=lambda f: f.high_p99_s, shown=_seconds, more_is_better=False),
    Column(name="refused", value=lambda f: f.refused, shown=_percent, more_is_better=False),
    COST,
    Column(name="Jain", value=lambda f: f.jain, shown="{:.2f}".format, more_is_better=True),
)
HEAD: Final = """\
# What each policy is for, measured

Made by `python benchmarks/policies.py --write`; {date}, {machine}, {cores} cores shared with whatever else
ran there: load average {load:.1f} at the end. One run of {seconds:g} s per policy: differences of a few
hundredths are chance. The rows ran one after the other, and what else ran there was not the same for all of
them: shares and counts (hits, zone, session, refused, Jain) bear that well, p99 does not.

One router, one central and four [fake engines](../fake-engine.md) that differ, in the router's zone `near`
and in `far`:

| instance | zone | GPUs | speed | cost per hour |
|---|---|---:|---:|---:|
{fleet}

The same requests from one seed at the same moments for each policy: 36 conversations that grow, over 18 long
system prompts (more than the prefix cache of one engine holds); three API keys, of which one asks for three
times as much as each of the others; a fifth of the requests with priority high, a fifth low; a quarter with a
deadline of a few seconds, a quarter with one of ten; short answers and long ones.

* **in time**: of all requests, the whole answer before the client's deadline; without one, the first token
  within {slo:g} s. What was refused is not in time. **high** is the same, or the TTFT, of those with priority
  high.
* **TTFT**: time to first token, waiting in the router included.
* **cost**: what the GPUs cost while they had something to do, per 1,000 answers in time.
* **prefix hits**: prompt tokens that the engines found in their caches. **session kept**: requests that went
  where most of their session went. **own zone**: requests that stayed in the router's zone.
* **Jain**: Jain's index of the tokens that the three keys were served in the second half of the run, 1 when
  all got alike.

The best of each column is bold.
"""
TABLES: Final = (
    (
        "routing",
        "## Routing policies",
        (
            "{rate} requests a second, room enough on every instance: where a request goes decides. "
            "The scheduler is `fifo`."
        ),
        ROUTING,
    ),
    (
        "quiet",
        "## Schedulers, while it is quiet",
        "{rate} requests a second, four at once per unit of speed. The routing policy is `load_balanced`.",
        SCHEDULING[:-1],
    ),
    (
        "busy",
        "## Schedulers, with more to do than can be done",
        (
            "{rate} requests a second. In *one key for all* the same requests come with one API key, so that "
            "there are no turns to take."
        ),
        SCHEDULING,
    ),
)


def document(rows: Sequence[Row], seconds: float) -> str:
    """The whole page."""
    fleet = "\n".join(
        f"| {one.name} | {one.zone} | {one.gpus} | {one.speed:g} | {one.cost_per_hour:g} |" for one in FLEET
    )
    head = HEAD.format(
        date=datetime.now(UTC).date(),
        machine=f"{_processor()}, Python {platform.python_version()}",
        cores=os.cpu_count(),
        seconds=seconds,
        load=os.getloadavg()[0],
        slo=SLO_TTFT_S,
        fleet=fleet,
    )
    parts = [head]
    for name, title, text, columns in TABLES:
        mine = [row for row in rows if row.table == name]
        if mine:
            told = text.format(rate=f"{mine[0].per_s:g}")
            parts.append("\n".join([title, "", told, "", *_table(mine, columns), ""]))
    return "\n".join(parts)


def _table(rows: Sequence[Row], columns: Sequence[Column]) -> list[str]:
    names = " | ".join(column.name for column in columns)
    lines = [f"| policy | {names} |", "|---|" + "---:|" * len(columns)]
    for row in rows:
        cells = (_cell(column, row.figures, [other.figures for other in rows]) for column in columns)
        lines.append(f"| {row.policy} | {' | '.join(cells)} |")
    return lines


def _cell(column: Column, figures: Figures, all_: Sequence[Figures]) -> str:
    shown = column.shown(column.value(figures))
    best = (max if column.more_is_better else min)(map(column.value, all_))
    return f"**{shown}**" if shown == column.shown(best) else shown


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
