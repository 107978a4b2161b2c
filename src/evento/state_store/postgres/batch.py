"""Group commit: the appends of one statement, checked and written by a function of the database.

In most batches every append can be stored. Those are written as sets, and what would take the database longest, which
version each event has, is counted here: a batch is fine exactly when each stream that it touches is where the appends
expect it before the first of them. Any other batch is written one append after another.

Either is one statement, which is committed when it is answered. What is read behind it may fail without the connection
being lost: that concerns the appends it was read for, and takes back nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import asyncpg

from evento.messages import EventRecord
from evento.state_store.port import (
    AlreadyStored,
    Append,
    Appended,
    AppendOutcome,
    Conflict,
    Deleted,
    LeaseIsLost,
)
from evento.state_store.postgres import failures
from evento.state_store.postgres.arrays import numbers, texts
from evento.state_store.postgres.connections import Connection
from evento.state_store.postgres.operations import outcomes, refused

__all__ = ["Outcome", "store"]

Outcome: TypeAlias = AppendOutcome | asyncpg.PostgresError
"""A failure: the command id of the append is known, but what became of it could not be read."""

_T, _I, _B = "::text::text[]", "::text::integer[]", "::text::bigint[]"
_STREAMS = (_T, _B, _B, _B, _B, _I, _B)
_EVENTS = (_T, _T, _T, _I, _T, _T, _T, _T, _T, _T, _T, _B)


def _call(function: str, *types: str) -> str:
    return f"SELECT * FROM {function}({', '.join(f'${number}{type_}' for number, type_ in enumerate(types, 1))})"


_APPEND_ALL = _call("append_all", "", *_STREAMS, *_EVENTS)
_APPEND_EACH = _call("append_each", "", *_EVENTS, *[""] * 6)
_STORED, _KNOWN, _REFUSED, _LEASE_LOST, _DELETED, _CONFLICT = range(6)


async def store(
    connection: Connection, lock_key: int, appends: Sequence[Append], *, is_repeated: bool
) -> tuple[list[Outcome], int | None]:
    """Store what can be stored; return the outcomes in order, and the head if it rose.

    ``is_repeated`` says that the batch may have been stored before, and its answer lost: what is found with the event
    id of the append is its own.
    """
    columns = _columns(appends)
    if not is_repeated and (streams := _Streams.of(appends)) is not None:
        try:
            row = await connection.fetchrow(_APPEND_ALL, lock_key, *streams.arguments(), *columns)
        except asyncpg.UniqueViolationError:  # a resend
            row = None
        if row is not None and row[0] is not None:
            return streams.appended(appends, *row), row[0] + len(appends)
    return await _store_each(connection, lock_key, appends, columns, is_repeated)


def _columns(appends: Sequence[Append]) -> list[str]:
    events = [append.event for append in appends]
    return [
        texts([event.context for event in events]),
        texts([event.aggregate_id for event in events]),
        texts([event.name for event in events]),
        numbers([event.schema_version for event in events]),
        texts([event.kind for event in events]),
        texts([event.payload.decode() for event in events]),
        texts([event.metadata.decode() for event in events]),
        texts([event.event_id for event in events]),
        texts([event.command_id for event in events]),
        texts([event.correlation_id for event in events]),
        texts([event.causation_id for event in events]),
        numbers([event.timestamp for event in events]),
    ]


class _Streams:
    """The streams that a batch touches: where each must be before it, and by how much the batch raises it."""

    def __init__(self) -> None:
        self._indexes: dict[str, int] = {}
        self._versions: list[int | None] = []
        self._adds: list[int] = []
        self._boundary_versions: list[int | None] = []
        self._boundary_adds: list[int] = []
        self._streams: list[int | None] = []
        self._nths: list[int | None] = []
        self._boundaries: list[tuple[int, int] | None] = []

    @classmethod
    def of(cls, appends: Sequence[Append]) -> _Streams | None:
        """Return the streams of a batch; None when it cannot be written as a set, whatever is stored."""
        streams = cls()
        for append in appends:
            if append.deletes or append.lease is not None or not streams._add(append):
                return None
        return streams

    def _add(self, append: Append) -> bool:
        aggregate_id, boundary = append.event.aggregate_id, append.boundary
        if aggregate_id is None:
            self._streams.append(None)
            self._nths.append(None)
        else:
            at = self._index(aggregate_id)
            nth = self._adds[at] = self._adds[at] + 1
            if not _agree(self._versions, at, append.expected_version, nth):
                return False
            self._streams.append(at + 1)
            self._nths.append(nth)
        if boundary is None:
            self._boundaries.append(None)
            return True
        at = self._index(boundary)
        nth = self._boundary_adds[at] = self._boundary_adds[at] + 1
        self._boundaries.append((at, nth))
        return _agree(self._boundary_versions, at, append.expected_boundary_version, nth)

    def _index(self, stream: str) -> int:
        index = self._indexes.setdefault(stream, len(self._indexes))
        if index == len(self._versions):
            self._versions.append(None)
            self._adds.append(0)
            self._boundary_versions.append(None)
            self._boundary_adds.append(0)
        return index

    def arguments(self) -> list[str]:
        """Return the arguments of the function, up to the events."""
        return [
            texts(list(self._indexes)),
            numbers(self._versions),
            numbers(self._adds),
            numbers(self._boundary_versions),
            numbers(self._boundary_adds),
            numbers(self._streams),
            numbers(self._nths),
        ]

    def appended(
        self, appends: Sequence[Append], head_before: int, versions: list[int], boundary_versions: list[int]
    ) -> list[Outcome]:
        """Return the outcomes, given where the streams were."""
        stored: list[Outcome] = []
        for append, stream, nth, boundary in zip(appends, self._streams, self._nths, self._boundaries, strict=True):
            head_before += 1
            version = None if stream is None or nth is None else versions[stream - 1] + nth
            counted = 0 if boundary is None else boundary_versions[boundary[0]] + boundary[1]
            stored.append(Appended(_record(append, head_before, version), counted))
        return stored


def _agree(expected: list[int | None], at: int, version: int | None, nth: int) -> bool:
    """Note which version a stream must have before the batch; False when an earlier append expects another."""
    if version is None:
        return True
    before = version - nth + 1
    if expected[at] is None:
        expected[at] = before
    return expected[at] == before


def _record(append: Append, position: int, version: int | None) -> EventRecord:
    event = append.event
    return EventRecord(
        position,
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


async def _store_each(
    connection: Connection, lock_key: int, appends: Sequence[Append], columns: list[str], is_repeated: bool
) -> tuple[list[Outcome], int | None]:
    row = await connection.fetchrow(
        _APPEND_EACH,
        lock_key,
        *columns,
        [append.expected_version for append in appends],
        [append.boundary for append in appends],
        [append.expected_boundary_version for append in appends],
        [append.deletes for append in appends],
        [append.lease.lock_id if append.lease is not None else None for append in appends],
        [append.lease.token if append.lease is not None else None for append in appends],
    )
    position, kinds, numbers, boundary_versions, errors = row
    head = position + kinds.count(_STORED)
    known = {append.event.command_id for append, kind in zip(appends, kinds, strict=True) if kind == _KNOWN}
    found = await _outcomes(connection, list(known)) if known else {}
    answers: list[Outcome] = []
    for at, append in enumerate(appends):
        kind, number, counted = kinds[at], numbers[at], boundary_versions[at]
        if kind == _STORED:
            position += 1
            answers.append(Appended(_record(append, position, number), counted))
        elif kind == _KNOWN:
            answers.append(_answer_known(append, found[append.event.command_id], is_repeated))
        elif kind == _REFUSED:
            answers.append(refused(append.event.command_id, errors[at]))
        elif kind == _LEASE_LOST:
            answers.append(LeaseIsLost())
        elif kind == _DELETED:
            answers.append(Deleted(number))
        elif kind == _CONFLICT:
            answers.append(Conflict(number, counted))
    return answers, head


async def _outcomes(connection: Connection, command_ids: Sequence[str]) -> Mapping[str, Outcome]:
    try:
        return await outcomes(connection, command_ids)
    except asyncpg.PostgresError as error:
        if failures.is_lost(error):  # then the batch runs again
            raise
        return dict.fromkeys(command_ids, error)


def _answer_known(append: Append, known: Outcome, is_repeated: bool) -> Outcome:
    """Tell an append that its event is there already or, if it was stored by the first try of this one, that it is."""
    if not is_repeated or not isinstance(known, AlreadyStored) or known.record is None:
        return known
    if known.record.event_id != append.event.event_id:
        return known
    if append.boundary is None:
        return Appended(known.record)
    if append.expected_boundary_version is None:  # by how much it was counted is not known any more
        return known
    return Appended(known.record, append.expected_boundary_version + 1)
