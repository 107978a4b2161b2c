"""Rows of ``events`` as event records, and the SQL that reads them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from evento.messages import EventRecord

__all__ = ["COLUMNS", "records", "selected", "selected_with_deleted_at"]

_FIELDS = (
    "position, context, aggregate_id, version, name, schema_version, kind, payload, metadata, event_id, command_id, "
    "correlation_id, causation_id, timestamp"
)


def selected(table: str) -> str:
    """Return the columns in the order of :class:`EventRecord`'s fields; JSON comes as the bytes that were stored."""
    columns = [f"{table}.{name}" for name in _FIELDS.split(", ")]
    return ", ".join(
        f"convert_to({column}, 'UTF8')" if column.endswith((".payload", ".metadata")) else column for column in columns
    )


def selected_with_deleted_at(table: str) -> str:
    """Return :func:`selected`, and when the event's aggregate was deleted."""
    deleted_at = f"(SELECT streams.deleted_at FROM streams WHERE streams.aggregate_id = {table}.aggregate_id)"
    return f"{selected(table)}, {deleted_at}"


COLUMNS = selected("events")


def records(rows: Iterable[Sequence[Any]]) -> list[EventRecord]:
    """Return the records of rows of :data:`COLUMNS`."""
    return [EventRecord(*row) for row in rows]
