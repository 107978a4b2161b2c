"""What SQLite does for each statement: ranges of indexes and no scans, on an empty store and on a large one."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from appending_worker import event

from evento.errors import ErrorData
from evento.state_store import Append, EventFilter, Found, Lease, NewEvent, Snapshot
from evento.state_store.sqlite import batch, commands, locks, purge, reader, schema, snapshots
from evento.state_store.sqlite.connections import open_writer

LARGE = 20_000
NOW = 10**15
# Tables of one row, and what is not a table of ours.
HARMLESS = re.compile(r"SCAN (head|meta|(\d+ )?CONSTANT ROWS?|\(subquery-\d+\)|(wanted|json_each)( VIRTUAL TABLE.*)?)$")
ERROR = ErrorData("CommandRejected", "CommandRejected", "no")


def append(number: int, **changes: object) -> Append:
    new = event(f"ORD_{number % 500}")
    fields = {field: getattr(new, field) for field in new.__struct_fields__}
    fields |= {"name": f"Event{number % 10}", "context": f"eu-{number % 3}", "timestamp": number} | changes
    return Append(NewEvent(**fields), boundary=new.aggregate_id, deletes=number >= LARGE - 100)


OPERATIONS: dict[str, Callable[[sqlite3.Connection], object]] = {
    "append": lambda db: batch.store(db, [append(number) for number in range(3)], NOW),
    "append under a lease": lambda db: batch.store(
        db, [Append(event("A"), 0, "B", 0, lease=Lease("L", 1)), Append(event("ORD_1"), 0)], NOW
    ),
    "head": reader.head,
    "event": lambda db: reader.event(db, 1),
    "story": lambda db: reader.story(db, "ORD_1", "ORD_2", "f", 1, 10**6),
    "fetch": lambda db: reader.fetch(db, 0, ["*"], None, 1000, 10**6),
    "fetch contexts": lambda db: reader.fetch(db, 0, ["eu-1", "us-*"], None, 1000, 10**6),
    "fetch a name": lambda db: reader.fetch(db, 0, ["*"], ["Event1"], 1000, 10**6),
    "fetch names": lambda db: reader.fetch(db, 0, ["*"], [f"Event{n}" for n in range(20)], 1000, 10**6),
    "fetch many names": lambda db: reader.fetch(db, 0, ["*"], [f"Event{n}" for n in range(200)], 1000, 10**6),
    "fetch names and contexts": lambda db: reader.fetch(db, 0, ["eu-1"], ["Event1", "Event2"], 1000, 10**6),
    "lookup": lambda db: commands.lookup(db, "c1", NOW),
    "reject": lambda db: commands.reject(db, "c1", ERROR, NOW),
    "lock": lambda db: locks.lock(db, "L", "a", 60, NOW, None),
    "renew": lambda db: locks.renew(db, Lease("L", 1), 60, NOW),
    "unlock": lambda db: locks.unlock(db, Lease("L", 1), NOW),
    "snapshot": lambda db: snapshots.write(db, Snapshot("ORD_1", 1, "f", b"{}"), NOW),
    "purge": lambda db: purge.step(db, NOW, deleted_before=NOW, cursor=purge.Cursor(), remove=True),
    "purge on trial": lambda db: purge.step(db, NOW, deleted_before=NOW, cursor=purge.Cursor(5, 6, 7), remove=False),
    "amount to purge": lambda db: purge.amount(db, NOW),
}
FILTERS = {
    "everything": EventFilter(),
    "name": EventFilter(name="Event1"),
    "aggregate": EventFilter(aggregate_id="ORD_1"),
    "context": EventFilter(context="eu-1"),
    "since": EventFilter(since=LARGE - 100),
    "until": EventFilter(until=100),
    "between": EventFilter(since=100, until=200),
    "all conditions": EventFilter("Event1", "ORD_1", "eu-1", 100, 200),
}


def search(criteria: EventFilter, *, descending: bool) -> Callable[[sqlite3.Connection], Found]:
    return lambda db: reader.search(db, criteria, 5, 10**6, 100, descending, 10**6)


for title, criteria in FILTERS.items():
    OPERATIONS[f"search {title}"] = search(criteria, descending=False)
    OPERATIONS[f"search {title}, descending"] = search(criteria, descending=True)


@pytest.fixture(scope="module", params=["empty", "large", "large and analysed"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    path: Path = tmp_path_factory.mktemp("plans") / "events.db"
    with closing(open_writer(path)) as connection:
        schema.migrate(connection, str(path))
        if request.param != "empty":
            connection.execute("BEGIN")
            for first in range(0, LARGE, 1000):
                batch.store(connection, [append(number) for number in range(first, first + 1000)], NOW)
            connection.execute("COMMIT")
        if request.param == "large and analysed":
            connection.execute("ANALYZE")
        yield connection


def plans(connection: sqlite3.Connection, operation: Callable[[sqlite3.Connection], object]) -> list[tuple[str, str]]:
    """Run an operation, take it back, and return each statement with each line of its plan."""
    statements: list[str] = []
    connection.execute("BEGIN")
    connection.set_trace_callback(statements.append)
    try:
        operation(connection)
    finally:
        connection.set_trace_callback(None)
        connection.execute("ROLLBACK")
    assert statements
    return [
        (statement, line[3])
        for statement in dict.fromkeys(statements)
        for line in connection.execute(f"EXPLAIN QUERY PLAN {statement}")
    ]


@pytest.mark.parametrize("name", OPERATIONS)
def test_no_statement_scans_a_table(store: sqlite3.Connection, name: str) -> None:
    scans = [
        (line, statement)
        for statement, line in plans(store, OPERATIONS[name])
        if "SCAN" in line and not HARMLESS.match(line)
    ]
    assert scans == []


# Times do not rise with positions, so a search by time alone sorts what it found; a snapshot sorts three rows.
SORTING = ("search since", "search until", "search between", "snapshot")


@pytest.mark.parametrize("name", [name for name in OPERATIONS if not name.startswith(SORTING)])
def test_no_statement_sorts(store: sqlite3.Connection, name: str) -> None:
    assert [(line, sql) for sql, line in plans(store, OPERATIONS[name]) if "TEMP B-TREE" in line] == []


def test_deleting_touches_one_stream(store: sqlite3.Connection) -> None:
    """The mark is one row, however many events there are."""
    [before] = store.execute("SELECT count(*) FROM streams WHERE deleted_at IS NOT NULL").fetchone()
    store.execute("BEGIN")
    deleting = Append(event("ORD_499_not_deleted"), deletes=True)
    changes = store.total_changes
    batch.store(store, [deleting], NOW)
    assert store.total_changes - changes == 3  # the event, its stream, the head
    [after] = store.execute("SELECT count(*) FROM streams WHERE deleted_at IS NOT NULL").fetchone()
    store.execute("ROLLBACK")
    assert after == before + 1
