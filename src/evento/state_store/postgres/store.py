"""The System State Store in a PostgreSQL database, for systems of many processes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TypeVar

from evento.errors import ErrorData, StoreUnavailable
from evento.messages import EventRecord, new_id
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
from evento.state_store.postgres import failures, operations, purge, reader, schema
from evento.state_store.postgres.address import Address
from evento.state_store.postgres.connections import Connection, Connections, Connector, at_start, close
from evento.state_store.postgres.head import Head
from evento.state_store.postgres.schema import Identity
from evento.state_store.postgres.verify import verify
from evento.state_store.postgres.writer import Rejection, Writer
from evento.state_store.ranges import as_ranges
from evento.state_store.waiting import uncancelled

__all__ = ["PostgresStateStore"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Open:
    """What an open store works with."""

    identity: Identity
    connections: Connections
    head: Head
    writer: Writer | None


class PostgresStateStore:
    """A :class:`~evento.state_store.StateStore` in a PostgreSQL database, which any number of processes may share.

    :param url: ``postgresql://user:password@host:port/database?sslmode=...``. What it leaves out comes from the
        environment (``PGPASSWORD``, ``~/.pgpass`` ...), as with PostgreSQL's own tools. A pooler that lends sessions
        for single transactions cannot stand in between.
    :param schema: where the tables are; made at the first start.
    :param read_only: write nothing, also no tables; a standby and a user who may only read will do.
    :param max_queued: how many operations, and ``max_queued_bytes`` of which size, may wait to be written and, counted
        apart, how many to be read: beyond that, operations raise :class:`~evento.errors.Overloaded`.
    :param connections: how many connections read; one more appends.
    :param timeout: seconds that one statement may take, how long an operation may wait for those before it, and how
        long a lost connection is sought anew before an operation fails.

    Leases and tombstones expire by the database's clock.
    """

    def __init__(
        self,
        url: str,
        *,
        schema: str = "evento",
        read_only: bool = False,
        max_queued: int = 10_000,
        max_queued_bytes: int = 64 * 1024 * 1024,
        connections: int = 4,
        timeout: float = 30.0,
    ) -> None:
        self._address = Address(url, schema)
        self._read_only = read_only
        self._max_queued = max_queued
        self._max_queued_bytes = max_queued_bytes
        self._size = connections
        self._connector = Connector(self._address, timeout=timeout, read_only=read_only)
        self._identity: Identity | None = None
        self._open: _Open | None = None
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> PostgresStateStore:
        """Connect, make the tables or migrate older ones.

        :raises DefinitionError: the URL is malformed.
        :raises SchemaTooNew: a newer Evento wrote the database.
        :raises StoreUnavailable: the database cannot be reached, or may not be written.
        """
        if self._open is not None:
            raise StoreUnavailable(f"{self._address} is open already: use one store object for each `async with`")
        self._address.check()
        async with AsyncExitStack() as stack:
            first = await at_start(self._connector)
            stack.push_async_callback(close, first)
            prepare = schema.require if self._read_only else schema.migrate
            try:
                self._identity = await prepare(first, self._address)
            except failures.FAILURES as error:
                raise failures.unavailable(error, self._address) from error
            connections = Connections(self._connector, size=self._size, max_waiting=self._max_queued)
            head = Head(lambda: connections.run(reader.head))
            writer = None
            if not self._read_only:
                writer = Writer(
                    self._connector,
                    first,
                    self._identity.lock_key,
                    max_jobs=self._max_queued,
                    max_bytes=self._max_queued_bytes,
                    committed=head.saw,
                )
                stack.pop_all()  # the writer closes it
                stack.push_async_callback(writer.aclose)
            stack.push_async_callback(connections.aclose)
            await connections.open()
            self._open = _Open(self._identity, connections, head, writer)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Answer what is queued, then close."""
        if self._open is not None:
            await uncancelled(asyncio.ensure_future(self._close(self._open)))

    async def _close(self, was: _Open) -> None:
        self._open = None
        await was.head.aclose(self._closed())
        await self._stack.aclose()

    @property
    def store_id(self) -> str:
        """The store's own id, made when it was created."""
        return self._known_identity().store_id

    @property
    def epoch(self) -> int:
        """Rises whenever the history may have been replaced."""
        return self._known_identity().epoch

    def append(self, append: Append) -> asyncio.Future[AppendOutcome]:
        """Queue one append and return the future of its outcome."""
        event = append.event
        return self._writer().submit(append, len(event.payload) + len(event.metadata) + EVENT_OVERHEAD)

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
        return await self._run(
            lambda db: reader.story(db, aggregate_id, boundary, fingerprint, after_version, max_bytes)
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
        return await self._run(lambda db: reader.fetch(db, after, contexts, names, limit, max_bytes))

    async def head(self) -> int:
        """Return the position of the newest event, 0 in an empty store."""
        return await self._state().head.read()

    async def wait(self, after: int, timeout: float) -> int:
        """Return the head as soon as it is beyond ``after``, at the latest after ``timeout`` seconds.

        Appends of this process are noticed at once, those of others within some 20 milliseconds.
        """
        return await self._state().head.wait(after, timeout)

    async def snapshot(self, snapshot: Snapshot) -> bool:
        """Keep a snapshot, unless a newer one is kept or the aggregate is deleted."""
        self._writer()
        return await self._run(lambda db: operations.snapshot(db, snapshot))

    async def lookup(self, command_id: str) -> LookupResult:
        """Return the outcome of a command id; None when the store knows nothing of it."""
        return await self._run(lambda db: operations.lookup(db, command_id))

    async def reject(self, command_id: str, error: ErrorData) -> LookupResult:
        """Write a tombstone for a command id, unless it has an outcome."""
        known: LookupResult = await self._writer().submit(Rejection(command_id, error), EVENT_OVERHEAD)
        return known

    async def lock(self, lock_id: str, *, owner: str, ttl: float, request: str | None = None) -> Lease | None:
        """Grant a leased lock for ``ttl`` seconds, or None while it is held."""
        self._writer()
        id = request or new_id()  # asked again after a lost connection, it is still the same request
        return await self._run(lambda db: operations.lock(db, lock_id, owner, ttl, id))

    async def renew(self, lease: Lease, *, ttl: float) -> bool:
        """Extend a lease; False when it is lost."""
        self._writer()
        return await self._run(lambda db: operations.renew(db, lease, ttl))

    async def unlock(self, lease: Lease) -> bool:
        """Give a lock back; False when the lease was lost before."""
        self._writer()
        return await self._run(lambda db: operations.unlock(db, lease), again=False)

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
        return await self._run(lambda db: reader.search(db, criteria, after, before, limit, descending, max_bytes))

    async def event(self, position: int) -> EventRecord | None:
        """Return the event at a position; None when there is none, or it was purged."""
        return await self._run(lambda db: reader.event(db, position))

    async def info(self) -> StoreInfo:
        """Describe the store."""
        return await self._run(lambda db: reader.info(db, str(self._address)))

    async def verify(self, progress: Callable[[int, int], None] | None = None) -> VerifyReport:
        """Read the whole store, as of one instant, and report each broken invariant.

        It takes a connection of its own, so that others read and write meanwhile.
        """
        self._state()
        connection = await self._connector.connect(for_bulk=True)
        try:
            return await verify(connection, progress)
        except failures.FAILURES as error:
            raise failures.unavailable(error, self._address) from error
        finally:
            await close(connection)

    async def purge(
        self, *, deleted_before: int, dry_run: bool = False, progress: Callable[[int, int], None] | None = None
    ) -> PurgeReport:
        """Remove the events of aggregates that were deleted before a moment, a few hundred with each commit.

        Others may use the store meanwhile. ``progress`` is told events removed and about how many there are. Cancelled
        or killed, a purge has removed what it was told of, and the next one goes on.
        """
        if not dry_run:
            self._writer()
        lock_key = self._known_identity().lock_key
        total = await self._run(lambda db: purge.amount(db, deleted_before))
        aggregates, positions = 0, list[int]()
        cursor: purge.Cursor | None = purge.Cursor()
        while cursor is not None:
            step = await self._run(_purge_step(lock_key, deleted_before, cursor, dry_run), again=dry_run)
            cursor = step.next
            aggregates += step.aggregates
            positions += step.positions
            if progress is not None:
                progress(len(positions), total)
        return PurgeReport(aggregates, len(positions), tuple(as_ranges(positions)))

    # How operations reach the database

    async def _run(self, operation: Callable[[Connection], Awaitable[T]], *, again: bool = True) -> T:
        return await self._state().connections.run(operation, again=again)

    def _writer(self) -> Writer:
        writer = self._state().writer
        if writer is None:
            raise StoreUnavailable(
                f"{self._address} was opened read-only: nothing was stored", location=str(self._address)
            )
        return writer

    def _state(self) -> _Open:
        if self._open is None:
            raise self._closed()
        return self._open

    def _known_identity(self) -> Identity:
        if self._identity is None:
            raise self._closed()
        return self._identity

    def _closed(self) -> StoreUnavailable:
        return StoreUnavailable(f"{self._address} is not open: use it inside `async with`", location=str(self._address))


def _purge_step(
    lock_key: int, deleted_before: int, cursor: purge.Cursor, dry_run: bool
) -> Callable[[Connection], Awaitable[purge.Step]]:
    return lambda db: purge.step(db, lock_key, deleted_before=deleted_before, cursor=cursor, remove=not dry_run)
