"""Central's `/metrics`: the fleet as central knows it, and what its routers say of themselves."""

import asyncio
from collections.abc import Mapping
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest

from supervisord_cp.central.controller import Controller
from supervisord_cp.central.fleet_metrics import FleetCollector
from supervisord_cp.central.links import CallFailed, Peer
from supervisord_cp.central.queries import Queries

ROUTER_ANSWER_S: Final = 2.0


class Metrics:
    """Makes the page on demand; a scrape costs what it prints."""

    def __init__(self, controller: Controller) -> None:
        self._registry = CollectorRegistry()
        self._fleet = FleetCollector(controller)
        self._registry.register(self._fleet)

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
        own = generate_latest(self._registry)
        return own + merge([(r, t) for r, t in zip(asked, texts, strict=True) if t]).encode()


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
