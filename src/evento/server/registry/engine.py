"""The database of the registry: how it is reached, and whether it can be, without changing it."""

from __future__ import annotations

import asyncio

from sqlalchemy import inspect, select
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from evento.databases import make_engine, make_engine_of_dsn
from evento.errors import StoreUnavailable
from evento.server.registry.schema import check_version, schema_version

__all__ = ["open_engine", "place", "probe_tables"]

_PROBE_SECONDS = 10.0


def open_engine(url: str, *, schema: str | None, timeout: float, read_only: bool = False) -> AsyncEngine:
    """Make the engine of ``sqlite+aiosqlite:///FILE``, or of ``postgresql://...`` as the event store's driver reads it.

    The one reading of the URL is what keeps the registry in the event store's database.
    """
    if url.startswith("sqlite"):
        return make_engine(url, timeout=timeout, read_only=read_only, option="store")
    # Whatever the user's default is: what others committed must be seen.
    engine = make_engine_of_dsn(url).execution_options(isolation_level="READ COMMITTED")
    return engine if schema is None else engine.execution_options(schema_translate_map={None: schema})


def place(engine: AsyncEngine, url: str, schema: str | None) -> str:
    """Return where the registry is, for people: never with the password."""
    if engine.dialect.name == "sqlite":
        return engine.url.render_as_string(hide_password=True)
    from evento.state_store.postgres.address import Address

    return str(Address(url, schema or "of the user"))


async def probe_tables(url: str, *, schema: str | None) -> str:
    """Return in words how the registry's tables are.

    :raises SchemaTooNew: a newer Evento wrote them.
    :raises StoreUnavailable: the database cannot be reached.
    """
    engine = open_engine(url, schema=schema, timeout=_PROBE_SECONDS, read_only=True)
    where = place(engine, url, schema)

    def look(connection: Connection) -> str:
        if not inspect(connection).has_table(schema_version.name, schema=schema):
            return f"{where} has no tables of it yet: they will be made at the first start"
        check_version(connection.scalar(select(schema_version.c.version)), where)
        return where

    try:
        async with asyncio.timeout(_PROBE_SECONDS), engine.connect() as connection:
            return await connection.run_sync(look)
    except (DBAPIError, OSError) as error:  # TimeoutError is an OSError
        raise StoreUnavailable(f"the registry in {where} cannot be reached: {error or type(error).__name__}") from error
    finally:
        await engine.dispose()
