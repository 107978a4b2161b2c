"""The SQLAlchemy consumer state store on the servers: PostgreSQL and MariaDB."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from evento import databases
from evento.consumers.port import Checkpoint, ConsumerStateStore
from evento.consumers.sqlalchemy_store import SqlConsumerStateStore
from evento.errors import DefinitionError, LeaseLost, SchemaTooNew, StoreUnavailable
from evento.testing.conformance.consumer_store import ConsumerStateStoreConformance
from evento.testing.conformance.dead_event_queue import CONSUMER, START, dead_event


class TestPostgres(ConsumerStateStoreConformance):
    @pytest.fixture
    async def store(self, postgres_database: str) -> AsyncIterator[ConsumerStateStore]:
        async with SqlConsumerStateStore(postgres_database) as store:
            yield store


class TestMariadb(ConsumerStateStoreConformance):
    @pytest.fixture
    async def store(self, mariadb_database: str) -> AsyncIterator[ConsumerStateStore]:
        async with SqlConsumerStateStore(mariadb_database) as store:
            yield store


# Sessions ------------------------------------------------------------------------------------------------------------


async def test_a_process_that_is_paused_in_a_handler_lets_go_of_its_locks(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database ends its session, so that who takes over does not wait for it; its own commit fails."""
    monkeypatch.setattr(databases, "IDLE_SECONDS", 2.0)  # nobody else is idle for so long between two statements
    async with SqlConsumerStateStore(database) as paused, SqlConsumerStateStore(database, timeout=20) as other:
        await paused.register(CONSUMER, START)
        lease = await paused.acquire(CONSUMER, owner="a", ttl=60)
        assert lease is not None
        async with paused.begin() as connection:
            await connection.execute(text("CREATE TABLE totals (name VARCHAR(9) PRIMARY KEY, amount BIGINT)"))
            await connection.execute(text("INSERT INTO totals VALUES ('sum', 0)"))
        async with paused.transaction(lease) as transaction:
            await transaction.connection.execute(text("UPDATE totals SET amount = 1"))
            async with other.begin() as connection:  # waits for the end of the session
                await connection.execute(text("UPDATE totals SET amount = 2"))
            with pytest.raises(StoreUnavailable):
                await transaction.commit(1)
        async with other.begin() as connection:
            assert await connection.scalar(text("SELECT amount FROM totals")) == 2
        stored = await other.load(CONSUMER)
        assert stored is not None
        assert stored.checkpoint == START


async def kill(store: SqlConsumerStateStore, connection: AsyncConnection) -> None:
    """End the session of a connection of the store."""
    mysql = connection.dialect.name == "mysql"
    id = await connection.scalar(text("SELECT CONNECTION_ID()" if mysql else "SELECT pg_backend_pid()"))
    async with store.begin() as other:
        await other.execute(text(f"KILL CONNECTION {id}" if mysql else f"SELECT pg_terminate_backend({id})"))


async def test_a_session_that_was_ended_in_a_transaction_commits_nothing(database: str) -> None:
    async with SqlConsumerStateStore(database) as store:
        await store.register(CONSUMER, START)
        lease = await store.acquire(CONSUMER, owner="a", ttl=60)
        assert lease is not None
        async with store.transaction(lease) as transaction:
            await transaction.connection.execute(text("SELECT 1"))
            await kill(store, transaction.connection)
            with pytest.raises(StoreUnavailable) as caught:
                await transaction.commit(7)
            assert caught.value.definite is False
        stored = await store.load(CONSUMER)
        assert stored is not None
        assert stored.checkpoint == START
        await store.commit(lease, 8)


async def test_connections_of_the_pool_that_were_ended_are_replaced_unseen(database: str) -> None:
    async def use_killed() -> None:
        async with store.begin() as connection:
            await kill(store, connection)
            await connection.execute(text("SELECT 1"))

    async with SqlConsumerStateStore(database) as store:
        await store.register(CONSUMER, START)
        with pytest.raises(DBAPIError) as caught:
            await use_killed()
        assert databases.is_outage(caught.value)
        assert await asyncio.gather(*(store.load(CONSUMER) for _ in range(8)))


async def test_cancelled_operations_leave_no_answers_to_the_next(database: str) -> None:
    async with SqlConsumerStateStore(database) as store:
        await store.register(CONSUMER, START)
        others = [replace(CONSUMER, version=version) for version in (2, 3, 4)]
        for position, other in enumerate(others, 1):
            await store.register(other, Checkpoint(position, "store-1", 1))
        for delay in range(0, 60, 2):
            tasks = [asyncio.ensure_future(store.load(other)) for other in others]
            for _ in range(delay):
                await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for position, other in enumerate(others, 1):
                stored = await store.load(other)
                assert stored is not None
                assert stored.checkpoint.position == position


async def test_the_token_is_the_fence_of_a_transaction_that_was_overtaken(database: str) -> None:
    async with SqlConsumerStateStore(database) as old, SqlConsumerStateStore(database) as new:
        await old.register(CONSUMER, START)
        lease = await old.acquire(CONSUMER, owner="a", ttl=0)
        assert lease is not None
        async with old.begin() as connection:
            await connection.execute(text("CREATE TABLE effects (owner VARCHAR(9))"))
        async with old.transaction(lease) as transaction:
            await transaction.connection.execute(text("INSERT INTO effects VALUES ('old')"))
            taken = await new.acquire(CONSUMER, owner="b", ttl=60)
            assert taken is not None
            async with new.transaction(taken) as other:
                await other.connection.execute(text("INSERT INTO effects VALUES ('new')"))
                await other.commit(5)
            with pytest.raises(LeaseLost):
                await transaction.commit(5)
        async with new.begin() as connection:
            assert (await connection.scalars(text("SELECT owner FROM effects"))).all() == ["new"]


async def test_a_user_with_other_defaults_has_the_same_store(mariadb_database: str) -> None:
    admin = create_async_engine(mariadb_database)
    changes = {
        "sql_mode": "'ANSI_QUOTES,NO_BACKSLASH_ESCAPES,EMPTY_STRING_IS_NULL'",
        "default_storage_engine": "Aria",
        "innodb_default_row_format": "'compact'",
        "tx_isolation": "'SERIALIZABLE'",
        "time_zone": "'+13:00'",
    }
    async with admin.begin() as connection:
        before = {name: await connection.scalar(text(f"SELECT @@GLOBAL.{name}")) for name in changes}
        for name, value in changes.items():
            await connection.execute(text(f"SET GLOBAL {name} = {value}"))
    try:
        async with SqlConsumerStateStore(mariadb_database) as store:
            await store.register(CONSUMER, START)
            lease = await store.acquire(CONSUMER, owner='a\\"', ttl=60)
            assert lease is not None
            await store.commit(lease, 3, parked=[dead_event(3, key=""), dead_event(4, key='\\"')])
            assert await store.dead_keys(CONSUMER) == {"", '\\"'}
            with pytest.raises(DBAPIError):  # and nothing of it is cut
                await store.register(replace(CONSUMER, context="x" * 241), START)
            async with store.begin() as connection:
                engines = await connection.scalars(
                    text("SELECT DISTINCT engine FROM information_schema.tables WHERE table_name LIKE 'evento%'")
                )
                assert engines.all() == ["InnoDB"]
                assert await connection.scalar(text("SELECT @@tx_isolation")) == "READ-COMMITTED"
    finally:
        async with admin.begin() as connection:
            for name, value in before.items():
                await connection.execute(text(f"SET GLOBAL {name} = :value"), {"value": value})
        await admin.dispose()


async def test_leases_do_not_see_the_clocks_go_back(mariadb_database: str) -> None:
    """In the hour that local time has twice, the clock of the leases goes on."""
    engine = databases.make_engine(mariadb_database, timeout=5)
    times = []
    async with engine.connect() as connection:
        for zone in ("+00:00", "-11:00", "+13:00"):
            await connection.execute(text(f"SET time_zone = '{zone}', timestamp = 1792976400"))
            times.append(await connection.scalar(databases.database_now().select()))
    await engine.dispose()
    assert times == [1792976400_000000] * 3


# Schemas -------------------------------------------------------------------------------------------------------------


async def an_older_schema(database: str, version: int) -> None:
    """Leave a database as that version of the schema made it, with a consumer and two dead events."""
    async with SqlConsumerStateStore(database) as store:
        await store.register(CONSUMER, START)
        lease = await store.acquire(CONSUMER, owner="a", ttl=0)
        assert lease is not None
        await store.commit(lease, 2, parked=[dead_event(1), dead_event(2, waiting=True)])
        async with store.begin() as connection:
            later = {"saga": 2, "saga_association": 2, "finished_event": 3, "directions": 4}
            for table in (table for table, since in later.items() if since > version):
                await connection.execute(text(f"DROP TABLE evento_consumer_{table}"))
            await connection.execute(text("ALTER TABLE evento_consumer_dead_event DROP COLUMN retry"))
            await connection.execute(text(f"UPDATE evento_consumer_schema SET version = {version}"))


async def check_migrated(store: SqlConsumerStateStore) -> None:
    """Check that all of it is there, and works."""
    assert [(event.position, event.retry) for event in await store.dead_events(CONSUMER)] == [(1, False), (2, False)]
    assert await store.find_saga(CONSUMER, "order_id=1") is None
    assert await store.finished(CONSUMER) == frozenset()
    await store.set_paused(CONSUMER, True)
    stored = await store.load(CONSUMER)
    assert stored is not None
    assert (stored.checkpoint.position, stored.directions.paused) == (2, True)


@pytest.mark.parametrize("version", [1, 2, 3])
async def test_older_schemas_are_migrated_with_what_they_hold(database: str, version: int) -> None:
    await an_older_schema(database, version)
    async with SqlConsumerStateStore(database) as store:
        await check_migrated(store)


async def test_a_migration_that_was_interrupted_goes_on(mariadb_database: str) -> None:
    """MariaDB commits every change of a table by itself."""
    await an_older_schema(mariadb_database, 3)
    engine = create_async_engine(mariadb_database)
    async with engine.begin() as connection:
        table = "evento_consumer_dead_event"
        await connection.execute(text(f"ALTER TABLE {table} ADD COLUMN retry BOOLEAN NOT NULL DEFAULT FALSE"))
    await engine.dispose()
    async with SqlConsumerStateStore(mariadb_database) as store:
        await check_migrated(store)


@pytest.mark.parametrize("version", [None, 1])
async def test_stores_that_open_a_database_together_agree(database: str, version: int | None) -> None:
    if version is not None:
        await an_older_schema(database, version)

    async def register(owner: int) -> int:
        async with SqlConsumerStateStore(database) as store:
            return (await store.register(CONSUMER, Checkpoint(owner, "store-1", 1))).checkpoint.position

    assert len(set(await asyncio.gather(*(register(owner) for owner in range(4))))) == 1


async def test_a_newer_schema_is_refused(database: str) -> None:
    async with SqlConsumerStateStore(database) as store, store.begin() as connection:
        await connection.execute(text("UPDATE evento_consumer_schema SET version = 99"))
    with pytest.raises(SchemaTooNew, match="version 99"):
        async with SqlConsumerStateStore(database):
            pass


async def test_tools_make_no_tables(database: str) -> None:
    with pytest.raises(StoreUnavailable, match="a bundle makes it at its first start"):
        async with SqlConsumerStateStore(database, existing=True):
            pass


@pytest.mark.parametrize("scheme", ["mysql", "mariadb", "mariadb+asyncmy"])
async def test_a_url_may_say_mariadb_and_leave_out_the_driver(mariadb_database: str, scheme: str) -> None:
    async with SqlConsumerStateStore(mariadb_database.replace("mysql+asyncmy", scheme)) as store:
        await store.register(CONSUMER, START)
        assert await store.acquire(CONSUMER, owner="a", ttl=60) is not None


async def test_a_database_that_is_away_is_unavailable_without_its_password() -> None:
    with pytest.raises(StoreUnavailable) as caught:
        async with SqlConsumerStateStore("mysql://ann:secret@127.0.0.1:1/shop"):
            pass
    assert "secret" not in str(caught.value)


async def test_a_missing_driver_of_mysql_names_the_line_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "asyncmy", None)
    with pytest.raises(DefinitionError, match="pip install asyncmy"):
        async with SqlConsumerStateStore("mysql://ann:secret@db/shop"):
            pass
