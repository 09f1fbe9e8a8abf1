"""Everything of the router runs on both event loops."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest_asyncio
import uvloop

from tests.router.kit import Rig, rig


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest_asyncio.fixture
async def router() -> AsyncIterator[Rig]:
    """A router without central, with defaults; it ends with nothing open."""
    async with rig() as made:
        yield made
