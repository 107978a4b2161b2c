"""The System State Store in one SQLite file, for systems that live in one process."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

from evento.databases import steady_clock
from evento.errors import ErrorData, StoreUnavailable
from evento.messages import EventRecord
from evento.state_store.port import (
    EVENT_OVERHEAD,
    MAX_READ_BYTES,
    Append,
    AppendOutcome,
    EventFilter,
    Found,
    Lease,
    LookupResult,
    Page,
    PurgeReport,
    Snapshot,
    StoreInfo,
    Story,
    VerifyReport,
)
from evento.state_store.ranges import as_ranges
from evento.state_store.sqlite import commands, failures, locks, purge, reader, schema, snapshots
from evento.state_store.sqlite.checkpoints import Checkpoints
from evento.state_store.sqlite.connections import open_reader, open_writer
from evento.state_store.sqlite.verify import Ended, verify
from evento.state_store.sqlite.worker import Worker
from evento.state_store.sqlite.writer import Operation, Writer

__all__ = ["SqliteStateStore"]

T = TypeVar("T")
_READERS = 2
_POLL_SECONDS = 0.05


class SqliteStateStore:
    """A :class:`~evento.state_store.StateStore` in a SQLite file; ``path`` None keeps it in memory.

    One process writes a file at a time: a lock beside it (``<path>-lock``) refuses a second one
    (:class:`~evento.errors.StoreInUse`) and ends with its process. ``lock=False`` leaves that to you, where the file
    system has no locks. With ``read_only`` the file is read without the lock, also while another process writes it.

    Leases end when the file is opened, since nobody else has it and so their holders are dead; a server keeps them
    (``keep_leases``), because their holders are in other processes.

    ``max_queued`` operations and ``max_queued_bytes`` bound what waits to be written and, counted apart, to be read:
    beyond that, operations raise :class:`~evento.errors.Overloaded`. What those before it hold up for ``timeout``
    seconds is not begun, and raises :class:`~evento.errors.StoreUnavailable`. ``clock`` gives the store's time in
    microseconds since 1970, by which leases and tombstones expire.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        *,
        read_only: bool = False,
        lock: bool = True,
        keep_leases: bool = False,
        max_queued: int = 10_000,
        max_queued_bytes: int = 64 * 1024 * 1024,
        timeout: float = 30.0,
        clock: Callable[[], int] | None = None,
    ) -> None:
        if read_only and path is None:
            raise ValueError("a store in memory cannot be read-only: it would stay empty for ever")
        self._path = None if path is None else Path(path)
        self._read_only = read_only
        self._lock = lock
        self._keep_leases = keep_leases
        self._max_queued = max_queued
        self._max_queued_bytes = max_queued_bytes
        self._timeout = timeout
        self._clock = clock or steady_clock()
        self._location = str(path) if path is not None else "the event store in memory"
        self._identity: tuple[str, int] | None = None
        self._stack = AsyncExitStack()
        self._open = False
        self._writer: Writer | None = None
        self._writes: Worker[Writer] | None = None
        self._reads: Worker[Any] | None = None
        self._checkpoints: Checkpoints | None = None
        self._waiters: set[asyncio.Future[None]] = set()

    async def __aenter__(self) -> SqliteStateStore:
        """Open the file, or make it, and migrate an older schema."""
        if self._open:
            raise StoreUnavailable(f"{self._location} is open already: use one store object for each `async with`")
        async with AsyncExitStack() as stack:
            if not self._read_only:
                self._writes = await stack.enter_async_context(self._writing_worker())
            self._reads = self._writes
            if self._path is not None:
                self._reads = await stack.enter_async_context(self._reading_worker(_READERS))
            if self._writer is not None and self._path is not None:
                self._checkpoints = await stack.enter_async_context(
                    Checkpoints(lambda: open_writer(cast(Path, self._path).resolve()), self._writer.restart_log)
                )
            self._identity = await cast(Worker[Any], self._reads).submit(lambda db, now: schema.identity(db))
            self._stack = stack.pop_all()
        self._open = True
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Answer what is queued, then close; another process may open the file afterwards."""
        self._open = False
        self._wake()
        await self._stack.aclose()

    @property
    def store_id(self) -> str:
        """The store's own id, made when it was created."""
        return self._known_identity()[0]

    @property
    def epoch(self) -> int:
        """Rises whenever the history may have been replaced."""
        return self._known_identity()[1]

    def append(self, append: Append) -> asyncio.Future[AppendOutcome]:
        """Queue one append and return the future of its outcome."""
        if not self._open or self._writes is None:
            raise self._not_writable()
        event = append.event
        return self._writes.submit(append, len(event.payload) + len(event.metadata) + EVENT_OVERHEAD)

    async def story(
        self,
        aggregate_id: str,
        *,
        boundary: str | None = None,
        fingerprint: str | None = None,
        after_version: int = 0,
        max_bytes: int = MAX_READ_BYTES,
    ) -> Story:
        """Load what an aggregate's state is made of, as of one instant."""
        return await self._read(
            lambda db, now: reader.story(db, aggregate_id, boundary, fingerprint, after_version, max_bytes)
        )

    async def fetch(
        self,
        after: int,
        *,
        contexts: Sequence[str] = ("*",),
        names: Sequence[str] | None = None,
        limit: int = 1000,
        max_bytes: int = MAX_READ_BYTES,
    ) -> Page:
        """Read events after a position, in order."""
        return await self._read(lambda db, now: reader.fetch(db, after, contexts, names, limit, max_bytes))

    async def head(self) -> int:
        """Return the position of the newest event, 0 in an empty store."""
        if self._open and self._writer is not None:
            return self._writer.head
        return await self._read(lambda db, now: reader.head(db))

    async def wait(self, after: int, timeout: float) -> int:
        """Return the head as soon as it is beyond ``after``, at the latest after ``timeout`` seconds."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while (head := await self.head()) <= after and (left := deadline - loop.time()) > 0:
            # Who reads only is told of no commit, and must look.
            await self._woken(left if self._writer is not None else min(left, _POLL_SECONDS))
        return head

    async def snapshot(self, snapshot: Snapshot) -> bool:
        """Keep a snapshot, unless a newer one is kept or the aggregate is deleted."""
        return await self._write(lambda db, now: snapshots.write(db, snapshot, now), len(snapshot.state))

    async def lookup(self, command_id: str) -> LookupResult:
        """Return the outcome of a command id; None when the store knows nothing of it."""
        return await self._read(lambda db, now: commands.lookup(db, command_id, now))

    async def reject(self, command_id: str, error: ErrorData) -> LookupResult:
        """Write a tombstone for a command id, unless it has an outcome."""
        return await self._write(lambda db, now: commands.reject(db, command_id, error, now))

    async def lock(self, lock_id: str, *, owner: str, ttl: float, request: str | None = None) -> Lease | None:
        """Grant a leased lock for ``ttl`` seconds, or None while it is held."""
        return await self._write(lambda db, now: locks.lock(db, lock_id, owner, ttl, now, request))

    async def renew(self, lease: Lease, *, ttl: float) -> bool:
        """Extend a lease; False when it is lost."""
        return await self._write(lambda db, now: locks.renew(db, lease, ttl, now))

    async def unlock(self, lease: Lease) -> bool:
        """Give a lock back; False when the lease was lost before."""
        return await self._write(lambda db, now: locks.unlock(db, lease, now))

    async def search(
        self,
        criteria: EventFilter,
        *,
        after: int = 0,
        before: int | None = None,
        limit: int = 100,
        descending: bool = False,
        max_bytes: int = MAX_READ_BYTES,
    ) -> Found:
        """Return events that match, with positions between ``after`` and ``before`` (both exclusive)."""
        return await self._read(
            lambda db, now: reader.search(db, criteria, after, before, limit, descending, max_bytes)
        )

    async def event(self, position: int) -> EventRecord | None:
        """Return the event at a position; None when there is none, or it was purged."""
        return await self._read(lambda db, now: reader.event(db, position))

    async def info(self) -> StoreInfo:
        """Describe the store."""
        return await self._read(lambda db, now: reader.info(db, self._location))

    async def verify(self, progress: Callable[[int, int], None] | None = None) -> VerifyReport:
        """Read the whole store, as of one instant, and report each broken invariant.

        It takes a thread of its own, so that others read and write meanwhile (in memory: they wait).
        """
        loop = asyncio.get_running_loop()
        ended = threading.Event()

        def report(read: int, head: int) -> None:
            if ended.is_set() and self._path is not None:
                raise Ended
            if progress is not None:
                loop.call_soon_threadsafe(progress, read, head)

        if self._path is None:
            return await self._read(lambda db, now: verify(db, report))
        if not self._open:
            raise self._closed()
        async with self._reading_worker(1, name="evento-verify") as worker:
            try:
                return cast(VerifyReport, await worker.submit(lambda db, now: verify(db, report)))
            finally:
                ended.set()

    async def purge(
        self, *, deleted_before: int, dry_run: bool = False, progress: Callable[[int, int], None] | None = None
    ) -> PurgeReport:
        """Remove the events of aggregates that were deleted before a moment, a few hundred with each commit.

        ``progress`` is told events removed and about how many there are. Cancelled or killed, a purge has removed what
        it was told of, and the next one goes on.
        """
        run = self._read if dry_run else self._write
        total = await self._read(lambda db, now: purge.amount(db, deleted_before))
        aggregates, positions = 0, list[int]()
        cursor: purge.Cursor | None = purge.Cursor()
        while cursor is not None:
            step = await run(partial(purge.step, deleted_before=deleted_before, cursor=cursor, remove=not dry_run))
            cursor = step.next
            aggregates += step.aggregates
            positions += step.positions
            if progress is not None:
                progress(len(positions), total)
        return PurgeReport(aggregates, len(positions), tuple(as_ranges(positions)))

    # How operations reach the threads

    def _writing_worker(self) -> Worker[Writer]:
        return Worker(
            "evento-writer",
            open=self._open_writer,
            run=Writer.run,
            delivered=self._after_batch,
            max_jobs=self._max_queued,
            max_bytes=self._max_queued_bytes,
            max_wait=self._timeout,
        )

    def _reading_worker(self, threads: int, *, name: str = "evento-reader") -> Worker[sqlite3.Connection]:
        return Worker(
            name,
            open=self._open_reader,
            run=self._run_reads,
            threads=threads,
            max_jobs=self._max_queued,
            max_bytes=self._max_queued_bytes,
            max_wait=self._timeout,
        )

    async def _write(self, operation: Callable[[sqlite3.Connection, int], T], size: int = 0) -> T:
        if not self._open or self._writes is None:
            raise self._not_writable()
        return cast(T, await self._writes.submit(operation, size))

    async def _read(self, operation: Callable[[sqlite3.Connection, int], T]) -> T:
        if not self._open or self._reads is None:
            raise self._closed()
        return cast(T, await self._reads.submit(operation))

    def _run_reads(self, connection: sqlite3.Connection, operations: Sequence[Operation]) -> Sequence[Any]:
        """Run reads in one transaction, so that each sees one instant and a later one than it was asked in."""
        now = self._clock()
        try:
            connection.execute("BEGIN")
            return [self._outcome(operation, connection, now) for operation in operations]
        except sqlite3.Error as error:
            return [failures.unavailable(error, self._location) for _ in operations]
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    def _outcome(self, operation: Operation, connection: sqlite3.Connection, now: int) -> Any:
        try:
            return operation(connection, now)
        except sqlite3.Error as error:
            return failures.unavailable(error, self._location)
        except Exception as error:  # the caller's: a wrong argument, or its own progress callback
            return error

    def _open_writer(self) -> Writer:
        path = self._path.resolve() if self._path is not None else None
        self._writer = Writer(path, lock=self._lock, keep_leases=self._keep_leases, clock=self._clock)
        return self._writer

    def _open_reader(self) -> sqlite3.Connection:
        path = cast(Path, self._path).resolve()
        if not schema.inspect(path):
            raise StoreUnavailable(f"no event store at {path}: check the path", path=str(path))
        try:
            connection = open_reader(path)
        except sqlite3.Error as error:
            raise failures.unavailable(error, self._location) from error
        try:
            schema.require(connection, self._location)
        except BaseException as error:
            connection.close()
            raise failures.translated(error, self._location) from error
        return connection

    # In the event loop, after each batch

    def _after_batch(self, operations: int, size: int) -> None:
        self._wake()
        if self._checkpoints is not None:
            self._checkpoints.wrote(operations, size)

    def _wake(self) -> None:
        for waiter in self._waiters:
            _settle(waiter)
        self._waiters.clear()

    async def _woken(self, timeout: float) -> None:
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        self._waiters.add(waiter)
        timer = loop.call_later(timeout, _settle, waiter)
        try:
            await waiter
        finally:
            timer.cancel()
            self._waiters.discard(waiter)

    def _known_identity(self) -> tuple[str, int]:
        if self._identity is None:
            raise self._closed()
        return self._identity

    def _closed(self) -> StoreUnavailable:
        return StoreUnavailable(f"{self._location} is not open: use it inside `async with`", path=self._location)

    def _not_writable(self) -> StoreUnavailable:
        if self._open and self._read_only:
            return StoreUnavailable(f"{self._location} was opened read-only: nothing was stored", path=self._location)
        return self._closed()


def _settle(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
