"""Waiting for conditions of the outside world, bounded."""

import asyncio
import time
from collections.abc import Callable
from typing import Final, TypeVar

PATIENCE_S: Final = 60.0
"""How long a test waits for what should take milliseconds: a machine may be busy."""

T = TypeVar("T")


async def until(
    look: Callable[[], T], what: object = "", patience_s: float = PATIENCE_S, tell: Callable[[], object] = str
) -> T:
    """The first true answer of `look`; `tell` adds what is known when there is none.

    Raises:
        AssertionError: it does not come within the time.
    """
    deadline = time.monotonic() + patience_s
    while not (answer := look()):
        assert time.monotonic() < deadline, f"never: {what or look}\n{tell()}"
        await asyncio.sleep(0.005)
    return answer


def eventually(
    look: Callable[[], T], what: object = "", patience_s: float = PATIENCE_S, tell: Callable[[], object] = str
) -> T:
    """The same without a loop."""
    deadline = time.monotonic() + patience_s
    while not (answer := look()):
        assert time.monotonic() < deadline, f"never: {what or look}\n{tell()}"
        time.sleep(0.01)
    return answer
