"""Every scheduler and routing policy under the same load: a router and four fake engines that differ.

    python benchmarks/policies.py [--seconds 20] [--only prefix,slo_aware] [--write]

The same requests (mixed priorities, deadlines, sessions, shared prefixes, from one seed) at the same moments
for each policy; what came of them is measured by the client, prefix hits by the engines. `--write` makes
`docs/policies/experiment.md` of it. A whole run takes about ten minutes.
"""

import argparse
import asyncio
import sys
from pathlib import Path

from policy_load.report import Row, document
from policy_load.run import run
from policy_load.site import site
from policy_load.workload import arrivals

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "policies" / "experiment.md"
ROUTERS = (
    "load_balanced",
    "round_robin",
    "weighted_round_robin",
    "random",
    "power_of_two",
    "affinity",
    "prefix",
    "locality",
    "topology_aware",
)
SCHEDULERS = ("fifo", "priority", "slo_aware", "cost_optimized", "adaptive")
ROOMY, ROUTED_PER_S = 16, 8.0
"""Of routing policies: room enough that they have a choice, and much to do."""
TIGHT, QUIET_PER_S, BUSY_PER_S = 4, 4.0, 16.0
"""Of schedulers: requests wait in the router."""


async def measure(seconds: float, only: set[str]) -> list[Row]:
    """Every row of every table."""
    plan = [("routing", "fifo", name, ROOMY, ROUTED_PER_S, False) for name in ROUTERS]
    for table, rate in (("quiet", QUIET_PER_S), ("busy", BUSY_PER_S)):
        plan += [(table, name, "load_balanced", TIGHT, rate, False) for name in SCHEDULERS]
    plan.append(("busy", "fifo", "load_balanced", TIGHT, BUSY_PER_S, True))
    rows: list[Row] = []
    async with site() as there:
        for table, scheduler, router, concurrency, rate, one_key in plan:
            policy = router if table == "routing" else scheduler
            if only and policy not in only:
                continue
            await there.use(scheduler, router, concurrency)
            figures = await run(there, arrivals(rate, seconds), one_key=one_key)
            name = f"{policy}, one key for all" if one_key else policy
            rows.append(Row(table=table, policy=name, figures=figures, per_s=rate))
            print(f"{table}: {name}", file=sys.stderr, flush=True)
    return rows


def main() -> None:
    shape = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=shape)
    parser.add_argument("--seconds", type=float, default=20.0, help="of arrivals, for each policy")
    parser.add_argument("--only", default="", help="policies, with commas")
    parser.add_argument("--write", action="store_true", help=f"write {DOCUMENT.name}")
    given = parser.parse_args()
    rows = asyncio.run(measure(given.seconds, {name for name in given.only.split(",") if name}))
    text = document(rows, given.seconds)
    if given.write:
        DOCUMENT.write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
