"""Open streams of an engine, without anything in between, and whether they go on."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from tests.waiting import until

TOKENS = 6000
"""More than are sent while a test lasts."""


class Streams:
    """Some completions that never end by themselves."""

    def __init__(self, session: aiohttp.ClientSession, url: str, number: int) -> None:
        self.pieces = [0] * number
        self._tasks = [asyncio.create_task(self._read(session, url, index)) for index in range(number)]

    async def go_on(self) -> None:
        """Wait until each has got more; none may have ended."""
        before = list(self.pieces)

        def more() -> bool:
            for task in self._tasks:
                assert not task.done(), f"a stream has ended: {task}"
            return all(now > then + 1 for now, then in zip(self.pieces, before, strict=True))

        await until(more, what="streams go on")

    async def close(self) -> None:
        """Leave them."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _read(self, session: aiohttp.ClientSession, url: str, index: int) -> None:
        body = {"model": "m", "prompt": str(index), "max_tokens": TOKENS, "ignore_eos": True, "stream": True}
        async with session.post(f"{url}/v1/completions", json=body) as response:
            assert response.status == 200
            async for _ in response.content:
                self.pieces[index] += 1


@asynccontextmanager
async def streaming(url: str) -> AsyncIterator[Streams]:
    """Streams that flow."""
    async with aiohttp.ClientSession() as session:
        streams = Streams(session, url, 4)
        try:
            await streams.go_on()
            yield streams
        finally:
            await streams.close()
