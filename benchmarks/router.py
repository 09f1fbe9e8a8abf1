"""What the router costs, beside other relays: one command, one table, each target with its verdict.

    python benchmarks/router.py [--rounds 3] [--seconds 3] [--only "supervisord-cp,plain aiohttp"] [--write]

The router runs as it is shipped: API keys, the default routing policy, accounting, metrics, retries on. It is
compiled, as an installation does it, from a copy in `benchmarks/.build` that is made anew when sources have
changed; a second row is the interpreted one, all that there is without a C compiler. It is compared in the
same run with a plain aiohttp reverse proxy (`naive_aiohttp.py`), with a bare relay on asyncio protocols and
uvloop without any policy (`naive_protocol.py`), with nginx, HAProxy, vllm-router and sglang-router where they
are installed, and with no proxy at all. What is measured is pinned to one core and all else to another;
rounds are interleaved, medians shown. The figure to quote is the ratio to the others in the same run.

The load tools (`mock_backend.c`, `load.c`, the two baselines) are looked for in `../shared/bench` beside the
repository, or where $SUPERVISORD_CP_BENCH says, and compiled into `benchmarks/.build`.
"""

import argparse
import os
import sys

from relays import measure, report
from relays.peers import running
from relays.tools import REPOSITORY, Missing, build, raise_file_limit

PAGE = REPOSITORY / "docs" / "comparison-relays.md"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--only", default="", help="names from the table, with commas")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(REPOSITORY)}")
    given = parser.parse_args()
    if (os.cpu_count() or 1) < 2:
        print("two cores are needed: one for what is measured, one for the rest", file=sys.stderr)
        return 1
    raise_file_limit()
    before = os.getloadavg()[0]
    try:
        mock, program = build()
        with running({name for name in given.only.split(",") if name}, mock) as targets:
            for target in targets:
                measure.memory(program, target)
                measure.leaving(target)
            for number in range(given.rounds):
                print(f"round {number + 1} of {given.rounds}", file=sys.stderr)
                for one in (measure.requests, measure.chunks, measure.latency, measure.prompts):
                    for target in targets:
                        one(program, target, given.seconds)
    except Missing as missing:
        print(f"benchmark: {missing}", file=sys.stderr)
        return 1
    busy = f"load average {before:.1f} when it began"
    text = report.page(targets, given.rounds, given.seconds, busy)
    print(text)
    if given.write:
        PAGE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
