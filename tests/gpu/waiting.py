"""Waiting for a reading, with a bound."""

from collections.abc import Callable

from supervisord_cp.ports.gpu import GpuPort, GpuReading
from tests.waiting import until


async def reading_when(port: GpuPort, holds: Callable[[GpuReading], bool]) -> GpuReading:
    """The first reading for which `holds`."""

    def look() -> GpuReading | None:
        return reading if holds(reading := port.read()) else None

    reading = await until(look, tell=port.read)
    assert reading is not None
    return reading
