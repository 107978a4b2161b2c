"""Durable appends and paged reads through the state store's port, on SQLite and on PostgreSQL.

::

    python benchmarks/store_append.py [--directory DIR] [--seconds S] [--rounds N] [--postgresql URL]

``--postgresql`` names a database to measure beside SQLite; the schemas that this makes in it are dropped again.

Each append is checked against the version of its aggregate and of its boundary, has a command id of its own, and is
answered after the commit. ``own aggregates``: each caller goes on with an aggregate of its own; ``2,000 aggregates``:
each caller takes any of its share in turn, so that a batch touches many streams.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from time import perf_counter, time_ns
from typing import TypeAlias

import msgspec

from commands import SYSTEM, run_on_fast_loop
from evento.messages import new_id
from evento.state_store import Append, Appended, NewEvent, StateStore
from evento.state_store.sqlite import SqliteStateStore
from figures import Case, Figure, Sample, Table, measure, measured_calls, sampled
from workload import ORDERS, line

__all__ = ["append_cases", "on_postgresql", "on_sqlite", "read_cases"]

READ = 200_000
PAGE = 1_000
EmptyStore: TypeAlias = Callable[[], AbstractAsyncContextManager[StateStore]]
_payload = msgspec.json.encode({"order_id": "ORD_00000001", **line(1)})


def on_sqlite(directory: Path) -> EmptyStore:
    """Return what makes an empty store in a file of its own."""

    @asynccontextmanager
    async def make() -> AsyncIterator[StateStore]:
        with tempfile.TemporaryDirectory(dir=directory) as folder:
            async with SqliteStateStore(Path(folder) / "events.db") as store:
                yield store

    return make


def on_postgresql(url: str) -> EmptyStore:
    """Return what makes an empty store in a schema of its own."""
    import asyncpg

    from evento.state_store.postgres import PostgresStateStore

    @asynccontextmanager
    async def make() -> AsyncIterator[StateStore]:
        schema = f"benchmark_{new_id()}"
        try:
            async with PostgresStateStore(url, schema=schema) as store:
                yield store
        finally:
            connection = await asyncpg.connect(url)
            await connection.execute(f'DROP SCHEMA IF EXISTS "{schema}" CASCADE')
            await connection.close()

    return make


def append_cases(store: EmptyStore, *, callers: tuple[int, ...], seconds: float, system: str = SYSTEM) -> list[Case]:
    """Append one event for each caller at a time, to the caller's own aggregate or to one of many."""
    return [
        Case(system, what, count, _append_case(store, count, max(1, aggregates // count), seconds))
        for what, aggregates in (("append", 0), ("append, 2,000 aggregates", ORDERS))
        for count in callers
    ]


def read_cases(store: EmptyStore, *, system: str = SYSTEM) -> list[Case]:
    """Read a store from its start, page by page, as event records: all events, or one name of ten."""
    return [
        Case(system, "read all events", 1, lambda: run_on_fast_loop(_reads(store, None))),
        Case(system, "read one event name of ten", 1, lambda: run_on_fast_loop(_reads(store, ["Event3"]))),
    ]


def new_event(aggregate_id: str, name: str = "OrderLineAddedEvent") -> NewEvent:
    """Return an event of about 280 bytes, caused by a command of its own."""
    command_id = new_id()
    return NewEvent(
        context="default",
        aggregate_id=aggregate_id,
        name=name,
        schema_version=1,
        kind="domain",
        payload=_payload,
        metadata=b"{}",
        event_id=new_id(),
        command_id=command_id,
        correlation_id=command_id,
        causation_id=command_id,
        timestamp=time_ns() // 1000,
    )


def _append_case(make: EmptyStore, callers: int, aggregates_each: int, seconds: float) -> Callable[[], Sample]:
    return lambda: run_on_fast_loop(_appends(make, callers, aggregates_each, seconds))


async def _appends(make: EmptyStore, callers: int, aggregates_each: int, seconds: float) -> Sample:
    async with make() as store:

        def caller(number: int) -> Callable[[int], Awaitable[object]]:
            ids = [f"ORD_{number * aggregates_each + i:08d}" for i in range(aggregates_each)]

            async def append(turn: int) -> None:
                version, which = divmod(turn, aggregates_each)
                own = ids[which]
                outcome = await store.append(Append(new_event(own), version, own, version))
                if not isinstance(outcome, Appended):
                    raise SystemExit(f"an append of the benchmark was answered with {outcome!r}")

            return append

        begin = perf_counter()
        times = await asyncio.gather(*(measured_calls(caller(n), begin + seconds) for n in range(callers)))
        return sampled(perf_counter() - begin, [time for mine in times for time in mine])


async def _reads(make: EmptyStore, names: list[str] | None) -> Sample:
    async with make() as store:
        for first in range(0, READ, PAGE):
            events = (new_event(f"ORD_{n % ORDERS:08d}", f"Event{n % 10}") for n in range(first, first + PAGE))
            await asyncio.gather(*(store.append(Append(event)) for event in events))
        begin = perf_counter()
        after = found = 0
        while after < READ:
            page = await store.fetch(after, names=names, limit=PAGE)
            found += len(page.events)
            after = page.scanned_to
        return Sample(found / (perf_counter() - begin))


def _table(figures: list[Figure]) -> Table:
    rows = tuple(
        (
            f"{figure.system}: {figure.what}",
            str(figure.in_flight),
            f"{figure.rate:,.0f}",
            f"({figure.spread[0]:,.0f} .. {figure.spread[1]:,.0f})",
            "" if figure.p50 is None else f"{figure.p50:,.0f}",
            "" if figure.p99 is None else f"{figure.p99:,.0f}",
        )
        for figure in figures
    )
    columns = ("what", "in flight", "per second", "(range)", "p50 us", "p99 us")
    return Table("The state store through its port", columns, rows)


def main() -> int:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description="Measure the state store through its port.")
    parser.add_argument("--directory", type=Path, default=Path.cwd(), metavar="DIR")
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--postgresql", metavar="URL", help="a database to measure too: postgresql://...")
    arguments = parser.parse_args()
    stores = {"SQLite": on_sqlite(arguments.directory)}
    if arguments.postgresql:
        stores["PostgreSQL"] = on_postgresql(arguments.postgresql)
    cases: list[Case] = []
    for system, store in stores.items():
        cases += append_cases(store, callers=(1, 16, 64, 256), seconds=arguments.seconds, system=system)
        cases += read_cases(store, system=system)
    print(_table(measure(cases, rounds=arguments.rounds, label="store")).markdown())
    return 0


if __name__ == "__main__":
    sys.exit(main())
