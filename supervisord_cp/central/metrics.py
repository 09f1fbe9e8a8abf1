"""Central's `/metrics`: the fleet as central knows it, and what its routers say of themselves."""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from prometheus_client.core import Metric
from prometheus_client.utils import floatToGoString

from supervisord_cp.central.controller import Controller
from supervisord_cp.central.fleet_metrics import FleetCollector
from supervisord_cp.central.links import CallFailed, Peer
from supervisord_cp.central.queries import Queries

ROUTER_ANSWER_S: Final = 2.0


class Metrics:
    """Makes the page on demand; a scrape costs what it prints."""

    def __init__(self, controller: Controller) -> None:
        self._fleet = FleetCollector(controller)

    def refused(self) -> None:
        """Count a request that was not let in."""
        self._fleet.refused += 1

    def watch(self, queries: Queries) -> None:
        """Show what Prometheus fails to answer."""
        self._fleet.queries = queries

    async def page(self, routers: Mapping[str, Peer]) -> bytes:
        """The text of a scrape. A router that does not answer in time is left out."""
        asked = dict(routers)  # they come and go while we wait
        texts = await asyncio.gather(*map(_ask, asked.values()))
        own = exposition(self._fleet.collect())
        return (own + merge([(r, t) for r, t in zip(asked, texts, strict=True) if t])).encode()


def exposition(families: Iterable[Metric]) -> str:
    """Gauges and counters as text, the same as prometheus_client's, which looks at every name of every
    sample anew: with many GPUs that was most of a scrape."""
    return "".join(line for family in families for line in _lines(family))


def _lines(family: Metric) -> Iterator[str]:
    name = f"{family.name}_total" if family.type == "counter" else family.name
    documentation = family.documentation.replace("\\", r"\\").replace("\n", r"\n")
    yield f"# HELP {name} {documentation}\n# TYPE {name} {family.type}\n"
    for sample in family.samples:
        labels = ",".join([f'{label}="{_escaped(value)}"' for label, value in sorted(sample.labels.items())])
        yield f"{sample.name}{{{labels}}} " if labels else f"{sample.name} "
        yield f"{floatToGoString(sample.value)}\n"  # type: ignore[no-untyped-call]


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


async def _ask(peer: Peer) -> str:
    try:
        async with asyncio.timeout(ROUTER_ANSWER_S):
            return "".join([piece async for piece in peer.call("metrics", {})])
    except (TimeoutError, CallFailed):
        return ""


def merge(pages: list[tuple[str, str]]) -> str:
    """Pages of several routers as one: samples of a family together, each with a `router` label."""
    heads: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for router, text in pages:
        label = 'router="' + router.replace("\\", "\\\\").replace('"', '\\"') + '"'
        family = ""
        mine = samples.setdefault(family, [])
        for line in text.splitlines():
            if line.startswith("#"):
                family = line.split(" ", 3)[2] if line.count(" ") >= 2 else family
                mine = samples.setdefault(family, [])
                head = heads.setdefault(family, [])
                if line not in head:
                    head.append(line)
            elif line:
                mine.append(_labelled(line, label))
    out = []
    for family, head in heads.items():
        out += head + samples.get(family, [])
    return "\n".join(out) + "\n" if out else ""


def _labelled(line: str, label: str) -> str:
    name, brace, rest = line.partition("{")
    if brace and " " not in name:
        comma = "" if rest.startswith("}") else ","
        return f"{name}{{{label}{comma}{rest}"
    name, space, rest = line.partition(" ")
    return f"{name}{{{label}}}{space}{rest}"
