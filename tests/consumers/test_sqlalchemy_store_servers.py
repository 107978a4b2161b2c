"""The SQLAlchemy consumer state store on PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest
from postgres_server import PostgresServer
from sqlalchemy import text

from evento import databases
from evento.consumers.port import ConsumerStateStore
from evento.consumers.sqlalchemy_store import SqlConsumerStateStore
from evento.errors import StoreUnavailable
from evento.testing.conformance.consumer_store import ConsumerStateStoreConformance
from evento.testing.conformance.dead_event_queue import CONSUMER, START


@pytest.fixture
async def url(postgres: PostgresServer) -> str:
    """Give the URL of a database that holds nothing."""
    admin = await asyncpg.connect(postgres.url)
    await admin.execute("DROP SCHEMA IF EXISTS public CASCADE; CREATE SCHEMA public")
    await admin.close()
    return postgres.url.replace("postgresql", "postgresql+asyncpg")


class TestPostgres(ConsumerStateStoreConformance):
    @pytest.fixture
    async def store(self, url: str) -> AsyncIterator[ConsumerStateStore]:
        async with SqlConsumerStateStore(url) as store:
            yield store


async def test_a_process_that_is_paused_in_a_handler_lets_go_of_its_locks(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database ends its session, so that who takes over does not wait for it; its own commit fails."""
    monkeypatch.setattr(databases, "IDLE_SECONDS", 0.3)
    async with SqlConsumerStateStore(url) as paused, SqlConsumerStateStore(url, timeout=20) as other:
        await paused.register(CONSUMER, START)
        lease = await paused.acquire(CONSUMER, owner="a", ttl=60)
        assert lease is not None
        async with paused.begin() as connection:
            await connection.execute(text("CREATE TABLE totals (name TEXT PRIMARY KEY, amount BIGINT)"))
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
