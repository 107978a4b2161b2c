"""Opening what is no event store, or none for us: a clear error, and the file stays as it was."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest
from appending_worker import event

from evento.errors import SchemaTooNew, StoreUnavailable
from evento.state_store import Append
from evento.state_store.sqlite import SqliteStateStore
from evento.state_store.sqlite.schema import SCHEMA_VERSION


async def test_the_database_of_another_application_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE events (id INTEGER PRIMARY KEY, text TEXT)")
        other.commit()
    before = path.read_bytes()
    for read_only in (False, True):
        with pytest.raises(StoreUnavailable, match=f"{path} is the database of another application"):
            await SqliteStateStore(path, read_only=read_only).__aenter__()
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir() if file.name != "other.db-lock"] == ["other.db"]


@pytest.mark.parametrize("content", [b"x", b"no database " * 1000], ids=["short", "long"])
async def test_what_is_no_database_is_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    for read_only in (False, True):
        with pytest.raises(StoreUnavailable, match=r"is not a SQLite database: .* give another path"):
            await SqliteStateStore(path, read_only=read_only).__aenter__()
    assert path.read_bytes() == content


async def test_an_empty_file_becomes_a_store(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    path.touch()
    async with SqliteStateStore(path) as store:
        assert (await store.verify()).ok


async def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    async with SqliteStateStore(path) as store:
        await store.append(Append(event("A")))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE meta SET schema_version = schema_version + 1")
        connection.commit()
    before = path.read_bytes()
    for read_only in (False, True):
        with pytest.raises(SchemaTooNew, match="upgrade evento-framework") as caught:
            await SqliteStateStore(path, read_only=read_only).__aenter__()
        assert caught.value.data == {"found": SCHEMA_VERSION + 1, "known": SCHEMA_VERSION}
    assert path.read_bytes() == before


async def test_an_older_schema_is_not_migrated_by_reading(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    async with SqliteStateStore(path):
        pass
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE meta SET schema_version = 0")
        connection.commit()
    with pytest.raises(StoreUnavailable, match="open it once for writing"):
        await SqliteStateStore(path, read_only=True).__aenter__()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("{0}", "is a folder"),
        ("{0}/missing/events.db", "folder must exist"),
        ("/proc/events.db", "/proc/events.db.* folder must exist and be writable"),
        ("{0}/file/events.db", "file/events.db"),
    ],
)
async def test_a_path_where_no_file_can_be(tmp_path: Path, path: str, message: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnavailable, match=message) as caught:
        await SqliteStateStore(path.format(tmp_path)).__aenter__()
    assert caught.value.definite


@pytest.mark.parametrize("name", ["what?.db", "50%.db", "a#b.db", "größe \N{SNOWMAN}.db", "file:x.db", "a b.db"])
async def test_any_name_will_do(tmp_path: Path, name: str) -> None:
    for number in range(2):
        async with SqliteStateStore(tmp_path / name) as store:
            await store.append(Append(event("A"), number))
    async with SqliteStateStore(str(tmp_path / name), read_only=True) as store:
        assert await store.head() == 2
    assert (tmp_path / name).is_file()


async def test_a_store_object_is_open_once_at_a_time(tmp_path: Path) -> None:
    store = SqliteStateStore(tmp_path / "events.db")
    for _ in range(2):
        async with store:
            with pytest.raises(StoreUnavailable, match="open already"):
                await store.__aenter__()
            assert await store.head() == 0


async def test_a_closed_store_leaves_one_file_and_its_lock(tmp_path: Path) -> None:
    async with SqliteStateStore(tmp_path / "events.db") as store:
        await store.append(Append(event("A")))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["events.db", "events.db-lock"]


async def test_no_thread_is_left(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    async with SqliteStateStore(tmp_path / "events.db") as store, SqliteStateStore(None) as memory:
        await store.verify()
        await memory.verify()
        assert set(threading.enumerate()) - before
    assert set(threading.enumerate()) <= before  # one of another test may have ended meanwhile


async def test_making_a_store_starts_nothing(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    SqliteStateStore(tmp_path / "events.db")
    assert set(threading.enumerate()) <= before
    assert list(tmp_path.iterdir()) == []


def test_in_memory_and_read_only_makes_no_sense() -> None:
    with pytest.raises(ValueError, match="read-only"):
        SqliteStateStore(None, read_only=True)
