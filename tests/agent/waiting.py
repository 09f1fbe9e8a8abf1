"""Waiting for conditions, bounded."""

import asyncio
import time
from collections.abc import Callable


async def until(condition: Callable[[], object], *, timeout_s: float = 20.0, what: str = "") -> None:
    """Return as soon as the condition holds.

    Raises:
        AssertionError: it does not within the time.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what or condition}"
        await asyncio.sleep(0.01)
