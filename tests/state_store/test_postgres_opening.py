"""Opening a store on PostgreSQL: what it asks of the database, and what it says when that is not so."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import asyncpg
import pytest
from appending_worker import event
from tcp_proxy import Recovering

from evento.errors import DefinitionError, PayloadError, SchemaTooNew, StoreUnavailable
from evento.state_store import Append, Appended
from evento.state_store.postgres import PostgresStateStore
from evento.state_store.postgres.address import Address
from evento.state_store.postgres.connections import Connector
from evento.testing.postgres import PostgresServer

HOSTILE = {
    "default_transaction_isolation": "serializable",
    "default_transaction_read_only": "on",
    "default_transaction_deferrable": "on",
    "synchronous_commit": "off",
    "statement_timeout": "1",
    "lock_timeout": "1",
    "search_path": "pg_temp, public",
    "enable_indexscan": "off",
    "enable_nestloop": "off",
    "plan_cache_mode": "force_custom_plan",
    "TimeZone": "Pacific/Kiritimati",
    "bytea_output": "escape",
    "client_encoding": "LATIN1",
}


@pytest.fixture
async def admin(postgres: PostgresServer) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(postgres.url)
    yield connection
    await connection.close()


@pytest.fixture
async def user(postgres: PostgresServer, postgres_schema: str, admin: asyncpg.Connection) -> str:
    """Give the name of a user without any right; its password is "secret"."""
    name = f"user_{postgres_schema}"
    await admin.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'secret'")
    return name


async def test_defaults_of_the_user_change_nothing(
    postgres: PostgresServer, postgres_schema: str, admin: asyncpg.Connection, user: str
) -> None:
    await admin.execute(f"GRANT CREATE ON DATABASE postgres TO {user}")
    for name, value in HOSTILE.items():
        await admin.execute(f"ALTER ROLE {user} SET {name} = {value if name == 'search_path' else repr(value)}")
    url = postgres.url_of(user, "secret")
    stores = [PostgresStateStore(url, schema=postgres_schema) for _ in range(2)]
    async with stores[0] as one, stores[1] as other:
        shown = {}
        for name in ("transaction_isolation", "transaction_read_only", "synchronous_commit"):
            shown[name] = await one._state().connections.run(lambda db, name=name: db.fetchval(f"SHOW {name}"))  # type: ignore[misc]
        assert shown == {
            "transaction_isolation": "read committed",
            "transaction_read_only": "off",
            "synchronous_commit": "on",
        }
        outcomes = await asyncio.gather(
            *(store.append(Append(event(f"ORD_{n % 7}"))) for n in range(200) for store in (one, other))
        )
        assert sorted(outcome.record.position for outcome in outcomes if isinstance(outcome, Appended)) == list(
            range(1, 401)
        )
        assert (await one.verify()).problems == ()


async def test_a_newer_schema_is_refused_untouched(
    postgres: PostgresServer, postgres_schema: str, admin: asyncpg.Connection
) -> None:
    async with PostgresStateStore(postgres.url, schema=postgres_schema):
        pass
    await admin.execute(f"UPDATE {postgres_schema}.meta SET schema_version = 99")
    for read_only in (False, True):
        with pytest.raises(SchemaTooNew, match=r"version 99.*upgrade evento-framework") as caught:
            async with PostgresStateStore(postgres.url, schema=postgres_schema, read_only=read_only):
                pass
        assert caught.value.data["found"] == 99
    assert await admin.fetchval(f"SELECT schema_version FROM {postgres_schema}.meta") == 99


async def test_a_user_who_may_not_create_is_told_which_right_lacks(
    postgres: PostgresServer, postgres_schema: str, user: str
) -> None:
    with pytest.raises(StoreUnavailable, match=rf"127\.0\.0\.1:{postgres.port}, database postgres.*needs CREATE"):
        async with PostgresStateStore(postgres.url_of(user, "secret"), schema=postgres_schema):
            pass


async def test_a_user_with_rights_on_the_tables_only_appends(
    postgres: PostgresServer, postgres_schema: str, admin: asyncpg.Connection, user: str
) -> None:
    """The rights that docs/operations.md lists are enough after the first start."""
    async with PostgresStateStore(postgres.url, schema=postgres_schema):
        pass
    await admin.execute(f"GRANT USAGE ON SCHEMA {postgres_schema} TO {user}")
    await admin.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {postgres_schema} TO {user}")
    await admin.execute(f"GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA {postgres_schema} TO {user}")
    async with PostgresStateStore(postgres.url_of(user, "secret"), schema=postgres_schema) as store:
        assert isinstance(await store.append(Append(event("ORD_1"), deletes=True)), Appended)
        assert await store.lock("L", owner="a", ttl=1) is not None
        await store.purge(deleted_before=2**62)
        assert (await store.verify()).problems == ()


async def test_a_user_who_may_only_read_reads(
    postgres: PostgresServer, postgres_schema: str, admin: asyncpg.Connection, user: str
) -> None:
    async with PostgresStateStore(postgres.url, schema=postgres_schema) as store:
        await store.append(Append(event("ORD_1")))
    await admin.execute(f"GRANT USAGE ON SCHEMA {postgres_schema} TO {user}")
    await admin.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA {postgres_schema} TO {user}")
    await admin.execute(f"GRANT SELECT ON ALL SEQUENCES IN SCHEMA {postgres_schema} TO {user}")
    url = postgres.url_of(user, "secret")
    async with PostgresStateStore(url, schema=postgres_schema, read_only=True) as store:
        assert (await store.info()).events == await store.head() == 1
        assert (await store.verify()).ok
        assert (await store.purge(deleted_before=2**62, dry_run=True)).events == 0
        with pytest.raises(StoreUnavailable, match="read-only"):
            store.append(Append(event("ORD_1")))
        with pytest.raises(StoreUnavailable, match="read-only"):
            await store.lock("L", owner="a", ttl=1)
    async with PostgresStateStore(url, schema=postgres_schema) as store:
        with pytest.raises(StoreUnavailable, match="lacks rights") as caught:
            await store.append(Append(event("ORD_1")))
        assert caught.value.definite


async def test_reading_makes_no_tables(
    postgres: PostgresServer, postgres_schema: str, admin: asyncpg.Connection
) -> None:
    with pytest.raises(StoreUnavailable, match=f"no event store in PostgreSQL .*schema {postgres_schema}"):
        async with PostgresStateStore(postgres.url, schema=postgres_schema, read_only=True):
            pass
    assert await admin.fetchval("SELECT to_regnamespace($1)::text", postgres_schema) is None


async def test_tables_of_others_are_left_alone(
    postgres: PostgresServer, postgres_schema: str, admin: asyncpg.Connection
) -> None:
    await admin.execute(f"CREATE SCHEMA {postgres_schema}")
    await admin.execute(f"CREATE TABLE {postgres_schema}.meta (title text)")
    with pytest.raises(StoreUnavailable, match="another application"):
        async with PostgresStateStore(postgres.url, schema=postgres_schema):
            pass
    assert await admin.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = $1", postgres_schema) == 1


@pytest.mark.parametrize(
    ("change", "mend"),
    [
        ({"password": "wrong-secret"}, "login was refused"),
        ({"user": "nobody_known"}, "login was refused"),
        ({"database": "nowhere"}, "CREATE DATABASE"),
        ({"port": "1"}, "cannot be reached"),
        ({"options": "?sslmode=require"}, "sslmode|secure"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
async def test_a_database_that_cannot_be_opened(
    postgres: PostgresServer,
    caplog: pytest.LogCaptureFixture,
    user: str,
    change: dict[str, str],
    mend: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    parts = {"user": user, "password": "secret", "database": "postgres", "port": str(postgres.port), "options": ""}
    parts |= change
    url = "postgresql://{user}:{password}@127.0.0.1:{port}/{database}{options}".format(**parts)
    store = PostgresStateStore(url)
    with pytest.raises(StoreUnavailable, match=mend) as caught:
        async with store:
            pass
    assert caught.value.definite
    assert f"127.0.0.1:{parts['port']}, database {parts['database']}" in str(caught.value)
    for text in (str(caught.value), repr(store), caplog.text, repr(caught.value.data)):
        assert "secret" not in text


@pytest.mark.parametrize(
    "url",
    [
        "shop.db",
        "mysql://ann:secret@db/shop",
        "postgresql://ann:secret@db:port/shop",
        "postgresql://[::1",
        "postgresql://ann:2024/secret@127.0.0.1:1/shop",
        "postgresql://ann:2024#secret@127.0.0.1:1/shop",
        "postgresql://ann:2024?secret@127.0.0.1:1/shop",
        "postgresql://ann:secret/2024@127.0.0.1:1/shop",
    ],
)
async def test_what_is_no_address_is_refused_without_its_password(url: str) -> None:
    store = PostgresStateStore(url)
    with pytest.raises(DefinitionError, match=r"postgresql://user:password@host.* %2F %23 %3F") as caught:
        async with store:
            pass
    with pytest.raises(StoreUnavailable, match="malformed address") as unopened:
        await store.head()
    for word in ("secret", "2024"):
        assert word not in str(caught.value)
        assert word not in str(unopened.value)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("postgresql://ann:se%2Fcr%40et@db:77/shop", "at db:77, database shop, schema s"),
        ("postgresql://ann:secret@[::1]:77/shop", "at [::1]:77, database shop, schema s"),
        ("postgresql://db", "at db, database the user's own database, schema s"),
        ("postgresql:///shop?host=/run/postgresql", "at /run/postgresql, database shop, schema s"),
    ],
)
def test_people_are_told_host_port_and_database(url: str, told: str) -> None:
    address = Address(url, "s")
    address.check()
    assert str(address) == repr(address) == f"the event store in PostgreSQL {told}"


async def test_a_database_of_another_encoding_is_refused(
    postgres: PostgresServer, postgres_schema: str, admin: asyncpg.Connection
) -> None:
    await admin.execute(f"CREATE DATABASE latin_{postgres_schema} ENCODING 'LATIN1' TEMPLATE template0 LOCALE 'C'")
    url = postgres.url.rpartition("/")[0] + f"/latin_{postgres_schema}"
    with pytest.raises(StoreUnavailable, match=r"encoded in LATIN1.*ENCODING 'UTF8'"):
        async with PostgresStateStore(url):
            pass


async def test_verifying_may_take_longer_than_a_statement(postgres: PostgresServer, postgres_schema: str) -> None:
    async with PostgresStateStore(postgres.url, schema=postgres_schema) as store:
        await store.append(Append(event("ORD_1")))
    connector = Connector(Address(postgres.url, postgres_schema), timeout=7, read_only=False)
    connection = await connector.connect(for_bulk=True)
    shown = dict(await connection.fetch("SELECT name, setting FROM pg_settings"))
    await connection.close()
    for name in ("statement_timeout", "transaction_timeout", "idle_in_transaction_session_timeout"):
        assert shown.get(name, "0") == "0", name


async def test_odd_names_of_schemas(postgres: PostgresServer, postgres_schema: str) -> None:
    odd = f'{postgres_schema} "Größe", x'
    async with PostgresStateStore(postgres.url, schema=odd) as store:
        assert isinstance(await store.append(Append(event("ORD_1"))), Appended)
        assert (await store.verify()).problems == ()


async def test_a_key_that_no_index_can_hold_fails_alone(postgres: PostgresServer, postgres_schema: str) -> None:
    import random

    long = "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=10_000))
    async with PostgresStateStore(postgres.url, schema=postgres_schema) as store:
        outcomes = await asyncio.gather(
            *(store.append(Append(event(name))) for name in ("ORD_1", long, "ORD_2")), return_exceptions=True
        )
        assert [type(outcome) for outcome in outcomes] == [Appended, PayloadError, Appended]
        assert (await store.verify()).problems == ()


async def test_verify_finds_what_was_changed_behind_its_back(
    postgres: PostgresServer, postgres_schema: str, admin: asyncpg.Connection
) -> None:
    async with PostgresStateStore(postgres.url, schema=postgres_schema) as store:
        await asyncio.gather(*(store.append(Append(event(f"ORD_{n % 3}"))) for n in range(30)))
        await admin.execute(f"SET search_path = {postgres_schema}")
        await admin.execute("DELETE FROM events WHERE position = 7")
        await admin.execute("UPDATE streams SET version = 99 WHERE aggregate_id = 'ORD_1'")
        await admin.execute("UPDATE events SET payload = 'not JSON' WHERE position = 5")
        await admin.execute("DROP INDEX events_context")
        await admin.execute("INSERT INTO head VALUES (3)")
        problems = "\n".join((await store.verify()).problems)
    for words in (
        "positions 7 to 7",
        "ORD_1 has version 99",
        "payload of event 5",
        "lacks the index events_context",
        "2 heads, but there is one",
    ):
        assert words in problems


async def test_a_server_that_recovers_is_waited_for(postgres: PostgresServer, postgres_schema: str) -> None:
    proxy = Recovering(postgres.port)
    await proxy.start()
    url = postgres.url.replace(f":{postgres.port}/", f":{proxy.port}/")
    try:
        async with PostgresStateStore(url, schema=postgres_schema) as store:
            assert await store.head() == 0
            assert proxy.connections > 1
    finally:
        await proxy.stop()
