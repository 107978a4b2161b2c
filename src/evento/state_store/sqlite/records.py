"""Rows of ``events`` as event records, and the SQL that reads them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any

from evento.messages import EventRecord
from evento.state_store.port import EVENT_OVERHEAD

__all__ = ["COLUMNS", "COLUMNS_WITH_DELETED_AT", "cut", "records"]

# In the order of EventRecord's fields. As BLOB the text comes as the bytes that were stored.
COLUMNS = (
    "events.position, context, aggregate_id, version, name, schema_version, kind, "
    "CAST(payload AS BLOB), CAST(metadata AS BLOB), event_id, command_id, correlation_id, causation_id, timestamp"
)
COLUMNS_WITH_DELETED_AT = f"{COLUMNS}, (SELECT streams.deleted_at FROM streams WHERE streams.stream = events.stream)"
_PAYLOAD, _METADATA = 7, 8


def records(connection: sqlite3.Connection, sql: str, parameters: Iterable[Any]) -> list[EventRecord]:
    """Return the records that a SELECT of :data:`COLUMNS` yields."""
    return [EventRecord(*row) for row in connection.execute(sql, tuple(parameters))]


def cut(
    connection: sqlite3.Connection, sql: str, parameters: Iterable[Any], max_bytes: int, *, least: int = 1
) -> tuple[list[EventRecord], bool]:
    """Return the records of a SELECT up to ``max_bytes``, at least one, and whether that left some out."""
    found: list[EventRecord] = []
    size = 0
    cursor = connection.execute(sql, tuple(parameters))
    for row in cursor:
        size += len(row[_PAYLOAD]) + len(row[_METADATA]) + EVENT_OVERHEAD
        if size > max_bytes and len(found) >= least:
            cursor.close()
            return found, True
        found.append(EventRecord(*row))
    return found, False
