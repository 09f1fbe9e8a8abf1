"""Starting engines so that they outlive the agent, and finding them again."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from supervisord_cp.model.base import Incarnation, InstanceId, Value


class SpawnRequest(Value, frozen=True, kw_only=True):
    """One engine to start: everything is decided, nothing is looked up later."""

    instance: InstanceId
    incarnation: Incarnation
    nonce: str
    """In the engine's environment as SUPERVISORD_CP_NONCE; all its descendants inherit it."""
    argv: tuple[str, ...]
    env: dict[str, str]
    """The whole environment, secrets included: it is written to files of mode 0600 only. The back end
    adds the nonce, and SPT_NOENV=1 so that processes which change their title stay recognisable."""
    cwd: str
    log_path: str
    """Absolute. Full logs become `<log_path>.1` (the newest) to `<log_path>.<log_files>`; the last log of
    the incarnation before this one becomes `<log_path>.previous`."""
    log_max_bytes: int = 64 * 1024 * 1024
    """Size at which a log is rotated, at the end of a line."""
    log_files: int = 5
    """Rotated logs that are kept; 0: a full log is emptied."""
    meta: dict[str, str | int | float | bool | list[str] | None] = {}
    """What the agent wants back when it adopts (port, devices, revision, engine key, …)."""


class ProcessRecord(Value, frozen=True, kw_only=True):
    """Who an engine is. All of it must match before a process is taken for the recorded one."""

    instance: InstanceId
    incarnation: Incarnation
    nonce: str
    boot_id: str
    pid: int
    start_ticks: int
    """Field 22 of /proc/PID/stat: with pid and boot id, unique on a machine."""
    keeper_pid: int
    keeper_start_ticks: int
    meta: dict[str, str | int | float | bool | list[str] | None] = {}


class ExitStatus(Value, frozen=True, kw_only=True):
    """How the engine's main process ended, as its keeper saw it."""

    code: int | None = None
    signal: int | None = None
    requested: bool = False
    """Whether a stop was asked for before it ended."""
    keeper_lost: bool = False
    """The keeper was killed: nobody saw how the engine ended."""
    age_s: float = 0.0


class EngineProcess(Protocol):
    """A handle on one incarnation. Closing or losing the handle never touches the engine."""

    @property
    def record(self) -> ProcessRecord: ...

    @property
    def exited(self) -> asyncio.Future[ExitStatus]:
        """Done as soon as the main process is known to have ended. Shield it when awaiting."""
        ...

    @property
    def log_lost_bytes(self) -> int:
        """Output that could not be written to the log: the disk is full, or hangs."""
        ...

    async def stop(self, *, grace_s: float) -> None:
        """Ask for the end: SIGTERM to the main process, after `grace_s` SIGKILL to the whole tree.

        Returns at once; idempotent, and a later call may shorten the grace. The end itself is
        awaited with `gone()`.
        """
        ...

    async def gone(self) -> None:
        """Wait until no process of the tree is left (leftovers of a main process that ended by
        itself are killed by the keeper without being asked)."""
        ...

    def survivors(self) -> Sequence[int]:
        """Processes of the tree that are alive now."""
        ...

    def close(self) -> None:
        """Let go. The engine and its keeper run on."""
        ...


class ProcessBackend(Protocol):
    """A way to start keepers: `direct` (detached children) or `systemd` (units)."""

    async def spawn(self, request: SpawnRequest) -> EngineProcess:
        """Start a keeper and through it the engine; returns when the engine's pid is recorded on disk.

        Cancelling it does not undo a start that is under way: `find()` of the next agent has it.

        Raises:
            SpawnFailed: the program cannot be run, with the system's own words; or an earlier
                incarnation of the instance is not gone yet.
        """
        ...

    async def find(self) -> list[EngineProcess]:
        """Engines of earlier lives of the agent, alive or ended, found by their records.

        An ended one has `exited` done. A record whose process is somebody else's by now (other boot,
        other start ticks, other nonce) is an ended one with `keeper_lost`; that process is not touched.
        A live engine without a keeper gets another one where that is possible (`direct`); else it is an
        ended one too: `gone()` ends its leftovers. So is a start that was cut short; its record has pid 0.
        """
        ...

    def forget(self, instance: InstanceId) -> None:
        """Remove the records of an instance that has ended and is not wanted any more.

        Raises:
            ValueError: it is not gone yet.
        """
        ...

    def close(self) -> None:
        """Let go of everything. Engines and keepers run on."""
        ...


class SpawnFailed(Exception):
    """The engine could not be started."""


def instances_directory(state_dir: Path) -> Path:
    """Where the records of all instances are kept."""
    return state_dir / "instances"


def instance_directory(state_dir: Path, instance: InstanceId) -> Path:
    """Where an instance's records are kept."""
    return instances_directory(state_dir) / instance
