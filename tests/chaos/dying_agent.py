"""An agent that is killed with SIGKILL at a point where it persists something.

Arguments: CONFIG TRACE [POINT]. Each point that is passed is written to TRACE as a line, and what stands at
POINT is not done any more. Points are found by the interpreter's own audit events, so that none can be
forgotten: every file below the state directory that is opened for writing, renamed or removed, every
directory that is made, removed or synchronised, every keeper that is started, and two steps of that keeper.
"""

import asyncio
import logging
import os
import re
import signal
import sys
import time
from pathlib import Path
from threading import Thread
from typing import Any

from supervisord_cp.agent.app import run_agent
from supervisord_cp.config.load import load

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
CHANGES = frozenset({"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate"})
KEEPER_STEPS = ("keeper.lock", "record.json")
VARYING = re.compile(r"(?:[0-9]{8}-)?(?:chat|work)-[0-9]+(?:[.][0-9a-f]{8})?")
"""Instances, incarnations, numbered files of instances."""
WATCHED_S = 30.0


class Tracer:
    """Hears of everything that the interpreter does, and remembers what persists something."""

    def __init__(self, state_dir: Path, trace: Path, point: str) -> None:
        self._state_dir = str(state_dir)
        self._trace = os.open(trace, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._point = point

    def hear(self, event: str, args: tuple[Any, ...]) -> None:
        """An audit hook."""
        if event == "subprocess.Popen":
            self._hear_of_process(args[1])
        elif event == "open":
            self._hear_of_open(*args)
        elif event in CHANGES:
            directory = args[-1] if event != "os.truncate" and isinstance(args[-1], int) else -1
            self._pass(event, self._path(args[0], directory))

    def _hear_of_open(self, path: Any, mode: str | None, flags: int) -> None:
        where = self._path(path)
        if flags & WRITING:
            self._pass("write" if isinstance(path, int) else "open", where)
        elif flags & os.O_DIRECTORY and not flags & os.O_PATH:
            self._pass("sync", where)

    def _hear_of_process(self, argv: list[str]) -> None:
        directory = next((word for word in argv if word.startswith(self._state_dir)), "")
        if directory:
            self._pass("start keeper", directory)
            Thread(target=self._watch_keeper, args=(Path(directory),), daemon=True).start()

    def _watch_keeper(self, directory: Path) -> None:
        deadline = time.monotonic() + WATCHED_S
        for step in KEEPER_STEPS:
            while not (directory / step).exists():
                if time.monotonic() > deadline:
                    return
                time.sleep(0.0005)
            self._pass("seen", str(directory / step))

    def _path(self, path: Any, directory: int = -1) -> str:
        if isinstance(path, int):
            return str(Path(f"/proc/self/fd/{path}").readlink())
        if directory >= 0:
            return str(Path(f"/proc/self/fd/{directory}").readlink() / os.fsdecode(path))
        return os.fsdecode(path)

    def _pass(self, what: str, path: str) -> None:
        if path != self._state_dir and not path.startswith(self._state_dir + "/"):
            return
        place = path[len(self._state_dir) :].lstrip("/")
        point = f"{what} {VARYING.sub('*', place)}".strip()
        os.write(self._trace, f"{point}\n".encode())
        if point == self._point:
            os.kill(os.getpid(), signal.SIGKILL)


def main(config: Path, trace: Path, point: str = "") -> int:
    """Run the agent as its command does."""
    logging.basicConfig(level="INFO", format="%(levelname)s %(name)s %(message)s")
    loaded = load(config)
    sys.addaudithook(Tracer(loaded.agent.state_dir, trace, point).hear)
    return asyncio.run(run_agent(loaded, stop_engines=False))


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:3]), *sys.argv[3:]))
