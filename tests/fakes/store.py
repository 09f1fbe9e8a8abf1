"""A store in memory; runs the same contract suite as the real one."""

from collections.abc import Mapping

from supervisord_cp.ports.store import Kind


class FakeStore:
    """A `StorePort` without a disk."""

    def __init__(self, *, fresh: bool = True) -> None:
        self._fresh = fresh
        self._tables: dict[Kind, dict[str, str]] = {}
        self._streams: dict[str, list[tuple[float, str]]] = {}

    @property
    def fresh(self) -> bool:
        return self._fresh

    def load(self, kind: Kind) -> Mapping[str, str]:
        return dict(self._tables.get(kind, {}))

    def put(self, kind: Kind, key: str, value: str) -> None:
        self._tables.setdefault(kind, {})[key] = value

    def delete(self, kind: Kind, key: str) -> None:
        self._tables.get(kind, {}).pop(key, None)

    def append(self, stream: str, value: str, *, at: float | None = None) -> None:
        self._streams.setdefault(stream, []).append((at or 0.0, value))

    def recent(self, stream: str, limit: int, *, until: float | None = None) -> list[tuple[float, str]]:
        kept = self._streams.get(stream, [])
        return [(at, value) for at, value in kept if until is None or at <= until][-limit:]

    async def flush(self) -> None:
        return None

    def close(self) -> None:
        return None
