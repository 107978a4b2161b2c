"""SqlConsumerStateStore: one schema on SQLite, PostgreSQL and MySQL."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from typing import Any

from sqlalchemy import ColumnElement, CursorResult, Row, Update, and_, func, insert, or_, select, update
from sqlalchemy.exc import (
    DBAPIError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    ProgrammingError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncTransaction

from evento.consumers.failures import is_undecodable
from evento.consumers.port import (
    Checkpoint,
    ConsumerId,
    ConsumerLease,
    DeadEvent,
    DeadEventFilter,
    Directions,
    SagaChange,
    StoredConsumer,
    StoredSaga,
)
from evento.consumers.sqlalchemy_store import dead_events as queue
from evento.consumers.sqlalchemy_store.damage import damaged, integers
from evento.consumers.sqlalchemy_store.directions import list_directions, note_request
from evento.consumers.sqlalchemy_store.finished import finished_positions, write_finished
from evento.consumers.sqlalchemy_store.identity import fields_of as _fields
from evento.consumers.sqlalchemy_store.identity import is_of as _is
from evento.consumers.sqlalchemy_store.patience import Patience
from evento.consumers.sqlalchemy_store.sagas import find_saga, list_sagas, write_sagas
from evento.consumers.sqlalchemy_store.schema import check_schema, consumers, migrate
from evento.databases import database_now, is_outage, make_engine, patience, probe
from evento.errors import EventoError, LeaseLost, StoreUnavailable

__all__ = ["SqlConsumerStateStore"]


class SqlConsumerStateStore:
    """The consumer state store in an SQL database, which may be the one of the user's read model.

    :param url: of SQLAlchemy: ``sqlite+aiosqlite:///FILE`` (``sqlite+aiosqlite://``: in memory),
        ``postgresql+asyncpg://...`` or ``mysql+asyncmy://...``.
    :param existing: do not make or migrate the tables: for tools, which must not change the database of a running
        bundle of another version under it.
    :param read_only: in addition write nothing, and on SQLite wait for no writer.
    :param timeout: seconds that one operation may take; a transaction of handlers is bounded at its begin and commit.
    :param patience: seconds that a handler may wait between two statements of its transaction; default: 10, less than
        the time after which the database ends an idle one.

    On SQLite the operations of one store run one after another, as the database has one writer: while a handler's
    transaction is open, the checkpoints of the other consumers wait.
    """

    def __init__(
        self,
        url: str,
        *,
        existing: bool = False,
        read_only: bool = False,
        timeout: float = 30.0,
        patience: float | None = None,
    ) -> None:
        self._url = url
        self._existing = existing or read_only
        self._read_only = read_only
        self._timeout = timeout
        self._patience = patience
        self._open: AsyncEngine | None = None
        self._exit = AsyncExitStack()
        self._gate: AbstractAsyncContextManager[Any] = nullcontext()
        self._writer: AsyncTransaction | None = None
        self._where = url

    async def __aenter__(self) -> SqlConsumerStateStore:
        """Connect and bring the schema up to date.

        :raises DefinitionError: the URL cannot be used, or its driver is not installed.
        :raises SchemaTooNew: a newer Evento wrote the database.
        :raises StoreUnavailable: the database cannot be reached.
        """
        engine = make_engine(self._url, timeout=self._timeout, read_only=self._read_only)
        self._where = engine.url.render_as_string(hide_password=True)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(engine.dispose)
            try:
                if engine.dialect.name == "sqlite":
                    self._gate = asyncio.Lock()
                    await probe(engine.url)
                    # Held open, so that a database in memory outlives the loss of the other connection.
                    await stack.enter_async_context(engine.connect())
                await self._migrate(engine)
            except EventoError:
                raise
            except (SQLAlchemyError, sqlite3.Error, OSError, TimeoutError) as error:
                raise StoreUnavailable(f"the consumer state in {self._where} cannot be opened: {error}") from error
            self._open = engine
            self._exit = stack.pop_all()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Close all connections."""
        self._open = None
        await self._exit.aclose()

    async def _migrate(self, engine: AsyncEngine) -> None:
        if self._existing:
            async with asyncio.timeout(self._timeout), engine.begin() as connection:
                await connection.run_sync(check_schema, self._where)
            return
        # Two processes may make the tables at the same time: the one that loses looks again.
        for attempt in range(1, 6):
            try:
                async with asyncio.timeout(self._timeout), engine.begin() as connection:
                    await connection.run_sync(migrate, self._where)
                return
            except (IntegrityError, OperationalError, ProgrammingError):
                if attempt == 5:
                    raise
                await asyncio.sleep(0.1 * attempt)

    # Transactions ------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        """Open a transaction on the store's database: committed at the end of the block, rolled back if it raises.

        The way to read models that live in an in-memory store; others are better reached by an engine of your own.
        """
        async with self._gate, self._engine.begin() as connection:
            yield connection

    @asynccontextmanager
    async def _operation(self) -> AsyncIterator[AsyncConnection]:
        try:
            async with asyncio.timeout(self._timeout), self.begin() as connection:
                yield connection
        except _FAILURES as error:
            raise self._unavailable(error) from error

    @asynccontextmanager
    async def transaction(self, lease: ConsumerLease) -> AsyncIterator[SqlCheckpointTransaction]:
        """Open a transaction for handlers; it rolls back unless it was committed before the block ends."""
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(self._timeout):
                    await stack.enter_async_context(self._gate)
                    connection = await stack.enter_async_context(self._engine.connect())
                    transaction = await connection.begin()
            except _FAILURES as error:
                raise self._unavailable(error) from error
            if connection.dialect.name == "sqlite":  # where every transaction begins with the write lock
                self._writer = transaction
                stack.callback(self._no_writer)
            yield SqlCheckpointTransaction(self, lease, connection, transaction)

    def _no_writer(self) -> None:
        self._writer = None

    @property
    def holds_writer(self) -> bool:
        """Whether a transaction of handlers keeps everybody from writing: only on SQLite."""
        writer = self._writer
        return writer is not None and writer.is_active and not writer.connection.invalidated

    @property
    def _engine(self) -> AsyncEngine:
        if self._open is None:
            raise StoreUnavailable(f"the consumer state store {self._where} is not open: use it inside 'async with'")
        return self._open

    def _unavailable(self, error: BaseException) -> Exception:
        if is_undecodable(error):
            return damaged(f"a row of the consumer state in {self._where}", str(error.orig), "restore it from a backup")
        if isinstance(error, DBAPIError) and not (is_outage(error) or isinstance(error, InterfaceError)):
            return error
        reason = "no answer in time" if isinstance(error, TimeoutError) else error
        problem = StoreUnavailable(f"the consumer state in {self._where} cannot be used now: {reason}")
        problem.definite = False
        return problem

    # Consumers ---------------------------------------------------------------------------------------------------

    async def register(self, consumer: ConsumerId, initial: Checkpoint) -> StoredConsumer:
        """Store the initial checkpoint unless the consumer is known; return what is stored."""
        stored = await self.load(consumer)
        if stored is None:
            try:
                async with self._operation() as connection:
                    await connection.execute(insert(consumers).values(**_fields(consumer), **_fields(initial)))
            except IntegrityError:
                pass  # another process was first
            stored = await self.load(consumer)
        if stored is None:
            raise StoreUnavailable(f"{consumer} vanished from {self._where} while it was registered")
        return stored

    async def load(self, consumer: ConsumerId) -> StoredConsumer | None:
        """Return what is stored about a consumer; None when it was never registered."""
        c = consumers.c
        leased = and_(c.lease_owner.is_not(None), c.lease_until > database_now()).label("leased")
        async with self._operation() as connection:
            row = (await connection.execute(select(consumers, leased).where(_is(consumers, consumer)))).one_or_none()
            if row is None:
                return None
            _check(consumer, row)
            dead, waiting, retrying = await queue.count_dead_events(connection, consumer)
            directions = await list_directions(connection, consumer=consumer)
        return StoredConsumer(
            checkpoint=Checkpoint(row.position, row.store_id, row.epoch),
            errors=row.errors,
            last_error=None if row.last_error is None else queue.acceptable(row.last_error),
            failing_since=row.failing_since,
            dead_streak=row.dead_streak,
            dead=dead,
            waiting=waiting,
            retrying=retrying,
            directions=directions.get(consumer, Directions()),
            leased=bool(row.leased),
        )

    # Leases ------------------------------------------------------------------------------------------------------

    async def acquire(
        self, consumer: ConsumerId, *, owner: str, ttl: float, take_over: bool = False
    ) -> ConsumerLease | None:
        """Grant the lease for ``ttl`` seconds, or return None while another owner holds it."""
        c = consumers.c
        grant = update(consumers).where(_is(consumers, consumer))
        if not take_over:
            grant = grant.where(or_(c.lease_until.is_(None), c.lease_until <= database_now(), c.lease_owner == owner))
        grant = grant.values(lease_owner=owner, lease_token=c.lease_token + 1, lease_until=_after(ttl))
        async with self._operation() as connection:
            if not _hit(await connection.execute(grant)):
                return None
            token = await connection.scalar(select(c.lease_token).where(_is(consumers, consumer)))
        return ConsumerLease(consumer, owner, int(token or 0))

    async def renew(self, lease: ConsumerLease, *, ttl: float) -> bool:
        """Extend the lease; False when its token is not the current one."""
        async with self._operation() as connection:
            return _hit(await connection.execute(_held(lease).values(lease_until=_after(ttl))))

    async def release(self, lease: ConsumerLease) -> bool:
        """Give the lease back, so that others need not wait; False when it was lost before."""
        async with self._operation() as connection:
            return _hit(await connection.execute(_held(lease).values(lease_owner=None, lease_until=None)))

    # Checkpoints -------------------------------------------------------------------------------------------------

    async def commit(
        self,
        lease: ConsumerLease,
        position: int,
        *,
        parked: Sequence[DeadEvent] = (),
        resolved: Sequence[int] = (),
        dead_streak: int | None = 0,
        sagas: Sequence[SagaChange] = (),
        finished: Collection[int] | None = None,
    ) -> None:
        """Move the checkpoint, change the dead event queue and write sagas, in one transaction."""
        async with self._operation() as connection:
            await _write(connection, lease, position, parked, resolved, dead_streak)
            if sagas:  # behind the fence: who has lost the lease meets LeaseLost, not the rows of the new owner
                await write_sagas(connection, lease.consumer, sagas)
            if finished is not None:
                await write_finished(connection, lease.consumer, position, finished)

    async def record_error(self, lease: ConsumerLease, error: str) -> None:
        """Count a failure; nothing happens when the lease is lost."""
        c = consumers.c
        failing_since = func.coalesce(c.failing_since, database_now())
        async with self._operation() as connection:
            await connection.execute(
                _held(lease).values(
                    errors=c.errors + 1, last_error=queue.acceptable(error), failing_since=failing_since
                )
            )

    # The dead event queue ----------------------------------------------------------------------------------------

    async def dead_keys(self, consumer: ConsumerId) -> frozenset[str]:
        """Return the keys that have events in the dead event queue."""
        async with self._operation() as connection:
            return await queue.list_keys(connection, consumer)

    async def dead_events(
        self,
        consumer: ConsumerId,
        criteria: DeadEventFilter = DeadEventFilter(),  # noqa: B008 - immutable
        *,
        after: int = 0,
        limit: int = 100,
    ) -> Sequence[DeadEvent]:
        """Return dead and waiting events that match, with positions beyond ``after``, ascending."""
        async with self._operation() as connection:
            return await queue.list_dead_events(connection, consumer, criteria, after=after, limit=limit)

    async def retryable(self, consumer: ConsumerId, *, after: int = 0, limit: int = 100) -> Sequence[DeadEvent]:
        """Return the events that are to be handled again now, with positions beyond ``after``, ascending."""
        async with self._operation() as connection:
            return await queue.list_retryable(connection, consumer, after=after, limit=limit)

    async def put_back(self, lease: ConsumerLease, event: DeadEvent) -> None:
        """Note that a retry has failed: the event is dead, unmarked, with this error."""
        async with self._operation() as connection:
            await queue.put_back(connection, lease.consumer, event)
            if not _hit(await connection.execute(_held(lease).values(lease_token=lease.token))):
                raise _lost(lease, f"the retry at {event.position} is not noted")

    # What operators ask for --------------------------------------------------------------------------------------

    async def consumers(self, *, bundle: str | None = None) -> Sequence[ConsumerId]:
        """Return the consumers that were ever registered, all of them or those of a bundle."""
        c = consumers.c
        query = select(c.bundle, c.component, c.version, c.context)
        if bundle is not None:
            query = query.where(c.bundle == bundle)
        async with self._operation() as connection:
            return sorted(ConsumerId(*row) for row in await connection.execute(query))

    async def directions(self, bundle: str) -> Mapping[ConsumerId, Directions]:
        """Return what operators want of the consumers of a bundle; one who was never asked for anything is absent."""
        async with self._operation() as connection:
            return await list_directions(connection, bundle=bundle)

    async def set_paused(self, consumer: ConsumerId, paused: bool) -> None:
        """Pause or resume a consumer; resuming sets its streak of dead events to 0."""
        async with self._request(consumer, paused=paused) as connection:
            if not paused:
                await connection.execute(update(consumers).where(_is(consumers, consumer)).values(dead_streak=0))

    async def mark(self, consumer: ConsumerId, criteria: DeadEventFilter, *, retry: bool) -> int:
        """Mark dead events for a retry, or take the mark off; return how many match."""
        async with self._request(consumer) as connection:
            return await queue.mark_dead_events(connection, consumer, criteria, retry=retry)

    async def discard(
        self, consumer: ConsumerId, criteria: DeadEventFilter, *, limit: int = 100
    ) -> Sequence[DeadEvent]:
        """Remove the first events that match from the queue, for ever, and return them."""
        async with self._request(consumer) as connection:
            return await queue.discard_dead_events(connection, consumer, criteria, limit=limit)

    @asynccontextmanager
    async def _request(self, consumer: ConsumerId, *, paused: bool | None = None) -> AsyncIterator[AsyncConnection]:
        async with self._operation() as connection:
            yield connection
            await note_request(connection, consumer, paused=paused)

    # Observers ---------------------------------------------------------------------------------------------------

    async def finished(self, consumer: ConsumerId) -> frozenset[int]:
        """Return the positions beyond the checkpoint whose events are handled already."""
        async with self._operation() as connection:
            return await finished_positions(connection, consumer)

    # Sagas -------------------------------------------------------------------------------------------------------

    async def find_saga(self, consumer: ConsumerId, association: str) -> StoredSaga | None:
        """Return the saga that has an association; None when there is none."""
        async with self._operation() as connection:
            return await find_saga(connection, consumer, association)

    async def sagas(self, consumer: ConsumerId, *, after: str = "", limit: int = 100) -> Sequence[StoredSaga]:
        """Return the sagas of a consumer with ids beyond ``after``, ascending."""
        async with self._operation() as connection:
            return await list_sagas(connection, consumer, after, limit)


class SqlCheckpointTransaction:
    """A transaction of the store's database, in which handlers write and the checkpoint moves."""

    def __init__(
        self,
        store: SqlConsumerStateStore,
        lease: ConsumerLease,
        connection: AsyncConnection,
        transaction: AsyncTransaction,
    ) -> None:
        self._store = store
        self._lease = lease
        self._connection = connection
        self._transaction = transaction
        self._patience = Patience(connection, patience() if store._patience is None else store._patience)

    @property
    def connection(self) -> AsyncConnection:
        """The connection that the transaction is open on."""
        return self._connection

    @property
    def is_open(self) -> bool:
        """Whether the transaction can still be committed: False once a handler has ended it."""
        return self._transaction.is_active

    @property
    def patience(self) -> float:
        """For how many seconds a handler may wait for something else than the database."""
        return self._patience.seconds

    def watched(self, handler: str) -> AbstractAsyncContextManager[None]:
        """Run a handler in the block: it is cancelled when it waits for something else for too long."""
        return self._patience.watch(handler)

    async def commit(
        self,
        position: int,
        *,
        parked: Sequence[DeadEvent] = (),
        resolved: Sequence[int] = (),
        dead_streak: int | None = 0,
    ) -> None:
        """Write the checkpoint as the last statement, fenced, and commit."""
        try:
            async with asyncio.timeout(self._store._timeout):
                await _write(self._connection, self._lease, position, parked, resolved, dead_streak)
                await self._transaction.commit()
        except _FAILURES as error:
            raise self._store._unavailable(error) from error


_FAILURES = (DBAPIError, PoolTimeoutError, OSError, TimeoutError)


async def _write(
    connection: AsyncConnection,
    lease: ConsumerLease,
    position: int,
    parked: Sequence[DeadEvent],
    resolved: Sequence[int],
    dead_streak: int | None,
) -> None:
    if parked:
        await queue.park(connection, lease.consumer, parked)
    if resolved:
        await queue.remove(connection, lease.consumer, resolved)
    streak = {} if dead_streak is None else {"dead_streak": dead_streak}
    checkpoint = _held(lease).values(position=position, errors=0, failing_since=None, **streak)
    if not _hit(await connection.execute(checkpoint)):
        raise _lost(lease, f"the checkpoint at {position} is refused")


def _check(consumer: ConsumerId, row: Row[Any]) -> None:
    what, mend = f"the row of {consumer} in {consumers.name}", "restore the consumer state from a backup"
    integers(what, mend, position=row.position, epoch=row.epoch, errors=row.errors, dead_streak=row.dead_streak)
    integers(what, mend, nullable=True, lease_until=row.lease_until, failing_since=row.failing_since)


def _lost(lease: ConsumerLease, consequence: str) -> LeaseLost:
    return LeaseLost(
        f"{lease.consumer} is worked for by another process now: {consequence}",
        consumer=str(lease.consumer),
        token=lease.token,
    )


def _held(lease: ConsumerLease) -> Update:
    return update(consumers).where(
        _is(consumers, lease.consumer),
        consumers.c.lease_token == lease.token,
        consumers.c.lease_owner == lease.owner,
    )


def _after(seconds: float) -> ColumnElement[int]:
    return database_now() + int(seconds * 1_000_000)


def _hit(result: CursorResult[Any]) -> bool:
    return result.rowcount == 1
