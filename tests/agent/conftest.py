"""A fake central, and agents that clean up behind themselves."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.agent.daemon import AgentHost
from tests.agent.fake_central import FakeCentral


@pytest_asyncio.fixture
async def central() -> AsyncIterator[FakeCentral]:
    fake = FakeCentral()
    await fake.start()
    yield fake
    await fake.stop()


@pytest_asyncio.fixture
async def host(tmp_path: Path, central: FakeCentral) -> AsyncIterator[AgentHost]:
    agent = AgentHost(tmp_path, central)
    yield agent
    await agent.clean()
