"""What is known of a command id: its event, that its event was purged, or a tombstone."""

from __future__ import annotations

import sqlite3

import msgspec

from evento.errors import ErrorData
from evento.state_store.port import MAX_TOMBSTONE_SECONDS, AlreadyStored, LookupResult, Refused
from evento.state_store.sqlite.records import COLUMNS, records

__all__ = ["lookup", "reject"]

_SWEPT_AT_ONCE = 100


def lookup(connection: sqlite3.Connection, command_id: str, now: int) -> LookupResult:
    """Return the outcome of a command id, None when there is none."""
    for record in records(connection, f"SELECT {COLUMNS} FROM events WHERE command_id = ?", (command_id,)):
        return AlreadyStored(record, record.name, record.aggregate_id)
    purged = connection.execute(
        "SELECT name, aggregate_id FROM purged_commands WHERE command_id = ?", (command_id,)
    ).fetchone()
    if purged:
        return AlreadyStored(None, *purged)
    tombstone = connection.execute(
        "SELECT error FROM tombstones WHERE command_id = ? AND expires_at > ?", (command_id, now)
    ).fetchone()
    if tombstone:
        return Refused(_error(command_id, tombstone[0]))
    return None


def _error(command_id: str, stored: str) -> ErrorData:
    try:
        return msgspec.json.decode(stored, type=ErrorData)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:  # damaged, but a refusal all the same
        message = f"command {command_id} was refused, but its stored error cannot be read: {error}"
        return ErrorData(code="HandlerError", type="HandlerError", message=message)


def reject(connection: sqlite3.Connection, command_id: str, error: ErrorData, now: int) -> LookupResult:
    """Write a tombstone, unless the command id has an outcome; some that have expired are swept."""
    known = lookup(connection, command_id, now)
    if known is not None:
        return known
    connection.execute(
        "DELETE FROM tombstones WHERE command_id IN (SELECT command_id FROM tombstones WHERE expires_at <= ? LIMIT ?)",
        (now, _SWEPT_AT_ONCE),
    )
    connection.execute(
        "INSERT OR REPLACE INTO tombstones VALUES (?, ?, ?)",
        (command_id, msgspec.json.encode(error).decode(), now + int(MAX_TOMBSTONE_SECONDS * 1_000_000)),
    )
    return None
