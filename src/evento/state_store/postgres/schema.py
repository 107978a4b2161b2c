"""The versions of the schema, and how a database becomes an event store."""

from __future__ import annotations

import time
from dataclasses import dataclass
from importlib.resources import files

import asyncpg

from evento.errors import SchemaTooNew, StoreUnavailable
from evento.messages import new_id
from evento.state_store.postgres.address import Address
from evento.state_store.postgres.connections import Connection

__all__ = ["SCHEMA_VERSION", "Identity", "migrate", "require"]

_MIGRATIONS = (("tables.sql", "functions.sql"),)
"""The scripts that lead from each version to the next."""

SCHEMA_VERSION = len(_MIGRATIONS)

# The catalogue as of now: functions such as to_regclass may answer from a cache that is older than the lock.
_HAS_META = """
SELECT EXISTS (SELECT FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
               WHERE n.nspname = $1 AND c.relname = 'meta')
"""
_HAS_SCHEMA = "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)"
_MIGRATING = 0x45564E54_4D494752  # "EVNTMIGR": one server at a time
_APPENDING = 0x45564E54 << 32  # "EVNT", then the object id of the head table


@dataclass(frozen=True, slots=True)
class Identity:
    """What a store is known by, and the key of the advisory lock under which events are appended to it."""

    store_id: str
    epoch: int
    lock_key: int


async def migrate(connection: Connection, address: Address) -> Identity:
    """Bring a new or older database to this version's schema, in one transaction under a lock.

    :raises SchemaTooNew: a newer version of Evento wrote it.
    :raises StoreUnavailable: it is read-only.
    """
    if await connection.fetchval("SELECT pg_is_in_recovery()"):
        raise StoreUnavailable(f"{address}: it is a standby, which is read-only: give the address of the primary")
    if await _version_of(connection, address) < SCHEMA_VERSION:
        async with connection.transaction():
            await connection.execute(f"SELECT pg_advisory_xact_lock({_MIGRATING})")
            version = await _version_of(connection, address)  # another server may have been faster
            if version < SCHEMA_VERSION:
                await _bring_up(connection, address, version)
    return await _identity(connection)


async def require(connection: Connection, address: Address) -> Identity:
    """Make sure that a database which will only be read has this version's schema."""
    version = await _version_of(connection, address)
    if version == 0:
        raise StoreUnavailable(f"no event store in {_there(address)}: check the address", missing=True)
    if version < SCHEMA_VERSION:
        raise StoreUnavailable(
            f"{address} has the older schema version {version}: open it once for writing, which migrates it",
        )
    return await _identity(connection)


async def _bring_up(connection: Connection, address: Address, version: int) -> None:
    if version == 0 and not await connection.fetchval(_HAS_SCHEMA, address.schema):
        await connection.execute(f"CREATE SCHEMA {_quoted(address.schema)}")
    for scripts in _MIGRATIONS[version:]:
        for script in scripts:
            await connection.execute(files(__package__).joinpath(script).read_text("utf-8"))
    if version == 0:
        await connection.execute(
            "INSERT INTO meta VALUES (1, $1, 1, $2, $3)", new_id(), SCHEMA_VERSION, time.time_ns() // 1000
        )
    else:
        await connection.execute("UPDATE meta SET schema_version = $1", SCHEMA_VERSION)


async def _identity(connection: Connection) -> Identity:
    row = await connection.fetchrow("SELECT store_id, epoch, 'head'::regclass::oid::bigint FROM meta")
    assert row is not None  # noqa: S101 - the version was read from it
    return Identity(row[0], row[1], _APPENDING | row[2])


async def _version_of(connection: Connection, address: Address) -> int:
    """Return the schema version of a database, 0 without tables; refuse one newer than this software."""
    try:
        if not await connection.fetchval(_HAS_META, address.schema):
            return 0
        version = int(await connection.fetchval("SELECT schema_version FROM meta") or 0)
    except asyncpg.UndefinedColumnError as error:
        raise StoreUnavailable(
            f"{_there(address)} is used by another application: it was left as it is, give another schema"
        ) from error
    if version > SCHEMA_VERSION:
        raise SchemaTooNew(
            f"{address} has schema version {version}, but this Evento knows up to {SCHEMA_VERSION}: "
            "upgrade evento-framework",
            found=version,
            known=SCHEMA_VERSION,
        )
    return version


def _there(address: Address) -> str:
    return str(address).removeprefix("the event store in ")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
