"""What differs between SQL databases: the clock, the settings of a connection, the driver to install."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import Any
from uuid import uuid4

from sqlalchemy import URL, BigInteger, event, make_url
from sqlalchemy.exc import ArgumentError, InvalidRequestError, NoSuchModuleError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.pool import AsyncAdaptedQueuePool
from sqlalchemy.sql.functions import FunctionElement

from evento.errors import DefinitionError

__all__ = ["database_now", "make_engine", "probe"]

_DRIVERS = {"sqlite": "aiosqlite", "postgresql": "asyncpg", "mysql": "asyncmy", "mariadb": "asyncmy"}
_MAX_BUSY_SECONDS = 5.0
IDLE_SECONDS = 15.0
"""How long a transaction on PostgreSQL may wait for its client: as long as a consumer's lease lasts by default.

A process that is paused inside a handler's transaction must not keep its locks from the one that takes over.
"""


class database_now(FunctionElement[int]):
    """The database's clock, in microseconds since 1970."""

    type = BigInteger()
    inherit_cache = True


@compiles(database_now, "sqlite")
def _sqlite_now(element: database_now, compiler: Any, **options: Any) -> str:
    # unixepoch('subsec') needs SQLite 3.42.
    return "CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)"


@compiles(database_now, "postgresql")
def _postgresql_now(element: database_now, compiler: Any, **options: Any) -> str:
    return "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)"


@compiles(database_now, "mysql", "mariadb")
def _mysql_now(element: database_now, compiler: Any, **options: Any) -> str:
    return "CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)"


def make_engine(
    text: str, *, timeout: float, read_only: bool = False, option: str = "consumer_state_store"
) -> AsyncEngine:
    """Make the engine of a URL; nothing is connected yet. ``timeout`` (seconds) bounds the wait for a lock of SQLite.

    :param option: what the URL was given as, for the messages of errors.
    :raises DefinitionError: the URL is malformed, its driver is not async, or not installed.
    """
    try:
        url = make_url(text)
    except ArgumentError as error:
        raise DefinitionError(
            f"{option}={text!r} is no SQLAlchemy URL: write it like sqlite+aiosqlite:///shop-consumers.db"
        ) from error
    backend = url.get_backend_name()
    if backend not in _DRIVERS:
        raise DefinitionError(f"{option} cannot be kept in {backend!r}: use {', '.join(sorted(_DRIVERS))}")
    driver = _DRIVERS[backend]
    if "+" not in url.drivername:
        url = url.set(drivername=f"{backend}+{driver}")
    where = url.render_as_string(hide_password=True)
    try:
        if backend == "sqlite":
            return _sqlite_engine(url, timeout, read_only)
        options: dict[str, Any] = {}
        if url.get_driver_name() == "asyncpg":
            idle = str(int(IDLE_SECONDS * 1000))
            options["connect_args"] = {"server_settings": {"idle_in_transaction_session_timeout": idle}}
        return create_async_engine(url, pool_pre_ping=True, **options)
    except ModuleNotFoundError as error:
        raise DefinitionError(
            f"{where} needs the package {error.name!r}, which is not installed: pip install {error.name}"
        ) from error
    except (ArgumentError, InvalidRequestError, NoSuchModuleError) as error:
        raise DefinitionError(f"{where} needs an async driver: write {backend}+{driver}://") from error


def _sqlite_engine(url: URL, timeout: float, read_only: bool) -> AsyncEngine:
    if url.database in {None, "", ":memory:"}:
        # A name of its own and a shared cache let a second connection see the database, and keep it.
        url = url.set(database=f"file:evento-{uuid4().hex}", query={"mode": "memory", "cache": "shared", "uri": "true"})
    # One connection works at a time, a second one is held open by the store.
    engine = create_async_engine(url, poolclass=AsyncAdaptedQueuePool, pool_size=2, max_overflow=0)

    busy = int(min(timeout, _MAX_BUSY_SECONDS) * 1000)

    @event.listens_for(engine.sync_engine, "connect")
    def _connected(connection: Any, record: Any) -> None:
        connection.isolation_level = None  # the driver leaves BEGIN to us
        cursor = connection.cursor()
        settings = ("query_only=ON",) if read_only else ("journal_mode=WAL", "synchronous=FULL")
        for pragma in (*settings, f"busy_timeout={busy}"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def _begun(connection: Any) -> None:
        # The write lock at once: a transaction that reads first could not be upgraded after another one's commit.
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine


async def probe(url: URL) -> None:
    """Raise :class:`sqlite3.Error` when the file cannot be opened.

    The driver finds that out too, but leaves a thread behind that may outlive the event loop.
    """
    if url.database and not url.database.startswith("file:"):
        await asyncio.to_thread(lambda: sqlite3.connect(str(url.database)).close())
