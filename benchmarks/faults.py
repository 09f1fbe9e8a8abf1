"""Our agent beside supervisord and circus: the same faults, the same fake engine, the same measuring.

    python benchmarks/faults.py [--only hangs,upgraded] [--supervisors supervisord_cp,circus] [--write]

supervisord and circus come from PyPI, pinned, into `benchmarks/.build/supervisors`. What they do is measured
from outside: processes by /proc, engines by HTTP, and each supervisor's own view by the interface that it
offers. `--write` makes `docs/comparison-supervisors.md` of it; without it the table goes to standard output.
A whole run takes about ten minutes.
"""

import argparse
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path

from supervisors.faults import FAULTS, REPEATED, Outcome, measured
from supervisors.install import install
from supervisors.ours import Ours
from supervisors.with_circus import Circus
from supervisors.with_supervisord import Supervisord

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "comparison-supervisors.md"
SUPERVISORS = (Ours, Supervisord, Circus)
COLUMNS = (
    "orphans",
    "detected",
    "serves again",
    "well, but ended",
    "streams lost",
    "reason known",
    "what came of it",
)
HEAD = """# Under the same faults: supervisord_cp, supervisord, circus

Made by `python benchmarks/faults.py --write`; {date}, {machine}.
Versions: {versions}.

One run, {cores} cores shared with whatever else ran there; times of ends are medians of {repeated}. All three
run the same fake engine ([what it does as vLLM does](fake-engine.md)): API server, `VLLM::EngineCore`,
`VLLM::Worker`. Faults, process inspection and HTTP checks are the same code; how each supervisor sees its
engines is read from central's API, from supervisord's XML-RPC, and with circus's own client. All engines
get `SPT_NOENV=1` and a mark in their environment, by which their processes are found.

* supervisord has `autorestart=true`, `stopasgroup=true`, `killasgroup=true`, `stopwaitsecs=3`; circus
  `stop_children = True`, `graceful_timeout = 3`; ours `stop_grace_s = 3` and `stall_s = 5` (its default
  is 120). Everything else is as each ships it.
* *Orphans*: processes of an ended engine that live 5 s later. With a real vLLM each may hold its GPU's
  memory.
* *Detected*: until the supervisor has noticed without being asked: its own log says so (ours: the agent's),
  or it has started another engine. *Serves again*: until a new engine answers. "Never" is within the time
  that was looked, 40 s; less than 0.1 s is not told apart.
* *Well, but ended*: engines that were healthy and were ended or restarted.
* *Reason known*: whether what the supervisor itself says of the end (its listing, its own log) names the
  cause. The engine's log does not count: all three keep that.
* *Serves again* is without a model to load. Ours begins when the old tree is proven to be gone; the others
  start beside what is left of the old engine, where a real one would find its GPU's memory in use.
* When every process of ours is killed, keepers too, the next agent gives each engine another keeper, and no
  stream breaks. The others' engines go on there, unknown to their supervisor and in the way of the new ones.
* supervisord and circus are made for any program; that they know nothing of loading, hanging or ports is
  what is compared here, not a fault of theirs.
"""


def cells(outcome: Outcome) -> list[str]:
    """A row's cells, in the order of the columns."""

    def seconds(value: float | None) -> str:
        if value is None:
            return "never" if outcome.watched_s is not None else ""
        return "< 0.1 s" if value < 0.1 else f"{value:.1f} s"

    def count(value: int | None) -> str:
        return "" if value is None else str(value)

    known = {None: "", True: "yes", False: "no"}[outcome.known]
    said = (
        ""
        if outcome.told is None
        else f"“{outcome.told.replace('|', '/')}”"
        if outcome.told
        else "says nothing"
    )
    return [
        count(outcome.orphans),
        seconds(outcome.detected_s) if outcome.faulty else "",
        seconds(outcome.served_s) + (f", {outcome.beside} of the old one live" if outcome.beside else ""),
        count(outcome.disturbed),
        outcome.streams,
        known,
        "; ".join(filter(None, (outcome.note, said))),
    ]


def table(results: dict[str, dict[str, Outcome]]) -> str:
    """One table for each fault: its rows are supervisors, the columns those that say something."""
    parts = []
    for fault, outcomes in results.items():
        rows = {name: cells(outcome) for name, outcome in outcomes.items()}
        shown = [n for n in range(len(COLUMNS)) if any(row[n] for row in rows.values())]
        lines = [f"## {fault[0].upper()}{fault[1:]}" if fault[0].isalpha() else f"## {fault}", ""]
        lines.append("| | " + " | ".join(COLUMNS[n] for n in shown) + " |")
        lines.append("|---" * (len(shown) + 1) + "|")
        for name, row in rows.items():
            lines.append(f"| {name} | " + " | ".join(row[n] or "-" for n in shown) + " |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def machine() -> str:
    """The processor, the kernel, the interpreter."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if "model name" in line), "")
    return f"{model or platform.machine()}, Linux {platform.release()}, Python {platform.python_version()}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="", help="faults, by the names of their functions, with commas")
    parser.add_argument("--supervisors", default="", help="names, with commas")
    parser.add_argument("--write", action="store_true", help=f"write {DOCUMENT.name}")
    given = parser.parse_args()
    only, names = set(filter(None, given.only.split(","))), set(filter(None, given.supervisors.split(",")))
    install()
    results: dict[str, dict[str, Outcome]] = {}
    chosen = [kind for kind in SUPERVISORS if not names or kind.name in names]
    for fault in FAULTS:
        if only and fault.__name__ not in only:
            continue
        for kind in chosen:
            print(f"{fault.__name__}: {kind.name}", file=sys.stderr, flush=True)
            try:
                outcome = measured(fault, kind)  # type: ignore[arg-type]
            except TimeoutError as error:
                outcome = Outcome(note=f"not measured: no {error} within 40 s")
            results.setdefault(fault.__doc__ or "", {})[kind.name] = outcome
    versions = ", ".join(f"{kind.name} {kind.version}" for kind in chosen)
    head = HEAD.format(
        date=datetime.now(UTC).date(),
        machine=machine(),
        versions=versions,
        cores=os.cpu_count(),
        repeated=REPEATED,
    )
    text = f"{head}\n{table(results)}\n"
    if given.write:
        DOCUMENT.write_text(text)
    else:
        print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
