"""The contract of a store, for the fake and for SQLite; what only a file can show, for SQLite."""

import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisord_cp.adapters.sqlite import SqliteStore
from supervisord_cp.ports.store import Kind, StoreFailed, StorePort
from tests.fakes.store import FakeStore

Make = Callable[[], StorePort]


@pytest.fixture(params=["fake", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path):
    made = FakeStore() if request.param == "fake" else SqliteStore(tmp_path / "a" / "central.db")
    yield made
    made.close()


@pytest.mark.asyncio
async def test_what_is_put_is_loaded_and_what_is_deleted_is_gone(store: StorePort) -> None:
    store.put(Kind.OVERRIDE, "chat", "1")
    store.put(Kind.OVERRIDE, "chat", "2")
    store.put(Kind.OVERRIDE, "code", "3")
    store.put(Kind.HOLD, "chat", "4")
    store.delete(Kind.OVERRIDE, "code")
    store.delete(Kind.OVERRIDE, "never")
    await store.flush()
    assert store.load(Kind.OVERRIDE) == {"chat": "2"}
    assert store.load(Kind.HOLD) == {"chat": "4"}
    assert store.load(Kind.CORDON) == {}


@pytest.mark.asyncio
async def test_a_stream_gives_its_newest_oldest_first(store: StorePort) -> None:
    for number in range(5):
        store.append("event", str(number))
    store.append("decision", "x")
    await store.flush()
    assert [value for _, value in store.recent("event", 3)] == ["2", "3", "4"]


@pytest.mark.asyncio
async def test_a_new_one_is_fresh(store: StorePort) -> None:
    assert store.fresh


@pytest.mark.asyncio
async def test_sqlite_remembers_over_a_restart_and_is_not_fresh_then(tmp_path: Path) -> None:
    first = SqliteStore(tmp_path / "central.db")
    first.put(Kind.HOLD, "chat", "{}")
    first.close()
    second = SqliteStore(tmp_path / "central.db")
    assert (second.fresh, second.load(Kind.HOLD)) == (False, {"chat": "{}"})
    second.close()


def test_sqlite_keeps_the_file_to_its_owner(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "central.db")
    assert stat.S_IMODE((tmp_path / "central.db").stat().st_mode) == 0o600
    store.close()


@pytest.mark.asyncio
async def test_sqlite_says_when_it_cannot_write(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "central.db")
    store._db.execute("PRAGMA query_only = ON")
    store.put(Kind.HOLD, "chat", "{}")
    with pytest.raises(StoreFailed, match=r"read-?only"):
        await store.flush()
    store._db.execute("PRAGMA query_only = OFF")
    store.put(Kind.HOLD, "chat", "{}")
    await store.flush()
    assert store.load(Kind.HOLD) == {"chat": "{}"}
    store.close()


@pytest.mark.asyncio
async def test_sqlite_bounds_its_streams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("supervisord_cp.adapters.sqlite.STREAM_LIMIT", 100)
    store = SqliteStore(tmp_path / "central.db")
    for number in range(2000):
        store.append("event", str(number))
    await store.flush()
    kept = [value for _, value in store.recent("event", 5000)]
    assert kept[-1] == "1999"
    assert len(kept) <= 100
    store.close()
