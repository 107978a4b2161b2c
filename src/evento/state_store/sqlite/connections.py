"""Opening SQLite connections, each set up for what it is used for."""

from __future__ import annotations

import sqlite3
from pathlib import Path

__all__ = ["open_memory", "open_reader", "open_writer"]

_CACHED_STATEMENTS = 512
_BUSY_SECONDS = 5.0


def open_writer(database: Path) -> sqlite3.Connection:
    """Open the one connection that writes; a commit has reached the disk when it returns."""
    connection = _connect(f"{database.as_uri()}?mode=rwc")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA wal_autocheckpoint = 0")  # checkpoints are kept off the commit path
    connection.execute("PRAGMA cache_size = -32768")
    return connection


def open_memory() -> sqlite3.Connection:
    """Open an empty database in memory."""
    return _connect(":memory:")


def open_reader(database: Path) -> sqlite3.Connection:
    """Open a connection that can only read."""
    try:
        return _open_reader(f"{database.as_uri()}?mode=ro")
    except sqlite3.OperationalError:
        # In a folder that cannot be written, SQLite cannot share a file with a writer; but without a WAL there is
        # none, and the file stands still.
        wal = database.with_name(f"{database.name}-wal")
        if wal.exists() and wal.stat().st_size:
            raise
        return _open_reader(f"{database.as_uri()}?mode=ro&immutable=1")


def _open_reader(uri: str) -> sqlite3.Connection:
    connection = _connect(uri)
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def _connect(uri: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        uri, uri=True, isolation_level=None, timeout=_BUSY_SECONDS, cached_statements=_CACHED_STATEMENTS
    )
    connection.execute("PRAGMA temp_store = MEMORY")
    return connection
