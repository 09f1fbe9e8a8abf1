"""Answering `logs` calls: the last lines of an engine's log, and what is added to it."""

import asyncio
import codecs
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from supervisord_cp.agent.log_files import BLOCK
from supervisord_cp.agent.log_reading import LogReading

LINES: Final = 100
"""When the caller names no number."""
LOOK_S: Final = 0.2
"""How often a followed log is looked at."""


class NoLog(Exception):
    """There is nothing to read; the text says so."""


async def read_log(path: Path, *, lines: int, follow: bool, previous: bool) -> AsyncIterator[str]:
    """Pieces of a log: its last lines, then, with `follow`, what is added until the caller leaves.

    `previous` is the log of the incarnation before; that is not added to.

    Raises:
        NoLog: there is none.
    """
    if previous:
        path = path.with_name(f"{path.name}.previous")
    if not follow and not await asyncio.to_thread(path.exists):
        raise NoLog(f"there is no log at {path}")
    log = LogReading(path, from_end=True)
    try:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        tail = await log.tail(lines)
        for start in range(0, len(tail), BLOCK):
            yield decoder.decode(tail[start : start + BLOCK])
        while follow and not previous:
            piece = await log.read()
            if piece:
                yield decoder.decode(piece)
            else:
                await asyncio.sleep(LOOK_S)
    finally:
        log.close()
