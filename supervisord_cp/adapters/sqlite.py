"""Central's memory in one SQLite file, written by one thread."""

import asyncio
import logging
import math
import sqlite3
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from supervisord_cp.ports.store import Kind, StoreFailed

log = logging.getLogger(__name__)

STREAM_LIMIT: Final = 10_000
DECISION_LIMIT: Final = 500
"""Of one deployment."""
DECISIONS: Final = "decision/"
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS kv
  (kind TEXT, key TEXT, value TEXT NOT NULL, PRIMARY KEY (kind, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS stream (id INTEGER PRIMARY KEY, name TEXT, at REAL, value TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS stream_by_name ON stream (name, id);
"""


class SqliteStore:
    """A `StorePort`. The file is readable by its owner only: it holds engine keys."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = not path.exists()
        path.touch(mode=0o600)
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(_SCHEMA)
        self._fresh = new or not self._db.execute("SELECT 1 FROM kv LIMIT 1").fetchone()
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        self._failure: str = ""
        self._appended = 0

    @property
    def fresh(self) -> bool:
        return self._fresh

    def load(self, kind: Kind) -> Mapping[str, str]:
        return dict(self._db.execute("SELECT key, value FROM kv WHERE kind = ?", (kind,)).fetchall())

    def put(self, kind: Kind, key: str, value: str) -> None:
        self._queue(
            lambda: self._db.execute("INSERT OR REPLACE INTO kv VALUES (?, ?, ?)", (kind, key, value))
        )

    def delete(self, kind: Kind, key: str) -> None:
        self._queue(lambda: self._db.execute("DELETE FROM kv WHERE kind = ? AND key = ?", (kind, key)))

    def append(self, stream: str, value: str, *, at: float | None = None) -> None:
        at = time.time() if at is None else at
        self._queue(
            lambda: self._db.execute(
                "INSERT INTO stream (name, at, value) VALUES (?, ?, ?)", (stream, at, value)
            )
        )
        self._appended += 1
        if self._appended % 1000 == 0:
            self._queue(self._trim)

    def recent(self, stream: str, limit: int, *, until: float | None = None) -> list[tuple[float, str]]:
        rows = self._db.execute(
            "SELECT at, value FROM stream WHERE name = ? AND at <= ? ORDER BY id DESC LIMIT ?",
            (stream, math.inf if until is None else until, limit),
        ).fetchall()
        return [(at, value) for at, value in reversed(rows)]

    async def flush(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._writer, lambda: None)
        if self._failure:
            raise StoreFailed(
                f"central's memory cannot be written: {self._failure}; free the disk or mend its rights"
            )

    def close(self) -> None:
        self._writer.shutdown(wait=True)
        self._db.close()

    def _trim(self) -> None:
        """Bound each stream, and the decisions of all deployments together."""
        names = [name for (name,) in self._db.execute("SELECT DISTINCT name FROM stream").fetchall()]
        for name in names:
            limit = DECISION_LIMIT if name.startswith(DECISIONS) else STREAM_LIMIT
            self._db.execute(
                "DELETE FROM stream WHERE name = ? AND id <= "
                "(SELECT id FROM stream WHERE name = ? ORDER BY id DESC LIMIT 1 OFFSET ?)",
                (name, name, limit),
            )
        self._db.execute(
            "DELETE FROM stream WHERE name GLOB ? AND id <= "
            "(SELECT id FROM stream WHERE name GLOB ? ORDER BY id DESC LIMIT 1 OFFSET ?)",
            (DECISIONS + "*", DECISIONS + "*", STREAM_LIMIT),
        )

    def _queue(self, write: Callable[[], object]) -> None:
        self._writer.submit(self._write, write)

    def _write(self, write: Callable[[], object]) -> None:
        try:
            write()
        except sqlite3.Error as error:
            if not self._failure:
                log.error("central's memory cannot be written: %s", error)
            self._failure = str(error)
        else:
            self._failure = ""
