"""Requests that are still answered: an answer that goes on and on ends with what let its reader in."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from aiohttp import web

log = logging.getLogger(__name__)

CHECK_EVERY_S: Final = 1.0
_WHY: Final = "its token, or login, is not accepted any more"


class Admitted:
    """Those that a token, or a login made with one, let in."""

    def __init__(self) -> None:
        self._open: dict[int, tuple[web.Request, Callable[[], bool]]] = {}

    @contextmanager
    def held(self, request: web.Request, still: Callable[[], bool]) -> Iterator[None]:
        """While it is answered; `still`: whether it would be let in now as it was then."""
        self._open[id(request)] = (request, still)
        try:
            yield
        finally:
            del self._open[id(request)]

    async def watch(self) -> None:
        """Break off the answers to those who would not be let in any more, until cancelled."""
        while True:
            await asyncio.sleep(CHECK_EVERY_S)
            for request, still in list(self._open.values()):
                if not still() and request.transport is not None:
                    log.warning("the answer to %s %s ends: %s", request.method, request.path, _WHY)
                    request.transport.abort()
