"""What appends are told when a part of the work fails: never that nothing happened, of what is on disk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
from appending_worker import event

from evento.errors import StoreUnavailable
from evento.state_store import AlreadyStored, Append, Appended
from evento.state_store.postgres import PostgresStateStore
from evento.testing.postgres import PostgresServer


@pytest.fixture
async def admin(postgres: PostgresServer) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(postgres.url)
    yield connection
    await connection.close()


async def owner_of(admin: asyncpg.Connection, postgres: PostgresServer, name: str) -> str:
    """Make a user who is subject to policies, as superusers are not, and return the address for them."""
    await admin.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'secret'; GRANT CREATE ON DATABASE postgres TO {name}")
    return postgres.url_of(name, "secret")


async def fail_reads_behind_appends(admin: asyncpg.Connection, schema: str, state: str) -> None:
    """Let every statement that reads events fail with ``state``, other than those that append."""
    await admin.execute(f"""
        CREATE FUNCTION {schema}.fail() RETURNS boolean LANGUAGE plpgsql AS $$
            BEGIN RAISE EXCEPTION 'this read fails' USING ERRCODE = '{state}'; END $$;
        ALTER TABLE {schema}.events ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
        CREATE POLICY writes ON {schema}.events FOR INSERT WITH CHECK (true);
        CREATE POLICY reads ON {schema}.events FOR SELECT
            USING (CASE WHEN current_query() LIKE '%append_%' THEN true ELSE {schema}.fail() END);
    """)


async def mend_reads(admin: asyncpg.Connection, schema: str) -> None:
    await admin.execute(f"ALTER TABLE {schema}.events DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY")


@pytest.mark.parametrize("state", ["57014", "53200", "22012"], ids=["cancelled", "out of memory", "bad data"])
async def test_a_failure_behind_the_commit_takes_nothing_back(
    admin: asyncpg.Connection, postgres: PostgresServer, postgres_schema: str, state: str
) -> None:
    url = await owner_of(admin, postgres, f"owner_{postgres_schema}")
    async with PostgresStateStore(url, schema=postgres_schema) as store:
        former = Append(event("ORD_1"), 0)
        first = await store.append(former)
        assert isinstance(first, Appended)
        await fail_reads_behind_appends(admin, postgres_schema, state)
        new = [Append(event(f"ORD_{number}"), 0) for number in (2, 3)]
        outcomes = await asyncio.gather(*map(store.append, (new[0], former, new[1])), return_exceptions=True)
        second, unknown, third = outcomes
        assert isinstance(second, Appended)
        assert isinstance(third, Appended)
        assert isinstance(unknown, StoreUnavailable)
        assert not unknown.definite
        assert "ask again with the same ids" in str(unknown)
        await mend_reads(admin, postgres_schema)
        assert list((await store.fetch(0)).events) == [first.record, second.record, third.record]
        assert await store.append(former) == AlreadyStored(first.record, first.record.name, "ORD_1")
