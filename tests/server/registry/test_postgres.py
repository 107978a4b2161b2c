"""Two servers register bundles in one PostgreSQL at the same time, whatever the user's defaults are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
from tcp_proxy import Recovering

from evento.errors import DefinitionError
from evento.messages.registration import BundleDescription, Register, Registered
from evento.server.registry import RegistryDatabase
from evento.testing.postgres import PostgresServer

SERVERS = 3


@pytest.fixture(params=["read committed", "serializable"])
async def url(postgres: PostgresServer, postgres_schema: str, request: pytest.FixtureRequest) -> str:
    """The URL of a user's own database, with a default isolation level."""
    connection = await asyncpg.connect(postgres.url)
    try:
        await connection.execute(f"CREATE ROLE {postgres_schema} LOGIN SUPERUSER PASSWORD 'secret'")
        await connection.execute(f"CREATE DATABASE {postgres_schema} OWNER {postgres_schema}")
        await connection.execute(f"ALTER ROLE {postgres_schema} SET default_transaction_isolation = '{request.param}'")
    finally:
        await connection.close()
    return postgres.url_of(postgres_schema, "secret", postgres_schema)


@pytest.fixture
async def servers(url: str) -> AsyncIterator[list[RegistryDatabase]]:
    databases = [
        RegistryDatabase(url, cluster="test", server=f"node-{number}", timeout=30.0) for number in range(SERVERS)
    ]
    await asyncio.gather(*(database.__aenter__() for database in databases))  # all make the tables
    yield databases
    for database in databases:
        await database.__aexit__()


def a_call(bundle: str, instance: str, *commands: str) -> Register:
    return Register(BundleDescription(bundle, commands=commands), instance)


async def test_a_crowd_that_was_away_for_long_comes_back_at_once(url: str, servers: list[RegistryDatabase]) -> None:
    """Whoever registers clears away who is gone, who registers at another server at that moment."""
    calls = [a_call(f"bundle-{number}", f"i{number}", f"Do{number}", f"Undo{number}") for number in range(24)]
    async with RegistryDatabase(url, cluster="test", lease=0.0) as hasty:
        for call in calls:
            await hasty.register(call)
    for _ in range(3):
        async with asyncio.timeout(30):
            await asyncio.gather(
                *(servers[number % SERVERS].register(call) for number, call in enumerate(calls)),
            )
    assert len(await servers[0].view()) == len(calls)
    assert len(await servers[0].catalogue()) == len(calls)
    assert len(await servers[0].catalogue(after="bundle-5", max_bytes=1)) == 1


async def test_of_many_claims_of_a_name_one_wins(url: str, servers: list[RegistryDatabase]) -> None:
    names = [f"Do{number}" for number in range(10)]
    orders = [names, names[::-1], names[5:] + names[:5]]
    for turn in range(5):
        outcomes = await asyncio.gather(
            *(
                server.register(a_call(f"bundle-{turn}-{number}", f"i-{turn}-{number}", *orders[number]))
                for number, server in enumerate(servers)
            ),
            return_exceptions=True,
        )
        won = [one for one in outcomes if isinstance(one, Registered)]
        assert len(won) == 1, outcomes
        assert sum(isinstance(one, DefinitionError) for one in outcomes) == SERVERS - 1
        await servers[0].leave(won[0].session)


async def test_the_owner_that_comes_back_and_another_that_wants_its_name(servers: list[RegistryDatabase]) -> None:
    for turn in range(10):
        owner = await servers[0].register(a_call("owner", f"o-{turn}", "Do"))
        await servers[0].leave(owner.session)
        outcomes = await asyncio.gather(
            servers[1].register(a_call("owner", f"o-{turn}-again", "Do")),
            servers[2].register(a_call("other", f"x-{turn}", "Do")),
            return_exceptions=True,
        )
        won = [one for one in outcomes if isinstance(one, Registered)]
        assert len(won) == 1, outcomes
        assert sum(isinstance(one, DefinitionError) for one in outcomes) == 1
        await servers[0].leave(won[0].session)


async def test_a_database_that_recovers_is_waited_for(postgres: PostgresServer) -> None:
    proxy = Recovering(postgres.port)
    await proxy.start()
    url = postgres.url.replace(f":{postgres.port}/", f":{proxy.port}/")
    try:
        async with RegistryDatabase(url, cluster="recovering") as registry:
            assert await registry.view() == []
            assert proxy.connections > 1
    finally:
        await proxy.stop()
