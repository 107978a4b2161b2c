"""What SQLite itself gives from Python, without any framework: the limit that Evento's figures are held against.

One table, one index, one writer thread that commits whatever queued while the last commit ran; and one loop that reads
pages and decodes them. No checks, no idempotency, no boundaries, no metadata: nobody could use it, nothing is faster.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from time import perf_counter

import msgspec

from commands import OrderLineAddedEvent, run_on_fast_loop
from figures import Case, Sample, measured_calls, sampled
from workload import line

__all__ = ["SYSTEM", "append_cases", "replay_cases"]

SYSTEM = "bare SQLite"
REPLAYED = 200_000
_CREATE = "CREATE TABLE event (position INTEGER PRIMARY KEY, stream TEXT, version INTEGER, name TEXT, payload BLOB)"
_INDEX = "CREATE UNIQUE INDEX event_version ON event (stream, version)"
_INSERT = "INSERT INTO event (stream, version, name, payload) VALUES (?, ?, ?, ?)"
_payload = msgspec.json.encode({"order_id": "ORD_00000001", **line(1)})

Row = tuple[str, int, str, bytes]
Queued = tuple[Row, "asyncio.Future[None]"] | None


def append_cases(directory: Path, *, callers: tuple[int, ...], seconds: float) -> list[Case]:
    """Append one row for each caller at a time, answered after the commit."""
    return [Case(SYSTEM, "append", count, _take(directory, count, seconds)) for count in callers]


def replay_cases(directory: Path) -> list[Case]:
    """Read pages of 1000 rows and decode each payload into its class."""
    return [Case(SYSTEM, "replay", 1, lambda: _replay(directory))]


def _take(directory: Path, callers: int, seconds: float) -> Callable[[], Sample]:
    return lambda: run_on_fast_loop(_appends(directory, callers, seconds))


async def _appends(directory: Path, callers: int, seconds: float) -> Sample:
    loop = asyncio.get_running_loop()
    waiting: queue.SimpleQueue[Queued] = queue.SimpleQueue()

    def caller(first: int) -> Callable[[int], asyncio.Future[None]]:
        def append(number: int) -> asyncio.Future[None]:
            future = loop.create_future()
            waiting.put(((f"ORD_{first:08d}", number, "OrderLineAddedEvent", _payload), future))
            return future

        return append

    with _database(directory) as path:
        writer = threading.Thread(target=_write, args=(path, waiting, loop))
        writer.start()
        begin = perf_counter()
        times = await asyncio.gather(*(measured_calls(caller(first), begin + seconds) for first in range(callers)))
        took = perf_counter() - begin
        waiting.put(None)
        writer.join()
        return sampled(took, [time for mine in times for time in mine])


def _write(path: Path, waiting: queue.SimpleQueue[Queued], loop: asyncio.AbstractEventLoop) -> None:
    with closing(_connect(path)) as connection:
        while (first := waiting.get()) is not None:
            batch = [first]
            while not waiting.empty() and (more := waiting.get_nowait()) is not None:
                batch.append(more)
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(_INSERT, [row for row, _ in batch])
            connection.execute("COMMIT")
            loop.call_soon_threadsafe(_answer, [future for _, future in batch])


def _answer(futures: list[asyncio.Future[None]]) -> None:
    for future in futures:
        future.set_result(None)


def _replay(directory: Path) -> Sample:
    decode = msgspec.json.Decoder(OrderLineAddedEvent).decode
    with _database(directory) as path, closing(_connect(path)) as connection:
        connection.execute("BEGIN")
        rows = ((f"ORD_{number // 20:08d}", number % 20, "OrderLineAddedEvent", _payload) for number in range(REPLAYED))
        connection.executemany(_INSERT, rows)
        connection.execute("COMMIT")
        begin = perf_counter()
        last = 0
        select = "SELECT * FROM event WHERE position > ? ORDER BY position LIMIT 1000"
        while page := connection.execute(select, (last,)).fetchall():
            for row in page:
                decode(row[4])
            last = page[-1][0]
        return Sample(last / (perf_counter() - begin))


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


@contextmanager
def _database(directory: Path) -> Iterator[Path]:
    path = directory / "limit.db"
    try:
        with closing(_connect(path)) as connection:
            connection.execute(_CREATE)
            connection.execute(_INDEX)
        yield path
    finally:
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
