"""Asks the engines of silent nodes themselves whether they are there."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import aiohttp

from supervisord_cp.clock import Clock
from supervisord_cp.model.base import NodeName

PERIOD_S: Final = 2.0
TIMEOUT_S: Final = 2.0


class SilentNodes:
    """Probes while nodes are silent, and remembers since when none of their engines has answered."""

    def __init__(self, clock: Clock, silent: Callable[[], Mapping[NodeName, Sequence[str]]]) -> None:
        """`silent` gives the addresses of the engines of every node that is silent now."""
        self._clock = clock
        self._silent = silent
        self._dead_since: dict[NodeName, float] = {}

    def dead_for(self, node: NodeName) -> float | None:
        """For how long not one engine of a silent node has answered; None: one did, or was not asked."""
        since = self._dead_since.get(node)
        return None if since is None else self._clock.now() - since

    async def run(self) -> None:
        """Probe until cancelled."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S)) as session:
            while True:
                await self.round(session)
                await asyncio.sleep(PERIOD_S)

    async def round(self, session: aiohttp.ClientSession) -> None:
        """Ask every engine of every silent node once."""
        silent = {node: urls for node, urls in self._silent().items() if urls}
        for node in [n for n in self._dead_since if n not in silent]:
            del self._dead_since[node]
        for node, urls in silent.items():
            answers = await asyncio.gather(*(_answers(session, url) for url in urls))
            if any(answers):
                self._dead_since.pop(node, None)
            else:
                self._dead_since.setdefault(node, self._clock.now())


async def _answers(session: aiohttp.ClientSession, url: str) -> bool:
    """Any answer at all is a sign of life."""
    try:
        async with session.get(f"{url}/health"):
            return True
    except (aiohttp.ClientError, TimeoutError, OSError):
        return False
