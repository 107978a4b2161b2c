"""A disk that is full or fails: a clear error for each caller, nothing half stored, and work goes on afterwards."""

from __future__ import annotations

import asyncio
import resource
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from appending_worker import event

from evento.errors import StoreUnavailable
from evento.state_store import AlreadyStored, Append, Appended
from evento.state_store.sqlite import SqliteStateStore


@contextmanager
def files_limited_to(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond ``size`` bytes: to the writer that is a disk without space."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def outcomes_of(store: SqliteStateStore, appends: list[Append]) -> list[Any]:
    return await asyncio.gather(*map(store.append, appends), return_exceptions=True)


async def test_a_disk_without_space(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    async with SqliteStateStore(path) as store:
        assert isinstance(await store.append(Append(event("A"), 0)), Appended)
        refused = [Append(event("A"), number) for number in range(1, 9)]
        with files_limited_to(Path(f"{path}-wal").stat().st_size):
            errors = await outcomes_of(store, refused)
            assert await store.head() == 1
            assert (await store.story("A")).version == 1
        for error in errors:
            assert isinstance(error, StoreUnavailable)
            assert error.definite
            assert str(path) in error.message
            assert "free space" in error.message
        assert len(set(map(id, errors))) == len(errors)
        # There is space again: the same appends are stored, each once.
        assert [outcome.record.version for outcome in await outcomes_of(store, refused)] == list(range(2, 10))
        assert (await store.verify()).ok
    async with SqliteStateStore(path) as store:
        assert await store.head() == 9


async def test_a_checkpoint_without_space_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    async with SqliteStateStore(path) as store:
        await outcomes_of(store, [Append(event(f"A{number}")) for number in range(500)])
        limit = files_limited_to(path.stat().st_size)
        limit.__enter__()
    limit.__exit__(None, None, None)
    assert Path(f"{path}-wal").stat().st_size > 0
    async with SqliteStateStore(path) as store:
        assert await store.head() == 500
        assert (await store.verify()).ok
    assert not Path(f"{path}-wal").exists()


async def test_another_program_that_writes_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evento.state_store.sqlite.connections._BUSY_SECONDS", 0.05)
    path = tmp_path / "events.db"
    async with SqliteStateStore(path) as store:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="another program holds a lock") as caught:
            await store.append(Append(event("A")))
        assert caught.value.definite
        other.execute("ROLLBACK")
        other.close()
        assert isinstance(await store.append(Append(event("A"), 0)), Appended)


class Troubled(sqlite3.Connection):
    """A connection whose COMMIT can report a failed flush, before or after the commit has really happened."""

    failing: str | None = None

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        if sql != "COMMIT" or Troubled.failing is None:
            return super().execute(sql, *parameters)
        if Troubled.failing == "after":
            super().execute("COMMIT")
        Troubled.failing = None
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
        raise error


@pytest.fixture
def troubled(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Troubled]]:
    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Troubled))
    yield Troubled
    Troubled.failing = None


async def test_a_commit_that_happened_although_it_failed(tmp_path: Path, troubled: type[Troubled]) -> None:
    async with SqliteStateStore(tmp_path / "events.db") as store:
        troubled.failing = "after"
        outcomes = await outcomes_of(store, [Append(event("A"), number) for number in range(3)])
        assert [outcome.record.version for outcome in outcomes] == [1, 2, 3]
        assert await store.head() == 3
        assert (await store.verify()).ok


async def test_a_commit_in_doubt_is_told_as_such(tmp_path: Path, troubled: type[Troubled]) -> None:
    appends = [Append(event("A"), number) for number in range(3)]
    async with SqliteStateStore(tmp_path / "events.db") as store:
        troubled.failing = "before"
        for error in await outcomes_of(store, appends):
            assert isinstance(error, StoreUnavailable)
            assert not error.definite
            assert "ask again with the same ids" in error.message
        assert await store.head() == 0
        # Asking again settles it, whichever way the failed commit went.
        again = await outcomes_of(store, appends)
        assert [outcome.record.version for outcome in again] == [1, 2, 3]
        assert [type(outcome) for outcome in await outcomes_of(store, appends)] == [AlreadyStored] * 3
        assert (await store.verify()).ok


async def test_a_write_in_doubt_that_is_no_append(tmp_path: Path, troubled: type[Troubled]) -> None:
    async with SqliteStateStore(tmp_path / "events.db") as store:
        troubled.failing = "after"
        with pytest.raises(StoreUnavailable) as caught:
            await store.lock("L", owner="a", ttl=60)
        assert not caught.value.definite
