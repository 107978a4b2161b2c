"""Several stores on one database: one order, and nobody sees it otherwise than the others."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import asyncpg
from appending_worker import event

from evento.consumers import SqlConsumerStateStore
from evento.server.registry import RegistryDatabase
from evento.state_store import AlreadyStored, Append, Appended, Conflict, Lease
from evento.state_store.postgres import PostgresStateStore
from evento.testing.postgres import PostgresServer

CALLERS, EACH = 8, 40


async def add_to(store: PostgresStateStore, aggregate_id: str, times: int) -> list[int]:
    """Append to an aggregate that others append to as well: decide again after each conflict."""
    positions: list[int] = []
    version = 0
    while len(positions) < times:
        outcome = await store.append(Append(event(aggregate_id), version, "ALL" if version % 2 else None))
        if isinstance(outcome, Conflict):
            version = outcome.version
        else:
            assert isinstance(outcome, Appended)
            positions.append(outcome.record.position)
            version += 1
    return positions


async def test_all_write_one_order_and_a_reader_sees_all_of_it(postgres: PostgresServer, postgres_schema: str) -> None:
    def store() -> PostgresStateStore:
        return PostgresStateStore(postgres.url, schema=postgres_schema)

    total = 2 * CALLERS * EACH
    async with store() as one, store() as other, store() as reader:
        assert one.store_id == other.store_id == reader.store_id

        async def tail() -> list[int]:
            seen: list[int] = []
            after = 0
            while after < total:
                await reader.wait(after, timeout=30)
                page = await reader.fetch(after, limit=50)
                seen += [record.position for record in page.events]
                after = page.scanned_to
            return seen

        tailing = asyncio.create_task(tail())
        written = await asyncio.gather(
            *(add_to(store, f"ORD_{n % 5}", EACH) for store in (one, other) for n in range(CALLERS))
        )
        assert sorted(position for mine in written for position in mine) == list(range(1, total + 1))
        assert await tailing == list(range(1, total + 1))
        assert (await one.verify()).problems == ()


async def test_a_command_id_has_one_event_whoever_appends(postgres: PostgresServer, postgres_schema: str) -> None:
    async with (
        PostgresStateStore(postgres.url, schema=postgres_schema) as one,
        PostgresStateStore(postgres.url, schema=postgres_schema) as other,
    ):
        for number in range(20):
            append = Append(event(f"ORD_{number}"), 0)
            outcomes = await asyncio.gather(*(store.append(append) for store in (one, other, one, other)))
            assert sorted(type(outcome) is Appended for outcome in outcomes) == [False, False, False, True]
            assert len({outcome.record.position for outcome in outcomes}) == 1  # type: ignore[union-attr]
        assert await one.head() == 20


async def test_of_all_that_ask_one_gets_the_lock(postgres: PostgresServer, postgres_schema: str) -> None:
    async with (
        PostgresStateStore(postgres.url, schema=postgres_schema) as one,
        PostgresStateStore(postgres.url, schema=postgres_schema) as other,
    ):
        stores = (one, other) * 4
        leases = await asyncio.gather(*(store.lock("L", owner=f"o{n}", ttl=60) for n, store in enumerate(stores)))
        assert len([lease for lease in leases if lease is not None]) == 1
        [lease] = [lease for lease in leases if isinstance(lease, Lease)]
        assert isinstance(await other.append(Append(event("PAY_1"), lease=lease)), Appended)


async def test_stores_of_one_database_do_not_wait_for_each_other(
    postgres: PostgresServer, postgres_schema: str
) -> None:
    """A transaction that holds one store's lock does not stop another schema's."""
    async with (
        PostgresStateStore(postgres.url, schema=f"{postgres_schema}_one") as one,
        PostgresStateStore(postgres.url, schema=f"{postgres_schema}_other") as other,
    ):
        blocker = await asyncpg.connect(postgres.url)
        async with blocker.transaction():
            await blocker.execute("SELECT pg_advisory_xact_lock($1)", one._known_identity().lock_key)
            waiting = one.append(Append(event("ORD_1")))
            assert isinstance(await other.append(Append(event("ORD_1"))), Appended)
            assert not waiting.done()
        assert isinstance(await waiting, Appended)
        await blocker.close()


async def test_stores_that_open_a_new_schema_together_agree(postgres: PostgresServer, postgres_schema: str) -> None:
    async def identity() -> str:
        async with PostgresStateStore(postgres.url, schema=postgres_schema) as store:
            return store.store_id

    assert len(set(await asyncio.gather(*(identity() for _ in range(6))))) == 1


WRITER = """
import asyncio, sys
from appending_worker import event
from evento.state_store import Append
from evento.state_store.postgres import PostgresStateStore
async def main(url, schema):
    async with PostgresStateStore(url, schema=schema) as store:
        print("open", flush=True)
        while True:
            await asyncio.gather(*(store.append(Append(event(f"ORD_{n}"))) for n in range(100)))
asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_paused_server_holds_nothing_up(postgres: PostgresServer, postgres_schema: str) -> None:
    """However often and whenever it is stopped, others append at once."""
    async with PostgresStateStore(postgres.url, schema=postgres_schema, timeout=10) as store:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", WRITER, postgres.url, postgres_schema),
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        try:
            assert process.stdout is not None
            assert await process.stdout.readline() == b"open\n"
            for _ in range(25):
                process.send_signal(signal.SIGSTOP)
                assert isinstance(await store.append(Append(event("OWN"))), Appended)
                process.send_signal(signal.SIGCONT)
                await store.wait(await store.head(), timeout=5)
        finally:
            process.kill()
            await process.wait()
        assert (await store.verify()).problems == ()


async def test_a_batch_that_is_asked_again_is_answered_as_the_first_time(
    postgres: PostgresServer, postgres_schema: str
) -> None:
    """When the answer of a commit is lost: what is there is told, and nothing is added."""
    from evento.state_store.postgres import batch
    from evento.state_store.postgres.address import Address
    from evento.state_store.postgres.connections import Connector

    async with PostgresStateStore(postgres.url, schema=postgres_schema) as store:
        key = store._known_identity().lock_key
        appends = [Append(event(f"ORD_{n % 3}"), n // 3, f"ORD_{n % 3}", n // 3) for n in range(9)]
        appends.append(Append(event("ORD_1"), 0))
        appends.append(Append(event("ORD_2"), boundary="ALL"))
        connection = await Connector(Address(postgres.url, postgres_schema), timeout=30, read_only=False).connect()
        first, _ = await batch.store(connection, key, appends, is_repeated=False)
        again, _ = await batch.store(connection, key, appends, is_repeated=True)
        resent, _ = await batch.store(connection, key, appends, is_repeated=False)
        await connection.close()
        assert again[:9] == first[:9]
        assert isinstance(again[9], Conflict)
        last = first[10]
        assert isinstance(last, Appended)
        # By how much its boundary was counted is not known any more.
        assert again[10] == AlreadyStored(last.record, last.record.name, "ORD_2")
        assert {type(outcome) for outcome in resent} == {AlreadyStored, Conflict}
        assert await store.head() == 10


async def test_registry_and_consumers_may_keep_their_tables_beside_the_stores(
    postgres: PostgresServer, postgres_schema: str
) -> None:
    """They do so at default settings when the database's user is named evento, as the schema is."""
    url = f"{postgres.url.rpartition('/')[0]}/{postgres_schema}"
    connection = await asyncpg.connect(postgres.url)
    try:
        await connection.execute(f"CREATE DATABASE {postgres_schema}")
    finally:
        await connection.close()
    async with (
        PostgresStateStore(url) as store,
        RegistryDatabase(url, cluster="test"),
        SqlConsumerStateStore(url.replace("postgresql:", "postgresql+asyncpg:")),
    ):
        assert (await store.verify()).problems == ()
