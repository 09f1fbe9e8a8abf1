"""What all tests share."""

import inspect
import os
from collections.abc import Generator, Iterator
from unittest.mock import Mock

import aiohttp
import pytest
from aioresponses import aioresponses

from supervisord_cp.router import flow
from tests import leftovers

ONE_MACHINE = "SUPERVISORD_CP_BOOTED" in os.environ
"""All files of this run share a machine, whose processes live on from one to the next."""


COMPILED = "SUPERVISORD_CP_EXPECT_COMPILED" in os.environ
"""This run is of what is compiled: a mistake in the paths must not make it one of the sources."""


def pytest_configure() -> None:
    assert not COMPILED or flow.__file__.endswith(".so"), f"{flow.__file__} is not compiled"
    leftovers.mark()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None]:
    """The last test of a file fails when one of them has left a process behind."""
    try:
        yield
    finally:
        if nextitem is None or (nextitem.path != item.path and not ONE_MACHINE):
            left = leftovers.end()
            assert not left, f"tests of {item.path.name} have left processes behind:\n" + "\n".join(left)


@pytest.fixture(autouse=True)
def no_central_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test must not find the central that the person who runs it works with."""
    for name in ("SUPERVISORD_CP_ADDRESS", "SUPERVISORD_CP_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def mocked_http(monkeypatch: pytest.MonkeyPatch) -> Iterator[aioresponses]:
    """aioresponses, mended: as of 0.7.9 it does not know an argument that aiohttp 3.14 requires."""
    if "stream_writer" in inspect.signature(aiohttp.ClientResponse.__init__).parameters:
        monkeypatch.setattr("aioresponses.core.ClientResponse", _Response)
    with aioresponses() as mock:
        yield mock


class _Response(aiohttp.ClientResponse):
    def __init__(self, *args: object, **kwargs: object) -> None:
        kwargs.setdefault("stream_writer", Mock(output_size=0))
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
