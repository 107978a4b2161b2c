"""The database of a projector under test."""

from __future__ import annotations

import sqlite3
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import TypeAlias

from sqlalchemy import URL, NullPool, make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from evento.consumers import CheckpointTransaction, DeadEvent
from evento.messages import new_id

__all__ = ["Database", "EventTransaction", "Setup"]

Setup: TypeAlias = Callable[[AsyncConnection], Awaitable[object]]
"""Makes the tables of a test."""


class EventTransaction:
    """The transaction of one event: begun when its handler asks, committed when the block ends without an error.

    ::

        async with EventTransaction(engine) as transactions:
            await delivery.deliver(event, transactions, 1)
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._stack = AsyncExitStack()
        self._open: OpenTransaction | None = None

    async def __aenter__(self) -> EventTransaction:
        await self._stack.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    async def transaction(self) -> CheckpointTransaction:
        """Return the transaction, the same one whenever it is asked for."""
        if self._open is None:
            self._open = OpenTransaction(await self._stack.enter_async_context(self._engine.begin()))
        return self._open


class OpenTransaction:
    """A transaction without a checkpoint."""

    def __init__(self, connection: AsyncConnection) -> None:
        self.connection = connection

    @property
    def is_open(self) -> bool:
        """Whether it can still be committed."""
        return self.connection.in_transaction()

    async def commit(
        self,
        position: int,
        *,
        parked: Sequence[DeadEvent] = (),
        resolved: Sequence[int] = (),
        dead_streak: int | None = 0,
    ) -> None:
        """Do nothing: the block of :class:`EventTransaction` commits."""


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
