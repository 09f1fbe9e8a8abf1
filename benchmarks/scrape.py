"""What one scrape of central costs, and one tick of the status page.

    python benchmarks/scrape.py [--nodes 125] [--deployments 20] [--routers 4]

Central's own code with a store on disk, on nodes of 8 GPUs with an engine on each; pages of routers that
know all engines and have served every deployment, as they come over the wire. CPU time.
Bounds for 1,000 engines: 250 ms for a scrape, 100 ms for a tick that a browser watches.
"""

import argparse
import asyncio
import platform
import statistics
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import cast

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.control_step import GPUS, World, cpu
from supervisord_cp.adapters.sqlite import SqliteStore
from supervisord_cp.central.links import Params, Peer
from supervisord_cp.central.metrics import Metrics
from supervisord_cp.central.page.feed import Feed
from supervisord_cp.core.routing.retry import Miss
from supervisord_cp.model.fleet import FleetSnapshot
from supervisord_cp.plugin_host.binding import Binder
from supervisord_cp.router.fleet import Fleet
from supervisord_cp.router.metrics import RouterMetrics
from supervisord_cp.wire import messages as m
from supervisord_cp.wire.codec import decode, encode


class Router:
    """Answers central as a router does: its page in a message."""

    def __init__(self, snapshot: FleetSnapshot) -> None:
        self._fleet = Fleet(
            queue_requests=1000,
            queue_bytes=1 << 28,
            eject_s=10.0,
            warmup_s=0.0,
            rng=Random(1),
            binder=Binder(),
        )
        self._fleet.apply(snapshot, 0.0)
        self._metrics = RouterMetrics()
        self._metrics.retry(Miss.LOST)
        for name in self._fleet.lanes:
            figures = self._metrics.of(name)
            for status in (200, 429, 499, 502):
                figures.code(status)
            for histogram in (figures.duration, figures.first_byte, figures.overhead, figures.queue_wait):
                histogram.observe(0.3)

    def page(self) -> str:
        """The router's part of the work."""
        return self._metrics.render(self._fleet)

    async def call(self, method: str, params: Params) -> AsyncIterator[str]:
        """Central's end of the call; the frame is made by the router."""
        chunk = decode(self.frame)
        assert isinstance(chunk, m.CallChunk)
        yield chunk.data

    def render(self) -> None:
        self.frame = encode(m.CallChunk(id=1, data=self.page(), done=True))


def fleet(nodes: int, deployments: int, store: SqliteStore) -> World:
    """A world in which everything is placed and ready."""
    world = World(nodes, deployments, store)
    world.take(world.frames(full=True))
    while len(world.controller.statuses()) < nodes * GPUS // deployments * deployments:
        world.controller.step()
        world.take(world.frames(full=False))
    return world


async def watched(world: World, rounds: int) -> tuple[list[float], list[float]]:
    """CPU seconds of ticks that nobody, and that somebody watches; each after a second of reports."""
    feed = Feed(world.controller)
    idle, busy = [], []
    for _ in range(rounds):
        advance(world)
        idle.append(cpu(feed.tick))
    stream = feed.follow({})
    await anext(stream)
    for _ in range(rounds):
        advance(world)
        busy.append(cpu(feed.tick))
    await stream.aclose()
    return idle, busy


def advance(world: World) -> None:
    world.clock.advance(1.0)
    world.take(world.frames(full=False))
    world.controller.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=125)
    parser.add_argument("--deployments", type=int, default=20)
    parser.add_argument("--routers", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    path = Path(__file__).parent / ".build" / "scrape.db"
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    store = SqliteStore(path)
    world = fleet(options.nodes, options.deployments, store)
    snapshot = world.controller.routers.snapshot
    assert snapshot is not None
    routers = {f"router-{n}": Router(snapshot) for n in range(options.routers)}
    rendered = [cpu(router.render) for router in routers.values()]
    metrics = Metrics(world.controller)
    peers = cast("dict[str, Peer]", routers)
    scrapes: list[float] = []
    page = b""
    for _ in range(options.rounds):
        before = time.process_time()
        page = asyncio.run(metrics.page(peers))
        scrapes.append(time.process_time() - before)
    idle, busy = asyncio.run(watched(world, options.rounds))
    instances = len(world.controller.statuses())
    print(f"{platform.node()}, Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}")
    print(
        f"{instances} instances of {options.deployments} deployments on {options.nodes} nodes x {GPUS} GPUs"
    )
    print(f"a scrape, central           {statistics.median(scrapes) * 1000:8.1f} ms   (bound 250)")
    print(f"  bytes                     {len(page):8}")
    print(f"  lines                     {page.count(10):8}")
    print(f"a scrape, each router       {statistics.median(rendered) * 1000:8.1f} ms")
    print(f"a tick of the status page   {statistics.median(busy) * 1000:8.1f} ms   (bound 100)")
    print(f"  that nobody watches       {statistics.median(idle) * 1000:8.1f} ms")
    store.close()


if __name__ == "__main__":
    main()
