"""Group commit: the appends of one transaction, checked one after another and written together.

Every call of SQLite hands the interpreter lock over and takes it again, so a batch makes few of them: one SELECT for
all streams and command ids, then one INSERT for many rows. The checks run in between, on what was read and what the
batch has added so far; an append that is refused changes none of it, and so leaves no trace.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec

from evento.errors import ErrorData, PayloadError
from evento.messages import EventRecord
from evento.state_store.port import (
    AlreadyStored,
    Append,
    Appended,
    AppendOutcome,
    Conflict,
    Deleted,
    LeaseIsLost,
    NewEvent,
    Refused,
)
from evento.state_store.sqlite.locks import is_held
from evento.state_store.sqlite.records import COLUMNS, records

__all__ = ["store"]

_LOAD = """
SELECT position, stream,
  (SELECT json_group_array(json_array(aggregate_id, s.stream, version, boundary_version, deleted_at))
     FROM json_each(?1) AS wanted CROSS JOIN streams AS s ON s.aggregate_id = wanted.value),
  (SELECT json_group_array(e.position)
     FROM json_each(?2) AS wanted CROSS JOIN events AS e ON e.command_id = wanted.value),
  (SELECT json_group_array(json_array(command_id, name, aggregate_id))
     FROM json_each(?2) AS wanted CROSS JOIN purged_commands AS p ON p.command_id = wanted.value),
  (SELECT json_group_array(json_array(command_id, error))
     FROM json_each(?2) AS wanted CROSS JOIN tombstones AS t ON t.command_id = wanted.value AND t.expires_at > ?3)
FROM head
"""
_BY_POSITION = f"SELECT {COLUMNS} FROM events WHERE position = ?"

_MAX_ROWS = 64
_EVENT_FIELDS = 15
_STREAM_FIELDS = 5
_ONE_EVENT = f"({', '.join('?' * _EVENT_FIELDS)})"
_ONE_STREAM = f"({', '.join('?' * _STREAM_FIELDS)})"
# One statement for each number of rows, so that SQLite prepares it once.
_INSERT_EVENTS = [f"INSERT INTO events VALUES {', '.join([_ONE_EVENT] * rows)}" for rows in range(_MAX_ROWS + 1)]
_UPSERT_STREAMS = [
    "INSERT INTO streams (stream, aggregate_id, version, boundary_version, deleted_at) "
    f"VALUES {', '.join([_ONE_STREAM] * rows)} ON CONFLICT (stream) DO UPDATE SET "
    "version = excluded.version, boundary_version = excluded.boundary_version, deleted_at = excluded.deleted_at"
    for rows in range(_MAX_ROWS + 1)
]

_encode = msgspec.json.encode
_decode = msgspec.json.decode


class _Stream:
    """A stream's row as this batch leaves it; number 0 until it has one."""

    __slots__ = ("aggregate_id", "boundary_version", "changed", "deleted_at", "stream", "version")

    def __init__(
        self,
        aggregate_id: str,
        stream: int = 0,
        version: int = 0,
        boundary_version: int = 0,
        deleted_at: int | None = None,
    ) -> None:
        self.aggregate_id = aggregate_id
        self.stream = stream
        self.version = version
        self.boundary_version = boundary_version
        self.deleted_at = deleted_at
        self.changed = False


def store(connection: sqlite3.Connection, appends: Sequence[Append], now: int) -> tuple[list[AppendOutcome], int]:
    """Store what can be stored, inside the caller's transaction; return the outcomes in order, and the head."""
    batch = _Batch(connection, appends, now)
    outcomes = [batch.decide(append) for append in appends]
    batch.write()
    return outcomes, batch.position


class _Batch:
    def __init__(self, connection: sqlite3.Connection, appends: Sequence[Append], now: int) -> None:
        self._connection = connection
        self._now = now
        self._stored: dict[str, EventRecord] = {}
        self._event_rows: list[Any] = []
        self._changed: list[_Stream] = []
        self._load(appends)

    def _load(self, appends: Sequence[Append]) -> None:
        wanted = {append.event.aggregate_id for append in appends}
        wanted.update([append.boundary for append in appends])
        wanted.discard(None)
        command_ids = [append.event.command_id for append in appends]
        self.position, self._newest_stream, streams, positions, purged, tombstones = self._connection.execute(
            _LOAD, (_encode(list(wanted)).decode(), _encode(command_ids).decode(), self._now)
        ).fetchone()
        self._streams = {row[0]: _Stream(*row) for row in _decode(streams)}
        self._known: dict[str, AlreadyStored | Refused] = {}
        for command_id, error in _decode(tombstones):
            self._known[command_id] = Refused(_decode(error, type=ErrorData))
        for command_id, name, aggregate_id in _decode(purged):
            self._known[command_id] = AlreadyStored(None, name, aggregate_id)
        for position in _decode(positions):
            [record] = records(self._connection, _BY_POSITION, (position,))
            self._known[record.command_id] = AlreadyStored(record, record.name, record.aggregate_id)

    def decide(self, append: Append) -> AppendOutcome:
        """Check one append and, if nothing stands against it, add its event to what will be written."""
        event = append.event
        command_id = event.command_id
        if command_id in self._known:
            return self._known[command_id]
        if command_id in self._stored:
            record = self._stored[command_id]
            return AlreadyStored(record, record.name, record.aggregate_id)
        if append.lease is not None and not is_held(self._connection, append.lease, self._now):
            return LeaseIsLost()
        stream = None if event.aggregate_id is None else self._stream(event.aggregate_id)
        boundary = None if append.boundary is None else self._stream(append.boundary)
        if stream is None:
            if append.expected_version is not None or append.deletes:
                raise PayloadError(f"{event.name}: an event without an aggregate id has no version", name=event.name)
        elif stream.deleted_at is not None:
            return Deleted(stream.deleted_at)
        elif append.expected_version is not None and append.expected_version != stream.version:
            return _conflict(stream, boundary)
        if boundary is not None:
            expected = append.expected_boundary_version
            if expected is not None and expected != boundary.boundary_version:
                return _conflict(stream, boundary)
            boundary.boundary_version += 1
            self._touch(boundary)
        if stream is not None:
            stream.version += 1
            self._touch(stream)
            if append.deletes:
                stream.deleted_at = event.timestamp
        return self._add(event, stream, boundary)

    def _stream(self, aggregate_id: str) -> _Stream:
        stream = self._streams.get(aggregate_id)
        if stream is None:
            stream = self._streams[aggregate_id] = _Stream(aggregate_id)
        return stream

    def _touch(self, stream: _Stream) -> None:
        if stream.changed:
            return
        stream.changed = True
        self._changed.append(stream)
        if not stream.stream:
            self._newest_stream += 1
            stream.stream = self._newest_stream

    def _add(self, event: NewEvent, stream: _Stream | None, boundary: _Stream | None) -> Appended:
        self.position += 1
        version = stream.version if stream is not None else None
        record = EventRecord(
            self.position,
            event.context,
            event.aggregate_id,
            version,
            event.name,
            event.schema_version,
            event.kind,
            event.payload,
            event.metadata,
            event.event_id,
            event.command_id,
            event.correlation_id,
            event.causation_id,
            event.timestamp,
        )
        self._stored[event.command_id] = record
        self._event_rows += (
            self.position,
            stream.stream if stream is not None else None,
            version,
            event.context,
            event.aggregate_id,
            event.name,
            event.schema_version,
            event.kind,
            event.payload.decode(),
            event.metadata.decode(),
            event.event_id,
            event.command_id,
            event.correlation_id,
            event.causation_id,
            event.timestamp,
        )
        return Appended(record, boundary.boundary_version if boundary is not None else 0)

    def write(self) -> None:
        """Write the rows of the events, of their streams, and of the head."""
        if not self._stored:
            return
        _insert(self._connection, _INSERT_EVENTS, self._event_rows, _EVENT_FIELDS)
        rows: list[Any] = []
        for stream in self._changed:
            rows += (
                stream.stream,
                stream.aggregate_id,
                stream.version,
                stream.boundary_version,
                stream.deleted_at,
            )
        _insert(self._connection, _UPSERT_STREAMS, rows, _STREAM_FIELDS)
        self._connection.execute("UPDATE head SET position = ?, stream = ?", (self.position, self._newest_stream))


def _conflict(stream: _Stream | None, boundary: _Stream | None) -> Conflict:
    return Conflict(
        stream.version if stream is not None else 0,
        boundary.boundary_version if boundary is not None else 0,
    )


def _insert(connection: sqlite3.Connection, statements: Sequence[str], values: list[Any], fields: int) -> None:
    chunk = _MAX_ROWS * fields
    for start in range(0, len(values), chunk):
        part = values[start : start + chunk]
        connection.execute(statements[len(part) // fields], part)
