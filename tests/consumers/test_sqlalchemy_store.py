"""The SQLAlchemy consumer state store on SQLite, in a file and in memory."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from waiting import eventually

from evento.consumers.port import Checkpoint, ConsumerId, ConsumerStateStore
from evento.consumers.sqlalchemy_store import SqlConsumerStateStore
from evento.errors import DefinitionError, SchemaTooNew, StoreUnavailable
from evento.testing.conformance.consumer_store import ConsumerStateStoreConformance
from evento.testing.conformance.dead_event_queue import CONSUMER, START, dead_event


def url(path: Path) -> str:
    return f"sqlite+aiosqlite:///{path}"


class TestSqliteFile(ConsumerStateStoreConformance):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[ConsumerStateStore]:
        async with SqlConsumerStateStore(url(tmp_path / "consumers.db")) as store:
            yield store


class TestSqliteMemory(ConsumerStateStoreConformance):
    @pytest.fixture
    async def store(self) -> AsyncIterator[ConsumerStateStore]:
        async with SqlConsumerStateStore("sqlite+aiosqlite://") as store:
            yield store


async def test_what_is_committed_is_there_after_reopening(tmp_path: Path) -> None:
    path = tmp_path / "consumers.db"
    async with SqlConsumerStateStore(url(path)) as store:
        await store.register(CONSUMER, START)
        lease = await store.acquire(CONSUMER, owner="a", ttl=60)
        assert lease is not None
        await store.commit(lease, 41)
    async with SqlConsumerStateStore(url(path)) as store:
        stored = await store.load(CONSUMER)
        assert stored is not None
        assert stored.checkpoint == Checkpoint(41, "store-1", 1)


async def test_commits_are_flushed_to_the_disk(tmp_path: Path) -> None:
    async with SqlConsumerStateStore(url(tmp_path / "consumers.db")) as store, store.begin() as connection:
        assert await connection.scalar(text("PRAGMA journal_mode")) == "wal"
        assert await connection.scalar(text("PRAGMA synchronous")) == 2  # FULL


async def test_an_open_transaction_keeps_every_other_process_from_a_lease_that_has_lapsed(tmp_path: Path) -> None:
    """Also before anything is written in it: that is what `holds_writer` tells the keepers of leases."""
    where = url(tmp_path / "consumers.db")
    async with SqlConsumerStateStore(where) as store, SqlConsumerStateStore(where, timeout=0.3) as other:
        await store.register(CONSUMER, START)
        lease = await store.acquire(CONSUMER, owner="a", ttl=0)
        assert lease is not None
        async with store.transaction(lease) as transaction:
            assert (store.holds_writer, other.holds_writer) == (True, False)
            with pytest.raises(StoreUnavailable, match=r"locked|no answer in time"):
                await other.acquire(CONSUMER, owner="b", ttl=60)
            await transaction.commit(7)
            assert (store.holds_writer, other.holds_writer) == (False, False)
        assert await other.acquire(CONSUMER, owner="b", ttl=60) is not None
        assert not await store.renew(lease, ttl=60)


async def test_two_stores_in_memory_are_two_databases_without_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with SqlConsumerStateStore("sqlite+aiosqlite://") as one, SqlConsumerStateStore("sqlite://") as other:
        await one.register(CONSUMER, START)
        assert await other.load(CONSUMER) is None
    assert list(tmp_path.iterdir()) == []


async def test_a_store_in_memory_survives_a_cancelled_operation() -> None:
    before = set(threading.enumerate())
    async with SqlConsumerStateStore("sqlite+aiosqlite://") as store:
        await store.register(CONSUMER, START)
        for delay in range(30):
            task = asyncio.ensure_future(store.load(CONSUMER))
            for _ in range(delay):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert await store.load(CONSUMER) is not None
    # The driver does not wait for the thread of a connection that it gives up, and that must not outlive the loop.
    await eventually(lambda: set(threading.enumerate()) <= before)


async def test_tables_of_others_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "read-model.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE orders (id INTEGER)")
        connection.execute("INSERT INTO orders VALUES (1)")
    connection.close()
    async with SqlConsumerStateStore(url(path)) as store, store.begin() as session:
        names = set(await session.scalars(text("SELECT name FROM sqlite_master WHERE type = 'table'")))
        assert await session.scalar(text("SELECT count(*) FROM orders")) == 1
    assert {name for name in names if not name.startswith("evento_consumer")} == {"orders"}


async def test_a_newer_schema_is_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / "consumers.db"
    async with SqlConsumerStateStore(url(path)) as store, store.begin() as connection:
        await connection.execute(text("UPDATE evento_consumer_schema SET version = 99"))
    with pytest.raises(SchemaTooNew, match=r"version 99.*install the newer Evento"):
        async with SqlConsumerStateStore(url(path)):
            pass
    with sqlite3.connect(path) as check:
        assert check.execute("SELECT version FROM evento_consumer_schema").fetchall() == [(99,)]
    check.close()


async def test_an_older_schema_is_migrated_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from evento.consumers.sqlalchemy_store import schema

    path = tmp_path / "consumers.db"
    async with SqlConsumerStateStore(url(path)) as store:
        await store.register(CONSUMER, START)

    def add_column(connection: object) -> None:
        connection.execute(text("ALTER TABLE evento_consumer ADD COLUMN note TEXT"))  # type: ignore[attr-defined]

    newer = schema.SCHEMA_VERSION + 1
    monkeypatch.setattr(schema, "SCHEMA_VERSION", newer)
    monkeypatch.setattr(schema, "MIGRATIONS", {newer: add_column})
    for _ in range(2):
        async with SqlConsumerStateStore(url(path)) as store, store.begin() as connection:
            assert (await connection.execute(text("SELECT note FROM evento_consumer"))).all() == [(None,)]
            assert await connection.scalar(text("SELECT version FROM evento_consumer_schema")) == newer


async def test_the_first_schema_gets_the_later_tables(tmp_path: Path) -> None:
    path = tmp_path / "consumers.db"
    async with SqlConsumerStateStore(url(path)) as store:
        await store.register(CONSUMER, START)
        async with store.begin() as connection:
            for table in ("saga", "saga_association", "finished_event", "directions"):
                await connection.execute(text(f"DROP TABLE evento_consumer_{table}"))
            await connection.execute(text("ALTER TABLE evento_consumer_dead_event DROP COLUMN retry"))
            await connection.execute(text("UPDATE evento_consumer_schema SET version = 1"))
    async with SqlConsumerStateStore(url(path)) as store:
        assert await store.load(CONSUMER) is not None
        assert await store.find_saga(CONSUMER, "order_id=1") is None
        assert await store.finished(CONSUMER) == frozenset()


async def test_the_queue_of_the_third_schema_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "consumers.db"
    async with SqlConsumerStateStore(url(path)) as store:
        await store.register(CONSUMER, START)
        lease = await store.acquire(CONSUMER, owner="a", ttl=60)
        assert lease is not None
        await store.commit(lease, 1, parked=[dead_event(1)])
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE evento_consumer_directions")
        connection.execute("ALTER TABLE evento_consumer_dead_event DROP COLUMN retry")
        connection.execute("UPDATE evento_consumer_schema SET version = 3")
    connection.close()
    async with SqlConsumerStateStore(url(path)) as store:
        (kept,) = await store.dead_events(CONSUMER)
        assert (kept.position, kept.retry) == (1, False)
        await store.set_paused(CONSUMER, True)


async def test_stores_that_open_a_new_file_together_agree(tmp_path: Path) -> None:
    async def register(owner: int) -> int:
        async with SqlConsumerStateStore(url(tmp_path / "consumers.db")) as store:
            return (await store.register(CONSUMER, Checkpoint(owner, "store-1", 1))).checkpoint.position

    assert len(set(await asyncio.gather(*(register(owner) for owner in range(4))))) == 1


async def test_a_database_that_is_busy_too_long_is_unavailable(tmp_path: Path) -> None:
    path = tmp_path / "consumers.db"
    async with SqlConsumerStateStore(url(path), timeout=3) as store:
        await store.register(CONSUMER, START)
        blocker = create_async_engine(url(path))
        async with blocker.connect() as connection:
            await connection.execute(text("BEGIN IMMEDIATE"))
            with pytest.raises(StoreUnavailable, match=r"consumers\.db"):
                await store.load(CONSUMER)
        await blocker.dispose()
        assert await store.load(CONSUMER) is not None


async def test_a_folder_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="cannot be opened"):
        async with SqlConsumerStateStore(url(tmp_path / "nowhere" / "consumers.db")):
            pass


async def test_a_store_that_is_not_open_says_so(tmp_path: Path) -> None:
    store = SqlConsumerStateStore(url(tmp_path / "consumers.db"))
    with pytest.raises(StoreUnavailable, match="async with"):
        await store.load(CONSUMER)
    assert not (tmp_path / "consumers.db").exists()


@pytest.mark.parametrize(
    ("address", "mend"),
    [
        ("shop.db", r"sqlite\+aiosqlite:///"),
        ("oracle://db/shop", "use mariadb, mysql, postgresql, sqlite"),
        ("sqlite+pysqlite:///shop.db", r"sqlite\+aiosqlite://"),
    ],
)
async def test_a_url_that_cannot_be_used_is_refused(address: str, mend: str) -> None:
    with pytest.raises(DefinitionError, match=mend):
        async with SqlConsumerStateStore(address):
            pass


async def test_a_missing_driver_names_the_line_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    with pytest.raises(DefinitionError, match="pip install asyncpg") as caught:
        async with SqlConsumerStateStore("postgresql://ann:secret@db/shop"):
            pass
    assert "secret" not in str(caught.value)


def test_consumer_ids_are_for_people_as_text() -> None:
    assert str(ConsumerId("shop_eu", "Order_Projector", 2, "e_u")) == "Order_Projector v2 [e_u] of shop_eu"
