"""Back ends that clean up, on asyncio's loop and on uvloop's."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path

import pytest
import pytest_asyncio
import uvloop

from supervisord_cp.adapters.direct import DirectBackend
from supervisord_cp.ports.process import ProcessBackend
from tests.keeper.host import Host

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


LOOPS: Mapping[str, LoopFactory] = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, LoopFactory]:
    """What agents promise is tried on both loops; a keeper does not know who talks to it."""
    return {"asyncio": LOOPS["asyncio"]} if item.path.name == "test_keeper.py" else LOOPS


def direct(state_dir: Path) -> ProcessBackend:
    return DirectBackend(state_dir, report_wait_s=0.05)


@pytest.fixture(params=[direct], ids=lambda make: make.__name__)
def make_backend(request: pytest.FixtureRequest) -> Callable[[Path], ProcessBackend]:
    """Every back end has to pass every test."""
    make: Callable[[Path], ProcessBackend] = request.param
    return make


@pytest.fixture
def cleaned(tmp_path: Path, make_backend: Callable[[Path], ProcessBackend]) -> Iterator[Host]:
    host = Host(tmp_path, make_backend)
    yield host
    host.kill_all()


@pytest_asyncio.fixture
async def host(cleaned: Host) -> AsyncIterator[Host]:
    """Closed on the loop that it was used on, then cleaned."""
    yield cleaned
    cleaned.close()
    await asyncio.sleep(0)
