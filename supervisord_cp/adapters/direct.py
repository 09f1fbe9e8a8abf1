"""The direct back end: keepers are children of the agent, in sessions of their own, and outlive it."""

import asyncio
import contextlib
import logging
import os
import sys
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from supervisord_cp.adapters.keeper_directory import (
    AnswerDocument,
    IncarnationDirectory,
    all_incarnations,
    incarnations,
)
from supervisord_cp.adapters.keeper_start import start_keeper
from supervisord_cp.adapters.kept_engine import REPORT_WAIT_S, KeptEngine
from supervisord_cp.adapters.lost_engines import lost_engines, marks
from supervisord_cp.model.base import InstanceId
from supervisord_cp.ports.process import (
    EngineProcess,
    ProcessRecord,
    SpawnFailed,
    SpawnRequest,
    instance_directory,
)

log = logging.getLogger(__name__)

RECORD_WAIT_S: Final = 10.0
RECORD_POLL_S: Final = 0.02


class DirectBackend:
    """See `ports.process.ProcessBackend`. Made and used on one running loop."""

    def __init__(
        self,
        state_dir: Path,
        *,
        owner: str = "",
        python: str = sys.executable,
        report_wait_s: float = REPORT_WAIT_S,
    ) -> None:
        """`owner`: whom engines are marked as belonging to, so that they are found without any record;
        "" marks none."""
        self._state_dir = state_dir
        self._owner = owner
        self._python = python
        self._report_wait_s = report_wait_s
        self._children: set[int] = set()
        self._endings: set[asyncio.Task[None]] = set()

    async def spawn(self, request: SpawnRequest) -> EngineProcess:
        if self._owner:
            request = replace(request, env={**request.env, **marks(self._owner, request.instance)})
        directory = await asyncio.to_thread(_prepare, self._state_dir, request)
        answer = await self._start_keeper(directory)
        if answer is not None and answer.answer == "spawned" and answer.record is not None:
            engine = self._engine(directory, answer.record)
            await engine.attach()
            return engine
        if answer is not None and answer.answer == "failed":
            await asyncio.to_thread(directory.remove)
            raise SpawnFailed(answer.message)
        why = await asyncio.to_thread(directory.errors)
        self._end_in_background(directory)
        raise SpawnFailed(f"the keeper did not start the engine: {why or 'it said nothing'}")

    async def find(self) -> list[EngineProcess]:
        if self._owner:
            await asyncio.to_thread(_record_lost, self._state_dir, self._owner)
        directories = await asyncio.to_thread(all_incarnations, self._state_dir)
        found = await asyncio.gather(*(self._find_one(directory) for directory in directories))
        return [engine for engine in found if engine is not None]

    def forget(self, instance: InstanceId) -> None:
        home = instance_directory(self._state_dir, instance)
        kept = incarnations(home)
        for directory in kept:
            if not directory.is_over():
                raise ValueError(f"incarnation {directory.path.name} of {instance} is not gone yet")
        for directory in kept:
            directory.remove()
        with contextlib.suppress(OSError):
            home.rmdir()

    def close(self) -> None:
        for task in self._endings:
            task.cancel()
        for pidfd in tuple(self._children):
            self._let_go(pidfd)

    async def _find_one(self, directory: IncarnationDirectory) -> EngineProcess | None:
        record = await self._recorded(directory)
        if record is None:
            if await asyncio.to_thread(directory.is_over):
                await asyncio.to_thread(directory.remove)  # nothing was ever started here
            else:
                log.error("a keeper is at work in %s, but its record cannot be read", directory.path)
            return None
        engine = self._engine(directory, record)
        await engine.attach()
        return engine

    async def _recorded(self, directory: IncarnationDirectory) -> ProcessRecord | None:
        """Who is there; a keeper that was being started when the last agent ended gets the time it needs."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RECORD_WAIT_S):
                while await asyncio.to_thread(directory.is_starting):
                    await asyncio.sleep(RECORD_POLL_S)
        return await asyncio.to_thread(directory.record)

    def _engine(self, directory: IncarnationDirectory, record: ProcessRecord) -> KeptEngine:
        return KeptEngine(
            directory,
            record,
            start_sweeper=self._start_sweeper,
            resume=self._start_successor,
            report_wait_s=self._report_wait_s,
        )

    async def _start_sweeper(self, directory: IncarnationDirectory) -> None:
        await self._start_another(directory, "--sweep")

    async def _start_successor(self, directory: IncarnationDirectory) -> None:
        await self._start_another(directory, "--resume")

    async def _start_another(self, directory: IncarnationDirectory, option: str) -> None:
        answer = await self._start_keeper(directory, option)
        if answer is None or answer.answer == "failed":
            why = await asyncio.to_thread(directory.errors) if answer is None else answer.message
            raise SpawnFailed(why)

    async def _start_keeper(self, directory: IncarnationDirectory, *options: str) -> AnswerDocument | None:
        """Start a keeper and wait for its answer; None when it died or hung before it gave one.

        Raises:
            SpawnFailed: no process can be started.
        """
        loop = asyncio.get_running_loop()

        def hand_over(pidfd: int) -> None:
            try:
                loop.call_soon_threadsafe(self._watch_child, pidfd)
            except RuntimeError:  # the loop was closed meanwhile: nobody is left to reap for
                os.close(pidfd)

        return await asyncio.to_thread(start_keeper, directory, self._python, options, hand_over)

    def _end_in_background(self, directory: IncarnationDirectory) -> None:
        """What an interrupted start may have left must go, whether or not anybody asks again."""

        async def end() -> None:
            record = await asyncio.to_thread(directory.record)
            if record is not None:
                engine = self._engine(directory, record)
                try:
                    await engine.gone()
                finally:
                    engine.close()
            await asyncio.to_thread(directory.remove)

        task = asyncio.create_task(end(), name=f"leftovers in {directory.path}")
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)

    def _watch_child(self, pidfd: int) -> None:
        self._children.add(pidfd)
        asyncio.get_running_loop().add_reader(pidfd, self._reap, pidfd)

    def _reap(self, pidfd: int) -> None:
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        self._let_go(pidfd)

    def _let_go(self, pidfd: int) -> None:
        asyncio.get_running_loop().remove_reader(pidfd)
        self._children.discard(pidfd)
        os.close(pidfd)


def _record_lost(state_dir: Path, owner: str) -> None:
    """Make records of our engines that have none, so that they are found with the others and ended."""
    records = (directory.record() for directory in all_incarnations(state_dir))
    known = {record.nonce for record in records if record is not None}
    for request in lost_engines(owner, known):
        directory = IncarnationDirectory(
            instance_directory(state_dir, request.instance) / request.incarnation
        )
        log.error("%s runs, and its records are lost: it is ended", request.instance)
        try:
            directory.create(request)
        except OSError as error:
            log.error("cannot write %s: %s", directory.path, error)


def _prepare(state_dir: Path, request: SpawnRequest) -> IncarnationDirectory:
    """The directory of a new incarnation, in place of those that are over.

    Raises:
        SpawnFailed: one of them is not over, or the directory cannot be made.
    """
    for name in (request.instance, request.incarnation):
        if not name or "/" in name or "\0" in name or name in (".", ".."):
            raise SpawnFailed(f"{name!r} cannot be the name of a directory")
    home = instance_directory(state_dir, request.instance)
    earlier = incarnations(home)
    for directory in earlier:
        if not directory.is_over():
            raise SpawnFailed(f"incarnation {directory.path.name} of {request.instance} is not gone yet")
    for directory in earlier:
        directory.remove()
    made = IncarnationDirectory(home / request.incarnation)
    try:
        made.create(request)
    except OSError as error:
        raise SpawnFailed(f"cannot write {made.path}: {error.strerror}") from error
    return made
