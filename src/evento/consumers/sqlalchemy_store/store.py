"""SqlConsumerStateStore: one schema on SQLite, PostgreSQL and MySQL."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from typing import Any

from sqlalchemy import ColumnElement, CursorResult, Row, Update, delete, func, insert, or_, select, update
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

from evento.consumers.port import (
    Checkpoint,
    ConsumerId,
    ConsumerLease,
    DeadEvent,
    SagaChange,
    StoredConsumer,
    StoredSaga,
)
from evento.consumers.sqlalchemy_store.dialects import database_now, make_engine, probe
from evento.consumers.sqlalchemy_store.finished import finished_positions, write_finished
from evento.consumers.sqlalchemy_store.identity import fields_of as _fields
from evento.consumers.sqlalchemy_store.identity import is_of as _is
from evento.consumers.sqlalchemy_store.sagas import find_saga, list_sagas, write_sagas
from evento.consumers.sqlalchemy_store.schema import consumers, dead_events, migrate
from evento.errors import EventoError, LeaseLost, StoreUnavailable

__all__ = ["SqlConsumerStateStore"]

MAX_TEXT = 64 * 1024
"""Longer error messages and tracebacks are cut."""


class SqlConsumerStateStore:
    """The consumer state store in an SQL database, which may be the one of the user's read model.

    :param url: of SQLAlchemy: ``sqlite+aiosqlite:///FILE`` (``sqlite+aiosqlite://``: in memory),
        ``postgresql+asyncpg://...`` or ``mysql+asyncmy://...``.
    :param timeout: seconds that one operation may take; a transaction of handlers is bounded at its begin and commit.

    On SQLite the operations of one store run one after another, as the database has one writer: while a handler's
    transaction is open, the checkpoints of the other consumers wait.
    """

    def __init__(self, url: str, *, timeout: float = 30.0) -> None:
        self._url = url
        self._timeout = timeout
        self._open: AsyncEngine | None = None
        self._exit = AsyncExitStack()
        self._gate: AbstractAsyncContextManager[Any] = nullcontext()
        self._where = url

    async def __aenter__(self) -> SqlConsumerStateStore:
        """Connect and bring the schema up to date.

        :raises DefinitionError: the URL cannot be used, or its driver is not installed.
        :raises SchemaTooNew: a newer Evento wrote the database.
        :raises StoreUnavailable: the database cannot be reached.
        """
        engine = make_engine(self._url, timeout=self._timeout)
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
            yield SqlCheckpointTransaction(self, lease, connection, transaction)

    @property
    def _engine(self) -> AsyncEngine:
        if self._open is None:
            raise StoreUnavailable(f"the consumer state store {self._where} is not open: use it inside 'async with'")
        return self._open

    def _unavailable(self, error: BaseException) -> Exception:
        if isinstance(error, DBAPIError) and not (
            error.connection_invalidated or isinstance(error, OperationalError | InterfaceError)
        ):
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
        counts = (
            select(dead_events.c.waiting, func.count())
            .where(_is(dead_events, consumer))
            .group_by(dead_events.c.waiting)
        )
        async with self._operation() as connection:
            row = (await connection.execute(select(consumers).where(_is(consumers, consumer)))).one_or_none()
            if row is None:
                return None
            parked = {bool(waiting): count for waiting, count in await connection.execute(counts)}
        return StoredConsumer(
            checkpoint=Checkpoint(row.position, row.store_id, row.epoch),
            errors=row.errors,
            last_error=row.last_error,
            failing_since=row.failing_since,
            dead_streak=row.dead_streak,
            dead=parked.get(False, 0),
            waiting=parked.get(True, 0),
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
        dead_streak: int = 0,
        sagas: Sequence[SagaChange] = (),
        finished: Collection[int] | None = None,
    ) -> None:
        """Move the checkpoint, park events and write sagas, in one transaction; counted errors are reset."""
        async with self._operation() as connection:
            await _write(connection, lease, position, parked, dead_streak)
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
                _held(lease).values(errors=c.errors + 1, last_error=_text(error), failing_since=failing_since)
            )

    # Dead events -------------------------------------------------------------------------------------------------

    async def dead_keys(self, consumer: ConsumerId) -> frozenset[str]:
        """Return the keys that have events in the dead event queue."""
        key = dead_events.c.held_key
        async with self._operation() as connection:
            rows = await connection.scalars(select(key).where(_is(dead_events, consumer), key.is_not(None)).distinct())
            return frozenset(rows)

    async def dead_events(self, consumer: ConsumerId, *, after: int = 0, limit: int = 100) -> Sequence[DeadEvent]:
        """Return dead and waiting events with positions beyond ``after``, ascending."""
        position = dead_events.c.position
        query = select(dead_events).where(_is(dead_events, consumer), position > after).order_by(position).limit(limit)
        async with self._operation() as connection:
            return [_dead_event(row) for row in await connection.execute(query)]

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

    @property
    def connection(self) -> AsyncConnection:
        """The connection that the transaction is open on."""
        return self._connection

    @property
    def is_open(self) -> bool:
        """Whether the transaction can still be committed: False once a handler has ended it."""
        return self._transaction.is_active

    async def commit(self, position: int, *, parked: Sequence[DeadEvent] = (), dead_streak: int = 0) -> None:
        """Write the checkpoint as the last statement, fenced, and commit."""
        try:
            async with asyncio.timeout(self._store._timeout):
                await _write(self._connection, self._lease, position, parked, dead_streak)
                await self._transaction.commit()
        except _FAILURES as error:
            raise self._store._unavailable(error) from error


_FAILURES = (DBAPIError, PoolTimeoutError, OSError, TimeoutError)


async def _write(
    connection: AsyncConnection, lease: ConsumerLease, position: int, parked: Sequence[DeadEvent], dead_streak: int
) -> None:
    if parked:
        # A consumer that was made to read again may park an event that is parked already.
        positions = [event.position for event in parked]
        await connection.execute(
            delete(dead_events).where(_is(dead_events, lease.consumer), dead_events.c.position.in_(positions))
        )
        await connection.execute(
            insert(dead_events).values(parked_at=database_now()), [_dead_row(lease.consumer, event) for event in parked]
        )
    checkpoint = _held(lease).values(position=position, dead_streak=dead_streak, errors=0, failing_since=None)
    if not _hit(await connection.execute(checkpoint)):
        raise LeaseLost(
            f"{lease.consumer} is worked for by another process now: the checkpoint at {position} is refused",
            consumer=str(lease.consumer),
            position=position,
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


def _dead_row(consumer: ConsumerId, event: DeadEvent) -> dict[str, Any]:
    return {
        **_fields(consumer),
        "position": event.position,
        "event_id": event.event_id,
        "event_name": event.event_name,
        "event_context": event.context,
        "aggregate_id": event.aggregate_id,
        "held_key": event.key,
        "waiting": event.waiting,
        "error_type": _text(event.error_type),
        "error_message": _text(event.error_message),
        "traceback": _text(event.traceback),
        "attempts": event.attempts,
    }


def _dead_event(row: Row[Any]) -> DeadEvent:
    return DeadEvent(
        position=row.position,
        event_id=row.event_id,
        event_name=row.event_name,
        context=row.event_context,
        aggregate_id=row.aggregate_id,
        key=row.held_key,
        waiting=bool(row.waiting),
        error_type=row.error_type,
        error_message=row.error_message,
        traceback=row.traceback,
        attempts=row.attempts,
        parked_at=row.parked_at,
    )


def _text(text: str) -> str:
    """Return ``text`` as every database can keep it: no NUL, no lone surrogates, of bounded length."""
    if len(text) > MAX_TEXT:
        text = text[: MAX_TEXT // 2] + "\n...\n" + text[-MAX_TEXT // 2 :]
    return text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()
