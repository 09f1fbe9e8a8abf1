"""One state directory, the agents that work on it one after another, and what they started."""

import os
import secrets
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import psutil

from supervisord_cp.model.base import Incarnation, InstanceId
from supervisord_cp.ports.process import (
    EngineProcess,
    ProcessBackend,
    ProcessRecord,
    SpawnRequest,
    instance_directory,
)
from tests.keeper.programs import Argv
from tests.waiting import until


class Host:
    """Makes back ends, spawns programs, and in the end leaves no process behind."""

    def __init__(self, folder: Path, make: Callable[[Path], ProcessBackend]) -> None:
        self.state_dir = folder / "state"
        self.log = folder / "logs" / "chat-0.log"
        self._make = make
        self._mark = secrets.token_hex(8)
        self._count = 0
        self._backends: list[ProcessBackend] = []
        self._engines: list[EngineProcess] = []

    def agent(self) -> ProcessBackend:
        """The back end of a new agent."""
        backend = self._make(self.state_dir)
        self._backends.append(backend)
        return backend

    def request(
        self,
        argv: Argv,
        *,
        instance: str = "chat-0",
        env: dict[str, str] | None = None,
        cwd: str = "/",
        log_path: Path | None = None,
        log_max_bytes: int = 1024 * 1024,
        log_files: int = 3,
    ) -> SpawnRequest:
        self._count += 1
        return SpawnRequest(
            instance=InstanceId(instance),
            incarnation=Incarnation(f"{instance}.{self._count}"),
            nonce=f"{self._mark}-{self._count}",
            argv=argv,
            env={"PATH": os.environ["PATH"], **(env or {})},
            cwd=cwd,
            log_path=str(log_path or self.log),
            log_max_bytes=log_max_bytes,
            log_files=log_files,
            meta={"port": 8000, "devices": ["slot-0"]},
        )

    async def spawn(self, argv: Argv, *, by: ProcessBackend | None = None) -> EngineProcess:
        """A program that has said that it is ready."""
        engine = self.keep(await (by or self.agent()).spawn(self.request(argv)))
        await until(lambda: "ready" in self.text())
        return engine

    async def find(self) -> EngineProcess:
        """The only engine that the next agent finds."""
        [engine] = await self.agent().find()
        return self.keep(engine)

    def keep(self, engine: EngineProcess) -> EngineProcess:
        self._engines.append(engine)
        return engine

    def text(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def logs(self) -> list[Path]:
        """All files of the log, the oldest first."""
        full = [path for path in self.log.parent.iterdir() if path.suffix[1:].isdigit()]
        return [*sorted(full, key=lambda path: -int(path.suffix[1:])), self.log]

    def numbers_said(self) -> list[int]:
        """The pids that a program printed with `ready`."""
        return [int(word) for word in self.text().split() if word.isdigit()]

    def directory(self, record: ProcessRecord) -> Path:
        """Where the records of an incarnation are."""
        return instance_directory(self.state_dir, record.instance) / record.incarnation

    def write(self, record: ProcessRecord, name: str, document: object) -> None:
        """Put a document among the records of an incarnation."""
        (self.directory(record) / name).write_bytes(msgspec.json.encode(document))

    def edit(self, record: ProcessRecord, name: str, **changes: Callable[[Any], Any]) -> None:
        """Change fields of a document, each by a function of what it is."""
        document = msgspec.json.decode((self.directory(record) / name).read_bytes())
        self.write(record, name, document | {key: change(document[key]) for key, change in changes.items()})

    def close(self) -> None:
        for engine in self._engines:
            engine.close()
        for backend in self._backends:
            backend.close()

    def living(self) -> list[int]:
        """Every process of the machine that carries the mark of this test."""
        looks = (process for _ in range(2) for process in psutil.process_iter())  # one may fork on meanwhile
        return sorted({process.pid for process in looks if self._is_marked(process)})

    def kill_all(self) -> None:
        """By what only processes of this test can have: its folder in the command line, or its mark."""
        for _ in range(20):
            ours = [process for process in psutil.process_iter() if self._is_ours(process)]
            for process in [*ours, *(child for parent in ours for child in _children(parent))]:
                with suppress(psutil.Error):
                    process.send_signal(signal.SIGKILL)
            if not ours:
                break

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            if str(self.state_dir) in " ".join(process.cmdline()):
                return True
        except psutil.Error:
            return False
        return self._is_marked(process)

    def _is_marked(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get("SUPERVISORD_CP_NONCE", "").startswith(self._mark)
        except (psutil.Error, OSError):
            return False


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def ends(pid: int) -> None:
    """Wait until a process is no more."""
    await until(lambda: not is_alive(pid))


def start_ticks(pid: int) -> int:
    """Field 22 of /proc/PID/stat, of a program without blanks in its name."""
    return int(Path(f"/proc/{pid}/stat").read_text().split()[21])
