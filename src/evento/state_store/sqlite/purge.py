"""Removing the events of deleted aggregates, a bounded step at a time.

What stays: the stream's row and its deleting event, so that the aggregate stays deleted; the command ids, so that
nothing is stored twice; and the removed positions as ranges, so that the gaps are known ones.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from evento.state_store.ranges import as_ranges

__all__ = ["Cursor", "Step", "amount", "step"]

_EVENTS_A_STEP = 500
_STREAMS_A_STEP = 100

_AMOUNT = """
SELECT count(*), coalesce(sum(version - 1), 0) FROM streams INDEXED BY streams_to_purge
WHERE deleted_at < ? AND deleted_at IS NOT NULL AND purged = 0
"""
_NEXT_STREAM = """
SELECT deleted_at, stream, version FROM streams INDEXED BY streams_to_purge
WHERE deleted_at < ? AND deleted_at IS NOT NULL AND purged = 0 AND (deleted_at, stream) >= (?, ?)
ORDER BY deleted_at, stream LIMIT 1
"""
_EVENTS = """
SELECT position, version, command_id, name, aggregate_id FROM events INDEXED BY events_stream
WHERE stream = ? AND version > ? AND version < ? ORDER BY version LIMIT ?
"""


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a purge has come: streams go by the time of their deletion, events of a stream by version."""

    deleted_at: int = 0
    stream: int = 0
    version: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """What one step found (and removed): where the next one starts, None at the end."""

    next: Cursor | None
    aggregates: int
    positions: Sequence[int]


def amount(connection: sqlite3.Connection, deleted_before: int) -> int:
    """Return about how many events there are to remove."""
    [_, events] = connection.execute(_AMOUNT, (deleted_before,)).fetchone()
    return int(events)


def step(connection: sqlite3.Connection, now: int, *, deleted_before: int, cursor: Cursor, remove: bool) -> Step:
    """Go on from ``cursor`` for a bounded number of streams and events; only look unless ``remove``."""
    aggregates = 0
    positions: list[int] = []
    for _ in range(_STREAMS_A_STEP):
        found = connection.execute(_NEXT_STREAM, (deleted_before, cursor.deleted_at, cursor.stream)).fetchone()
        if found is None:
            return _finished(connection, None, aggregates, positions, remove=remove)
        deleted_at, stream, version = found
        after = cursor.version if stream == cursor.stream else 0
        room = _EVENTS_A_STEP - len(positions)
        events = connection.execute(_EVENTS, (stream, after, version, room)).fetchall()
        positions += [event[0] for event in events]
        aggregates += after == 0 and bool(events)
        if remove:
            _remove(connection, events)
        if len(events) == room:
            cursor = Cursor(deleted_at, stream, events[-1][1])
            break
        if remove:
            _close(connection, stream)
        cursor = Cursor(deleted_at, stream + 1)
    return _finished(connection, cursor, aggregates, positions, remove=remove)


def _finished(
    connection: sqlite3.Connection, cursor: Cursor | None, aggregates: int, positions: list[int], *, remove: bool
) -> Step:
    if remove:
        for first, last in as_ranges(positions):
            _note_range(connection, first, last)
    return Step(cursor, aggregates, positions)


def _remove(connection: sqlite3.Connection, events: Sequence[tuple[int, int, str, str, str | None]]) -> None:
    connection.executemany(
        "INSERT INTO purged_commands VALUES (?, ?, ?)",
        [(command_id, name, aggregate_id) for _, _, command_id, name, aggregate_id in events],
    )
    connection.executemany("DELETE FROM events WHERE position = ?", [(event[0],) for event in events])


def _close(connection: sqlite3.Connection, stream: int) -> None:
    connection.execute("UPDATE streams SET purged = 1 WHERE stream = ?", (stream,))
    connection.execute(
        "DELETE FROM snapshots WHERE aggregate_id = (SELECT aggregate_id FROM streams WHERE stream = ?)", (stream,)
    )


def _note_range(connection: sqlite3.Connection, first: int, last: int) -> None:
    before = connection.execute("SELECT first FROM purged_ranges WHERE last = ?", (first - 1,)).fetchone()
    behind = connection.execute("SELECT last FROM purged_ranges WHERE first = ?", (last + 1,)).fetchone()
    if before:
        connection.execute("DELETE FROM purged_ranges WHERE first = ?", before)
    if behind:
        connection.execute("DELETE FROM purged_ranges WHERE first = ?", (last + 1,))
    connection.execute(
        "INSERT INTO purged_ranges VALUES (?, ?)", (before[0] if before else first, behind[0] if behind else last)
    )
