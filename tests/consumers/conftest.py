"""Real stores for each test: an event store and a consumer state store in memory, and databases that hold nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest
from mariadb_server import MariadbServer
from postgres_server import PostgresServer
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from streams import make_rows

from evento.consumers import SqlConsumerStateStore
from evento.state_store import StateStore
from evento.state_store.sqlite import SqliteStateStore


@pytest.fixture
async def events() -> AsyncIterator[StateStore]:
    """The event store."""
    async with SqliteStateStore(None) as store:
        yield store


@pytest.fixture
async def state() -> AsyncIterator[SqlConsumerStateStore]:
    """The consumer state store, with the table of RowProjector."""
    async with SqlConsumerStateStore("sqlite+aiosqlite://") as store:
        await make_rows(store)
        yield store


@pytest.fixture
async def postgres_database(postgres: PostgresServer) -> str:
    """The URL of a database on PostgreSQL that holds nothing."""
    admin = await asyncpg.connect(postgres.url)
    await admin.execute("DROP SCHEMA IF EXISTS public CASCADE; CREATE SCHEMA public")
    await admin.close()
    return postgres.url.replace("postgresql", "postgresql+asyncpg")


@pytest.fixture
async def mariadb_database(mariadb: MariadbServer) -> str:
    """The URL of a database on MariaDB that holds nothing."""
    admin = create_async_engine(mariadb.url)
    async with admin.begin() as connection:
        # Defaults that the store must not rely on.
        await connection.execute(text("CREATE OR REPLACE DATABASE consumers CHARACTER SET latin1"))
    await admin.dispose()
    return mariadb.url + "consumers"


@pytest.fixture(params=["postgres", "mariadb"])
def database(request: pytest.FixtureRequest) -> str:
    """The URL of a database that holds nothing, on PostgreSQL and on MariaDB."""
    return str(request.getfixturevalue(f"{request.param}_database"))
