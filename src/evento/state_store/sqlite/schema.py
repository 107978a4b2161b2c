"""The tables, their versions, and how a file becomes an event store.

``events`` is the one total order. Its indexes end in the position (SQLite appends the row id to each key), so that
every search by one of them is a range in position order. Streams have a number, which keeps the indexes small.
``head`` is one row: the newest position, the newest stream number and the newest fencing token. They are raised in
the transaction that uses them and never go back, whatever is removed.
"""

from __future__ import annotations

import sqlite3
import stat
import time
from contextlib import closing
from pathlib import Path

from evento.errors import SchemaTooNew, StoreUnavailable
from evento.messages import new_id
from evento.state_store.sqlite import failures

__all__ = ["SCHEMA_VERSION", "identity", "inspect", "migrate", "require"]

_APPLICATION_ID = 0x45564E54  # "EVNT", at offset 68 of the file
_SMALLEST_DATABASE = 512

_VERSION_1 = """
CREATE TABLE meta (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    store_id TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    schema_version INTEGER NOT NULL,
    created_at INTEGER NOT NULL
);
CREATE TABLE head (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    position INTEGER NOT NULL,
    stream INTEGER NOT NULL,
    token INTEGER NOT NULL
);
INSERT INTO head VALUES (1, 0, 0, 0);
CREATE TABLE streams (
    stream INTEGER PRIMARY KEY,
    aggregate_id TEXT NOT NULL UNIQUE,
    version INTEGER NOT NULL,
    boundary_version INTEGER NOT NULL,
    deleted_at INTEGER,
    purged INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX streams_to_purge ON streams (deleted_at) WHERE deleted_at IS NOT NULL AND purged = 0;
CREATE TABLE events (
    position INTEGER PRIMARY KEY,
    stream INTEGER,
    version INTEGER,
    context TEXT NOT NULL,
    aggregate_id TEXT,
    name TEXT NOT NULL,
    schema_version INTEGER NOT NULL,
    kind TEXT NOT NULL,
    payload TEXT NOT NULL,
    metadata TEXT NOT NULL,
    event_id TEXT NOT NULL,
    command_id TEXT NOT NULL,
    correlation_id TEXT NOT NULL,
    causation_id TEXT,
    timestamp INTEGER NOT NULL
);
CREATE UNIQUE INDEX events_stream ON events (stream, version) WHERE stream IS NOT NULL;
CREATE UNIQUE INDEX events_command ON events (command_id);
CREATE INDEX events_name ON events (name);
CREATE INDEX events_context ON events (context);
CREATE INDEX events_timestamp ON events (timestamp);
CREATE TABLE snapshots (
    written INTEGER PRIMARY KEY,
    aggregate_id TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    version INTEGER NOT NULL,
    state TEXT NOT NULL,
    updated_at INTEGER NOT NULL,
    UNIQUE (aggregate_id, fingerprint)
);
CREATE TABLE tombstones (
    command_id TEXT PRIMARY KEY,
    error TEXT NOT NULL,
    expires_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX tombstones_expiry ON tombstones (expires_at);
CREATE TABLE locks (
    lock_id TEXT PRIMARY KEY,
    token INTEGER NOT NULL,
    owner TEXT NOT NULL,
    expires_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE purged_commands (
    command_id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    aggregate_id TEXT
) WITHOUT ROWID;
CREATE TABLE purged_ranges (
    first INTEGER PRIMARY KEY,
    last INTEGER NOT NULL UNIQUE
);
"""

_VERSION_2 = "ALTER TABLE locks ADD COLUMN request TEXT"

_MIGRATIONS = (_VERSION_1, _VERSION_2)
"""The statements that lead from each version to the next."""

SCHEMA_VERSION = len(_MIGRATIONS)


def inspect(database: Path) -> bool:
    """Return whether the file is there; a foreign file stays as it is.

    SQLite itself must read it: a file that this process opens and closes in any other way loses the locks that all
    its connections hold on it (POSIX), and then another program's close may delete the log under a running writer.

    :raises StoreUnavailable: it is no SQLite database, or another application's.
    """
    try:
        found = database.stat()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise StoreUnavailable(f"{database}: cannot be read: {error.strerror}", path=str(database)) from error
    if stat.S_ISDIR(found.st_mode):
        raise StoreUnavailable(f"{database} is a folder: give the path of a file in it", path=str(database))
    if not found.st_size:  # made, but never written: a crash at birth
        return True
    if found.st_size < _SMALLEST_DATABASE:
        raise _no_database(database)
    if _application_id(database) != _APPLICATION_ID:
        raise StoreUnavailable(
            f"{database} is the database of another application: it was left as it is, give another path",
            path=str(database),
        )
    return True


def _application_id(database: Path) -> int:
    try:
        # Immutable: nothing is locked, rolled back or made beside the file.
        return _read_application_id(f"{database.as_uri()}?mode=ro&immutable=1")
    except sqlite3.Error:
        pass
    try:
        # A checkpoint that was cut short leaves a file that makes sense together with its log only.
        return _read_application_id(f"{database.as_uri()}?mode=ro")
    except sqlite3.OperationalError as error:
        raise StoreUnavailable(f"{database}: cannot be read: {error}", path=str(database)) from error
    except sqlite3.DatabaseError as error:
        if failures.is_damage(error):
            raise failures.unavailable(error, str(database)) from error
        raise _no_database(database) from error


def _read_application_id(uri: str) -> int:
    with closing(sqlite3.connect(uri, uri=True)) as connection:
        return int(connection.execute("PRAGMA application_id").fetchone()[0])


def _no_database(database: Path) -> StoreUnavailable:
    return StoreUnavailable(
        f"{database} is not a SQLite database: it was left as it is, give another path", path=str(database)
    )


def migrate(connection: sqlite3.Connection, location: str) -> None:
    """Bring a new or older database to this version's schema, in one transaction.

    :raises SchemaTooNew: a newer version of Evento wrote it.
    """
    if _version_of(connection) == 0:
        # Before WAL is switched on, so that it stands in the file itself and `inspect` finds it even after a crash.
        connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
    _check_version(connection, location)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = _version_of(connection)
        for number in range(version, SCHEMA_VERSION):
            for statement in _MIGRATIONS[number].split(";\n"):
                connection.execute(statement)
        if version == 0:
            connection.execute(
                "INSERT INTO meta VALUES (1, ?, 1, ?, ?)", (new_id(), SCHEMA_VERSION, time.time_ns() // 1000)
            )
        elif version < SCHEMA_VERSION:
            connection.execute("UPDATE meta SET schema_version = ?", (SCHEMA_VERSION,))
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def require(connection: sqlite3.Connection, location: str) -> None:
    """Make sure that a database which will only be read has this version's schema."""
    version = _check_version(connection, location)
    if version < SCHEMA_VERSION:
        raise StoreUnavailable(
            f"{location} has the older schema version {version}: open it once for writing, which migrates it",
            path=location,
        )


def identity(connection: sqlite3.Connection) -> tuple[str, int]:
    """Return the store's id and epoch."""
    store_id, epoch = connection.execute("SELECT store_id, epoch FROM meta").fetchone()
    return str(store_id), int(epoch)


def _version_of(connection: sqlite3.Connection) -> int:
    """Return the schema version of a database, 0 for one without tables."""
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone():
        return 0
    row = connection.execute("SELECT schema_version FROM meta").fetchone()
    return int(row[0])


def _check_version(connection: sqlite3.Connection, location: str) -> int:
    """Return the schema version of a database; refuse one that is newer than this software."""
    version = _version_of(connection)
    if version > SCHEMA_VERSION:
        raise SchemaTooNew(
            f"{location} has schema version {version}, but this Evento knows up to {SCHEMA_VERSION}: "
            "upgrade evento-framework",
            found=version,
            known=SCHEMA_VERSION,
        )
    return version
