"""What central remembers over restarts."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Protocol


class Kind(StrEnum):
    """Tables of the memory; each maps a key to one JSON value."""

    ASSIGNMENT = "assignment"
    OVERRIDE = "override"
    CORDON = "cordon"
    HOLD = "hold"
    NODE = "node"
    FORGOTTEN = "forgotten"
    KEYS = "keys"
    BAD_REVISION = "bad_revision"
    SCALING = "scaling"


class StorePort(Protocol):
    """Small tables, written in order by one writer. Values are JSON texts made by the caller."""

    @property
    def fresh(self) -> bool:
        """Whether the store was empty when it was opened: nothing is known of the past."""
        ...

    def load(self, kind: Kind) -> Mapping[str, str]:
        """All values of a table. Blocking; used at the start."""
        ...

    def put(self, kind: Kind, key: str, value: str) -> None:
        """Remember; queued, written within milliseconds."""
        ...

    def delete(self, kind: Kind, key: str) -> None:
        """Forget; queued."""
        ...

    def append(self, stream: str, value: str, *, at: float | None = None) -> None:
        """Add to a stream of records (`event`, `decision/NAME`), bounded in number; queued.

        `at` is its wall-clock time in seconds since 1970; None: now.
        """
        ...

    def recent(self, stream: str, limit: int, *, until: float | None = None) -> list[tuple[float, str]]:
        """The newest records of a stream (those not after `until`), oldest first, with the wall-clock time
        of each. Blocking."""
        ...

    async def flush(self) -> None:
        """Wait until everything queued so far is on disk.

        Raises:
            StoreFailed: a write failed (disk full, read-only); the text says what to do.
        """
        ...

    def close(self) -> None:
        """Write what is queued and close."""
        ...


class StoreFailed(Exception):
    """The memory cannot be written."""
