"""Waiting for a reading, with a bound."""

import asyncio
from collections.abc import Callable

from supervisord_cp.ports.gpu import GpuPort, GpuReading


async def reading_when(
    port: GpuPort, holds: Callable[[GpuReading], bool], *, timeout_s: float = 20.0
) -> GpuReading:
    """The first reading for which `holds`; fails with the last one when none comes."""
    reading = port.read()
    try:
        async with asyncio.timeout(timeout_s):
            while not holds(reading):
                await asyncio.sleep(0.01)
                reading = port.read()
    except TimeoutError:
        raise AssertionError(f"still: {reading}") from None
    return reading
