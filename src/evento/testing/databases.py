"""The database of a projector under test."""

from __future__ import annotations

import sqlite3
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeAlias

from sqlalchemy import URL, NullPool, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from evento.consumers import ConsumerLease, DeadEvent, SqlConsumerStateStore
from evento.consumers.sqlalchemy_store.store import SqlCheckpointTransaction
from evento.messages import new_id

__all__ = ["Database", "ProgressStore", "Setup"]

Setup: TypeAlias = Callable[[AsyncConnection], Awaitable[object]]
"""Makes the tables of a test."""


class ProgressStore(SqlConsumerStateStore):
    """Keeps consumers in memory, and lets handlers write into another database: the test finds nothing else there.

    :param read_model: that database; None: that of the consumers.
    """

    def __init__(self, read_model: AsyncEngine | None = None) -> None:
        super().__init__("sqlite+aiosqlite://")
        self._read_model = read_model

    @asynccontextmanager
    async def transaction(self, lease: ConsumerLease) -> AsyncIterator[SqlCheckpointTransaction]:
        """Open a transaction for handlers; it rolls back unless it was committed before the block ends."""
        if self._read_model is None:
            async with super().transaction(lease) as transaction:
                yield transaction
            return
        async with self._read_model.connect() as connection:
            yield ReadModelTransaction(self, lease, connection, await connection.begin())


class ReadModelTransaction(SqlCheckpointTransaction):
    """A transaction of a database that has no checkpoints; they are written behind it."""

    async def commit(
        self,
        position: int,
        *,
        parked: Sequence[DeadEvent] = (),
        resolved: Sequence[int] = (),
        dead_streak: int | None = 0,
    ) -> None:
        """Commit, then write the checkpoint."""
        try:
            await self._transaction.commit()
        except DBAPIError:
            # SQLite keeps a transaction open that it could not commit, while SQLAlchemy takes it for ended.
            if self._connection.dialect.name == "sqlite" and not self._connection.invalidated:
                await self._connection.run_sync(lambda connection: connection.connection.rollback())
            raise
        await self._store.commit(self._lease, position, parked=parked, resolved=resolved, dead_streak=dead_streak)


class Database:
    """A database that outlives the event loops of its test; by default SQLite in memory.

    :param connection: a SQLAlchemy URL, or an engine, which stays open.
    """

    def __init__(self, connection: str | URL | AsyncEngine | None = None) -> None:
        self._engine = connection if isinstance(connection, AsyncEngine) else None
        if not isinstance(connection, AsyncEngine):
            url = make_url(connection or "sqlite+aiosqlite://")
            if url.get_backend_name() == "sqlite" and url.database in {None, "", ":memory:"}:
                url = self._shared_memory(url)
            self._url = url

    @asynccontextmanager
    async def open(self) -> AsyncIterator[AsyncEngine]:
        """Yield the engine, to be used in the event loop that runs now."""
        if self._engine is not None:
            yield self._engine
            return
        engine = create_async_engine(self._url, poolclass=NullPool)
        try:
            yield engine
        finally:
            await engine.dispose()

    def _shared_memory(self, url: URL) -> URL:
        """Return the URL of a database in memory that lives as long as this object."""
        name = f"file:evento-test-{new_id()}"
        anchor = sqlite3.connect(f"{name}?mode=memory&cache=shared", uri=True, check_same_thread=False)
        weakref.finalize(self, anchor.close)
        return url.set(database=name, query={"mode": "memory", "cache": "shared", "uri": "true"})
