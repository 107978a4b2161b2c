"""What PostgreSQL does for each statement: ranges of indexes and no scans, whatever it knows of the tables."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import msgspec
import pytest
from appending_worker import event

from evento.errors import ErrorData
from evento.state_store import Append, EventFilter, Lease, Snapshot
from evento.state_store.postgres import PostgresStateStore, batch, operations, purge, reader, schema
from evento.state_store.postgres.address import Address
from evento.state_store.postgres.connections import Connector
from evento.state_store.postgres.schema import Identity
from evento.testing.postgres import PostgresServer

LARGE = 5_000
Operation = Callable[[Any, int], Awaitable[object]]
PAGES = re.compile(r"Buffers: shared(?: hit=(\d+))?(?: read=(\d+))?")
HARMLESS = re.compile(r"Seq Scan on meta\b")
"""A table of one row that never changes."""
ERROR = ErrorData("CommandRejected", "CommandRejected", "no")


def append(number: int, **changes: object) -> Append:
    fields = {"name": f"Event{number % 10}", "context": f"eu-{number % 3}", "timestamp": number} | changes
    new = msgspec.structs.replace(event(f"ORD_{number % 500}"), **fields)
    return Append(new, boundary=new.aggregate_id, deletes=number >= LARGE - 100)


OPERATIONS: dict[str, Operation] = {
    "append": lambda db, key: batch.store(db, key, [append(number) for number in range(3)], is_repeated=False),
    "append again": lambda db, key: batch.store(db, key, [append(number) for number in range(3)], is_repeated=True),
    "append under a lease": lambda db, key: batch.store(
        db, key, [Append(event("A"), 0, "B", 0, lease=Lease("L", 1)), Append(event("ORD_1"), 0)], is_repeated=False
    ),
    "head": lambda db, key: reader.head(db),
    "event": lambda db, key: reader.event(db, 1),
    "story": lambda db, key: reader.story(db, "ORD_1", "ORD_2", "f", 1, 10**6),
    "fetch": lambda db, key: reader.fetch(db, 0, ["*"], None, 1000, 10**6),
    "fetch contexts": lambda db, key: reader.fetch(db, 0, ["eu-1", "us-*"], None, 1000, 10**6),
    "fetch a name": lambda db, key: reader.fetch(db, 0, ["*"], ["Event1"], 1000, 10**6),
    "fetch names": lambda db, key: reader.fetch(db, 0, ["*"], [f"Event{n}" for n in range(20)], 1000, 10**6),
    "fetch many names": lambda db, key: reader.fetch(db, 0, ["*"], [f"Event{n}" for n in range(200)], 1000, 10**6),
    "fetch names and contexts": lambda db, key: reader.fetch(db, 0, ["eu-1"], ["Event1", "Event2"], 1000, 10**6),
    "lookup": lambda db, key: operations.lookup(db, "c1"),
    "reject": lambda db, key: operations.reject(db, key, "c1", ERROR, is_repeated=False),
    "lock": lambda db, key: operations.lock(db, "L", "a", 60, "r"),
    "renew": lambda db, key: operations.renew(db, Lease("L", 1), 60),
    "unlock": lambda db, key: operations.unlock(db, Lease("L", 1)),
    "snapshot": lambda db, key: operations.snapshot(db, Snapshot("ORD_1", 1, "f", b"{}")),
    "purge": lambda db, key: purge.step(db, key, deleted_before=10**15, cursor=purge.Cursor(), remove=True),
    "purge on trial": lambda db, key: purge.step(
        db, key, deleted_before=10**15, cursor=purge.Cursor(5, "ORD_6", 7), remove=False
    ),
    "amount to purge": lambda db, key: purge.amount(db, 10**15),
}
FILTERS = {
    "everything": EventFilter(),
    "name": EventFilter(name="Event1"),
    "aggregate": EventFilter(aggregate_id="ORD_1"),
    "context": EventFilter(context="eu-1"),
    "since": EventFilter(since=LARGE - 100),
    "until": EventFilter(until=100),
    "between": EventFilter(since=100, until=200),
    "name and time": EventFilter(name="Event1", since=100, until=200),
    "all conditions": EventFilter("Event1", "ORD_1", "eu-1", 100, 200),
}
INDEXES = {
    "fetch": "events_pkey",
    "fetch contexts": "events_pkey",
    "fetch a name": "events_name",
    "fetch names": "events_name",
    "fetch many names": "events_pkey",
    "fetch names and contexts": "events_name",
    "search everything": "events_pkey",
    "search name": "events_name",
    "search aggregate": "events_stream",
    "search context": "events_context",
    "search since": "events_timestamp",
    "search until": "events_timestamp",
    "search between": "events_timestamp",
    "search name and time": "events_name",
    "search all conditions": "events_stream",
}
"""The one index by which the events of each are found."""


def search(criteria: EventFilter, *, descending: bool) -> Operation:
    return lambda db, key: reader.search(db, criteria, 5, 10**6, 100, descending, 10**6)


for title, criteria in FILTERS.items():
    OPERATIONS[f"search {title}"] = search(criteria, descending=False)
    OPERATIONS[f"search {title}, descending"] = search(criteria, descending=True)
# Times do not rise with positions, so a search by time alone sorts what it found; the others sort an argument, the
# three snapshots of an aggregate, or the positions of a purge's step.
SORTING = ("search since", "search until", "search between", "snapshot", "append", "purge")


class Store:
    """A connection as the store uses it, in a database that knows this or that of its tables."""

    def __init__(self, connection: Any, identity: Identity) -> None:
        self._connection = connection
        self.lock_key = identity.lock_key

    async def plans(self, operation: Operation) -> str:
        """Run an operation, take it back, and return the plans of its statements, and of those in functions."""
        return "\n".join(await self._plans(operation))

    async def pages(self, operation: Operation, table: str) -> int:
        """Run an operation, take it back, and return how many pages its statements on a table looked at."""
        await self._connection.execute("SET auto_explain.log_analyze = on; SET auto_explain.log_buffers = on")
        plans = [plan for plan in await self._plans(operation) if re.search(rf"(FROM|UPDATE) {table}\b", plan)]
        totals = [total for plan in plans if (total := PAGES.search(plan)) is not None]
        assert totals
        return sum(int(total[1] or 0) + int(total[2] or 0) for total in totals)

    async def _plans(self, operation: Operation) -> list[str]:
        told: list[str] = []

        def listen(connection: object, message: Any) -> None:
            told.append(message.message)

        await self._run(operation)  # the driver asks for the types of arguments once
        self._connection.add_log_listener(listen)
        await self._connection.execute("SET client_min_messages = log; SET auto_explain.log_min_duration = 0")
        await self._run(operation)
        await self._connection.execute("SET auto_explain.log_min_duration = -1")
        await asyncio.sleep(0)
        assert told
        return told

    async def _run(self, operation: Operation) -> None:
        transaction = self._connection.transaction()
        await transaction.start()
        try:
            await operation(self._connection, self.lock_key)
        finally:
            await transaction.rollback()


@pytest.fixture(scope="module")
def _schemas() -> dict[str, str]:
    return {}


@pytest.fixture(params=["empty", "large", "large and analysed", "large, but analysed while empty"])
async def store(
    request: pytest.FixtureRequest, postgres: PostgresServer, postgres_schema: str, _schemas: dict[str, str]
) -> AsyncIterator[Store]:
    name = _schemas.setdefault(request.param, postgres_schema)
    connector = Connector(Address(postgres.url, name), timeout=30, read_only=False)
    if name == postgres_schema:  # the first test of this kind
        await _fill(postgres.url, name, request.param)
    async with opened(connector) as store:
        yield store


@asynccontextmanager
async def opened(connector: Connector) -> AsyncIterator[Store]:
    connection = await connector.connect()
    try:
        identity = await schema.migrate(connection, connector.address)
        await connection.execute("LOAD 'auto_explain'")
        await connection.execute("SET auto_explain.log_nested_statements = on")
        yield Store(connection, identity)
    finally:
        await connection.close()


async def _fill(url: str, name: str, kind: str) -> None:
    async with PostgresStateStore(url, schema=name) as store:
        if "while empty" in kind:
            await _analyse(url, name)
        if kind != "empty":
            await asyncio.gather(*(store.append(append(number)) for number in range(LARGE)))
        if kind == "large and analysed":
            await _analyse(url, name)


async def _analyse(url: str, name: str) -> None:
    connection = await Connector(Address(url, name), timeout=30, read_only=False).connect()
    for (table,) in await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = $1", name):
        await connection.execute(f"VACUUM ANALYZE {table}")
    await connection.close()


@pytest.mark.parametrize("name", OPERATIONS)
async def test_statements_go_by_indexes(store: Store, name: str) -> None:
    plans = await store.plans(OPERATIONS[name])
    scans = [line for line in plans.split("\n") if "Seq Scan" in line and not HARMLESS.search(line)]
    assert scans == [], plans
    joins = [line for line in plans.split("\n") if re.search(r"(Hash|Merge) Join", line)]
    assert joins == [], plans
    if not name.startswith(SORTING):
        assert [line for line in plans.split("\n") if re.search(r"->\s+(Incremental )?Sort\b|^Sort\b", line)] == [], (
            plans
        )
    index = INDEXES.get(name.removesuffix(", descending"))
    if index is not None:
        used = set(re.findall(r"using (events_\w+)|on (events_\w+)", plans))
        assert {one or other for one, other in used} == {index}, plans


COMMITS = """
CREATE PROCEDURE append_often(lock_key bigint, times integer) LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1 .. times LOOP
        PERFORM append_all(lock_key, '{}', '{}', '{}', '{}', '{}', ARRAY[NULL::integer], ARRAY[NULL::bigint],
            '{x}', ARRAY[NULL], '{E}', '{1}', '{domain}', ARRAY['{}'], ARRAY['{}'], '{e}', ARRAY['c' || i], '{r}',
            ARRAY[NULL], '{1}');
        COMMIT;
    END LOOP;
END $$
"""


async def test_the_head_costs_the_same_while_somebody_holds_an_old_snapshot(
    postgres: PostgresServer, postgres_schema: str
) -> None:
    """A dump, or a transaction that was forgotten: what each commit replaces stays for as long."""
    connector = Connector(Address(postgres.url, postgres_schema), timeout=30, read_only=False)
    watched = ("head", "append", "append under a lease")
    async with opened(connector) as store:
        before = [await store.pages(OPERATIONS[name], "head") for name in watched]
        other, writer = await asyncpg.connect(postgres.url), await connector.connect(for_bulk=True)
        async with other.transaction(isolation="repeatable_read"):
            await other.fetch("SELECT FROM pg_class")  # takes the snapshot
            await writer.execute(f"SET synchronous_commit = off; {COMMITS}")
            await writer.execute(f"CALL append_often({store.lock_key}, 3000)")
            after = [await store.pages(OPERATIONS[name], "head") for name in watched]
        await other.close()
        await writer.close()
    assert all(pages < former + 8 for former, pages in zip(before, after, strict=True)), (before, after)
