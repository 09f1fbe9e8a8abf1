"""Hosts whose agents die, and strangers that must not notice."""

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.agent.fake_central import FakeCentral
from tests.chaos.host import Bystander, DyingHost
from tests.waiting import eventually


@pytest_asyncio.fixture
async def central() -> AsyncIterator[FakeCentral]:
    fake = FakeCentral()
    await fake.start()
    yield fake
    await fake.stop()


@pytest_asyncio.fixture
async def host(tmp_path: Path, central: FakeCentral) -> AsyncIterator[DyingHost]:
    agent = DyingHost(tmp_path, central)
    yield agent
    await agent.clean()


@pytest.fixture
def bystander(tmp_path: Path) -> Iterator[Bystander]:
    """Somebody else's process."""
    notes = tmp_path / "signals"
    script = Path(__file__).with_name("bystander.py")
    with subprocess.Popen([sys.executable, "-I", "-S", str(script), str(notes), "serve", "m"]) as process:
        try:
            eventually(notes.exists)
            yield Bystander(process=process, notes=notes)
        finally:
            process.kill()
