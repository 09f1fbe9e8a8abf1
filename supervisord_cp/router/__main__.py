"""One process that serves: `python -m supervisord_cp.router`, started by `supervisord-cp router` only."""

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec

from supervisord_cp.config.load import read
from supervisord_cp.errors import SupervisordError
from supervisord_cp.obs.logging import FORMAT_VARIABLE, configure
from supervisord_cp.plugin_host.checks import checked
from supervisord_cp.router.app import run_router
from supervisord_cp.router.basis import text_in
from supervisord_cp.router.seat import Seat, SeatPlan


def main(config: str, log_level: str, plan: str) -> int:
    """Serve in the seat that is described; the exit status, 2 when that cannot be."""
    configure(log_level, os.environ.get(FORMAT_VARIABLE, "text"))
    place = msgspec.json.decode(plan, type=SeatPlan)
    try:
        settings = checked(read(text_in(place.config), Path(config)))
        return _runner()(run_router(settings, seat=Seat(place)))
    except SupervisordError as error:
        print(f"Error: {error}", file=sys.stderr)  # noqa: T201  # as the command line says it
        return error.exit_code


def _runner() -> Callable[[Coroutine[Any, Any, int]], int]:
    """uvloop where it is installed (it is on CPython), else the standard loop."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run
    run: Callable[[Coroutine[Any, Any, int]], int] = uvloop.run
    return run


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
