"""The mended aioresponses works, and is still needed."""

import aiohttp
import pytest
from aioresponses import aioresponses

ADDRESS = "http://central.invalid/api"


@pytest.mark.asyncio
async def test_mocked_http_answers(mocked_http: aioresponses) -> None:
    mocked_http.get(ADDRESS, payload={"ok": True})
    async with aiohttp.ClientSession() as session, session.get(ADDRESS) as response:
        assert await response.json() == {"ok": True}


@pytest.mark.asyncio
async def test_aioresponses_still_needs_mending() -> None:
    """When this fails, take `_Response` out of tests/conftest.py."""
    with aioresponses() as unmended:
        unmended.get(ADDRESS, payload={})
        async with aiohttp.ClientSession() as session:
            with pytest.raises(TypeError, match="stream_writer"):
                await session.get(ADDRESS)
