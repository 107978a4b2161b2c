"""What differs between SQL databases: the clock, the settings of a connection, the driver, what errors mean."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from math import ceil
from typing import Any
from uuid import uuid4

from sqlalchemy import URL, BigInteger, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InvalidRequestError, NoSuchModuleError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.pool import AsyncAdaptedQueuePool
from sqlalchemy.sql.functions import FunctionElement

from evento.errors import DefinitionError

__all__ = [
    "database_now",
    "is_outage",
    "make_engine",
    "make_engine_of_dsn",
    "parse_url",
    "patience",
    "probe",
    "steady_clock",
]

_DRIVERS = {"sqlite": "aiosqlite", "postgresql": "asyncpg", "mysql": "asyncmy", "mariadb": "asyncmy"}
_PASSWORDS = ("password", "passwd")
"""How drivers name a password in a URL's query, where SQLAlchemy does not hide it."""
_MAX_BUSY_SECONDS = 5.0
IDLE_SECONDS = 15.0
"""How long a transaction may wait for its client: as long as a consumer's lease lasts by default.

A process that is paused inside a handler's transaction must not keep its locks from the one that takes over.
"""


def patience() -> float:
    """Return for how many seconds a handler may let its transaction wait: so that we end it, and not the database."""
    return IDLE_SECONDS * 2 / 3


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
    # Not UNIX_TIMESTAMP(NOW(6)): local time is ambiguous when the clocks go back, and leases would last an hour longer.
    return "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))"


def steady_clock() -> Callable[[], int]:
    """Return a clock of microseconds since 1970 that does not jump when the system's clock is set."""
    offset = time.time_ns() - time.monotonic_ns()
    return lambda: (offset + time.monotonic_ns()) // 1000


def parse_url(text: str, *, option: str) -> URL:
    """Parse the URL of a database; rendered with ``hide_password`` it shows no password, wherever that was written.

    :param option: what the URL was given as, for the messages of errors.
    :raises DefinitionError: it is none; the message shows nothing that may be a password.
    """
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):  # not chained: the text of theirs may hold the password
        given = "" if ":" in text else f"={text!r}"
        raise DefinitionError(
            f"{option}{given} is no SQLAlchemy URL: write it like sqlite+aiosqlite:///shop-consumers.db or "
            "postgresql+asyncpg://user:password@host:5432/shop"
        ) from None
    if "@" in (url.host or ""):
        raise DefinitionError(f"{option}: the user or password in the URL has an '@': write it as %40")
    if passwords := [value for key in _PASSWORDS for value in url.normalized_query.get(key, ())]:
        url = url.difference_update_query(_PASSWORDS).set(password=passwords[-1])
    return url


def make_engine(
    text: str, *, timeout: float, read_only: bool = False, option: str = "consumer_state_store"
) -> AsyncEngine:
    """Make the engine of a URL; nothing is connected yet.

    :param timeout: seconds that a statement may wait for locks on SQLite and MySQL.
    :param option: what the URL was given as, for the messages of errors.
    :raises DefinitionError: the URL is malformed, its driver is not async, or not installed.
    """
    url = parse_url(text, option=option)
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
        if backend != "postgresql":
            return _mysql_engine(url, timeout)
        options: dict[str, Any] = {}
        if url.get_driver_name() == "asyncpg":
            options["connect_args"] = _asyncpg()
        return create_async_engine(url, pool_pre_ping=True, **options)
    except ModuleNotFoundError as error:
        raise DefinitionError(
            f"{where} needs the package {error.name!r}, which is not installed: pip install {error.name}"
        ) from error
    except (ArgumentError, InvalidRequestError, NoSuchModuleError) as error:
        raise DefinitionError(f"{where} needs an async driver: write {backend}+{driver}://") from error


def make_engine_of_dsn(dsn: str) -> AsyncEngine:
    """Make the engine of a PostgreSQL database that asyncpg finds by its own reading of a URL, as libpq does."""
    return create_async_engine("postgresql+asyncpg://", pool_pre_ping=True, connect_args={"dsn": dsn, **_asyncpg()})


def _asyncpg() -> dict[str, Any]:
    return {"server_settings": {"idle_in_transaction_session_timeout": str(int(IDLE_SECONDS * 1000))}}


def _mysql_engine(url: URL, timeout: float) -> AsyncEngine:
    engine = create_async_engine(url, pool_pre_ping=True, isolation_level="READ COMMITTED")
    wait, idle = ceil(timeout), ceil(IDLE_SECONDS)
    settings = [
        # Refuse what does not fit, whatever the defaults of the server are.
        "sql_mode='STRICT_TRANS_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION'",
        # A statement that nobody waits for any more would take its locks later; by default after a minute, or a day.
        f"innodb_lock_wait_timeout={wait}, lock_wait_timeout={wait}",
        # MySQL can only end all idle sessions; those that the pool keeps are then opened again.
        f"/*M!100300 idle_transaction_timeout={idle} */ /*!80000 wait_timeout={idle} */",
    ]

    @event.listens_for(engine.sync_engine, "connect", insert=True)  # before SQLAlchemy looks how names are quoted
    def _connected(connection: Any, record: Any) -> None:
        cursor = connection.cursor()
        cursor.execute(f"SET SESSION {', '.join(settings)}")
        cursor.close()

    return engine


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


# Classes and codes of SQLSTATE: connections, read-only servers, deadlocks, what is used up or locked, operators, disks.
_OUTAGES = ("08", "25006", "25P03", "28", "3D", "40001", "40003", "40P01", "53", "55", "57", "58")
# MySQL: data, constraints, statements, and what triggers signal; but not a database that is not there yet (1044, 1049)
# or a user with too many connections or queries (1203, 1226).
_MYSQL_DEFECTS = ("22", "23", "42", "45")
_MYSQL_NO_DEFECTS = (1044, 1049, 1203, 1226)
_MYSQL_CHECK_VIOLATED = 3819  # of no class of its own


def is_outage(error: DBAPIError) -> bool:
    """Whether the database cannot do the work now (``OperationalError``, in the words of Python's DB-API).

    Judged by the code of the error where there is one: asyncpg never raises an ``OperationalError``, not for a deadlock
    or a server that shuts down, and MySQL's drivers raise one for almost everything, as for an unknown column.
    """
    if error.connection_invalidated:
        return True
    code = getattr(error.orig, "sqlstate", None)
    if not isinstance(code, str):
        return isinstance(error, OperationalError)
    if code.startswith(_OUTAGES):
        return True
    if not isinstance(error, OperationalError):
        return False
    number = error.orig.args[0] if error.orig is not None and error.orig.args else None
    defect = code.startswith(_MYSQL_DEFECTS) or number == _MYSQL_CHECK_VIOLATED
    return not defect or number in _MYSQL_NO_DEFECTS
