"""Checking every invariant of a store by reading all of it, in one read transaction.

Each check yields a sentence for each thing that is wrong. A file so damaged that a check cannot run is a problem of
its own, and the other checks still run.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import groupby
from operator import itemgetter

from evento.state_store.port import VerifyReport
from evento.state_store.rows import row_problems, state_problems
from evento.state_store.sqlite import schema

__all__ = ["Ended", "verify"]

_LISTED_EACH = 25
_PROGRESS_EVERY = 5000

_EVENTS = """
SELECT position, kind, CAST(payload AS BLOB), CAST(metadata AS BLOB) FROM events ORDER BY position
"""
_VERSIONS = """
SELECT s.stream, s.aggregate_id, s.version, s.deleted_at, e.version, e.position
FROM streams AS s LEFT JOIN events AS e ON e.stream = s.stream ORDER BY s.stream, e.version
"""
_STRAYS = """
SELECT e.position, e.aggregate_id FROM events AS e LEFT JOIN streams AS s ON s.stream = e.stream
WHERE e.aggregate_id IS NOT s.aggregate_id OR (e.stream IS NULL) <> (e.version IS NULL)
   OR (e.stream IS NULL) <> (s.stream IS NULL)
"""
_DELETIONS = """
SELECT s.aggregate_id, s.deleted_at, e.timestamp
FROM streams AS s JOIN events AS e ON e.stream = s.stream AND e.version = s.version
WHERE s.deleted_at IS NOT NULL AND s.deleted_at <> e.timestamp
"""
_DUPLICATES = "SELECT command_id, count(*) FROM events GROUP BY command_id HAVING count(*) > 1"
_BOTH = "SELECT command_id FROM purged_commands JOIN events USING (command_id)"
_PURGED = """
SELECT (SELECT count(*) FROM purged_commands), (SELECT coalesce(sum(last - first + 1), 0) FROM purged_ranges)
"""
_SNAPSHOTS = """
SELECT p.aggregate_id, p.fingerprint, p.version, CAST(p.state AS BLOB), s.version
FROM snapshots AS p LEFT JOIN streams AS s ON s.aggregate_id = p.aggregate_id
"""


class Ended(Exception):
    """Raised by a progress callback: nobody waits for the report any more."""


def verify(connection: sqlite3.Connection, progress: Callable[[int, int], None]) -> VerifyReport:
    """Check everything; inside a transaction, so that it is one instant. ``progress`` may raise to end it."""
    check = _Verification(connection, progress)
    return VerifyReport(check.events, check.aggregates, tuple(check.problems))


class _Verification:
    def __init__(self, connection: sqlite3.Connection, progress: Callable[[int, int], None]) -> None:
        self._connection = connection
        self._progress = progress
        self.problems: list[str] = []
        self.events = 0
        self.aggregates = 0
        checks = [
            self._schema,
            self._events,
            self._counters,
            self._versions,
            self._streams,
            self._deletions,
            self._command_ids,
            self._boundaries,
            self._snapshots,
            self._file,
        ]
        for check in checks:
            self._run(check)

    def _run(self, check: Callable[[], Iterator[str]]) -> None:
        found = 0
        try:
            for found, problem in enumerate(check(), 1):
                if found <= _LISTED_EACH:
                    self.problems.append(problem)
        except sqlite3.DatabaseError as error:
            self.problems.append(f"the file is damaged: checking its {check.__name__[1:]} failed: {error}")
        if found > _LISTED_EACH:
            self.problems.append(f"and {found - _LISTED_EACH} more like the one before")

    def _schema(self) -> Iterator[str]:
        with closing(sqlite3.connect(":memory:", isolation_level=None)) as fresh:
            schema.migrate(fresh, "a new store")
            expected = _objects(fresh)
        found = _objects(self._connection)
        for name in sorted(expected.keys() | found.keys()):
            if name not in found:
                yield f"the schema lacks {name}"
            elif name not in expected:
                yield f"the schema has {name}, which is not Evento's"
            elif expected[name] != found[name]:
                yield f"the schema has another {name} than Evento made"

    def _events(self) -> Iterator[str]:
        """Every row readable, and no positions missing but the purged ranges."""
        [head] = self._connection.execute("SELECT position FROM head").fetchone()
        gaps = set()
        last = 0
        for position, kind, payload, metadata in self._connection.execute(_EVENTS):
            if position != last + 1:
                gaps.add((last + 1, position - 1))
            last = position
            yield from row_problems(position, kind, payload, metadata)
            self.events += 1
            if self.events % _PROGRESS_EVERY == 0:
                self._progress(self.events, head)
        self._progress(self.events, head)
        purged = set(self._connection.execute("SELECT first, last FROM purged_ranges").fetchall())
        for first, end in sorted(gaps - purged):
            yield f"positions {first} to {end} have no events, but are not a purged range"
        for first, end in sorted(purged - gaps):
            yield f"the purged range {first} to {end} is not the gap that it should be"
        if last != head:
            yield f"the head is {head}, but the newest event is at {last}"

    def _counters(self) -> Iterator[str]:
        """What the head row counts is never behind what was counted."""
        for name, used in (("stream", "max(stream) FROM streams"), ("token", "max(token) FROM locks")):
            [counter, newest] = self._connection.execute(f"SELECT {name}, (SELECT {used}) FROM head").fetchone()
            if newest is not None and newest > counter:
                yield f"the head row counts {counter} as the newest {name}, but there is {newest}"

    def _versions(self) -> Iterator[str]:
        """Versions 1, 2, 3 ... up to the stream row's, in the order of positions; a purge takes the first ones."""
        rows = self._connection.execute(_VERSIONS)
        for (name, newest, deleted_at), events in groupby(rows, key=itemgetter(1, 2, 3)):
            self.aggregates += newest > 0
            last_version = last_position = 0
            for *_, version, position in events:
                if version is None:  # a stream without events
                    continue
                if version != last_version + 1 and (last_version or deleted_at is None):
                    yield f"aggregate {name} has version {version} after {last_version}"
                if position <= last_position:
                    yield f"version {version} of aggregate {name} is at position {position}, before its predecessor"
                last_version, last_position = version, position
            if last_version != newest:
                yield f"the stream row of aggregate {name} has version {newest}, but its newest event {last_version}"

    def _streams(self) -> Iterator[str]:
        """Every event belongs to the stream of its aggregate."""
        for position, aggregate_id in self._connection.execute(_STRAYS):
            yield f"event {position} of aggregate {aggregate_id} is not in that aggregate's stream"

    def _deletions(self) -> Iterator[str]:
        """The newest event of a deleted aggregate is the one that deleted it."""
        for name, deleted_at, timestamp in self._connection.execute(_DELETIONS):
            yield f"aggregate {name} was deleted at {deleted_at}, but its newest event is of {timestamp}"

    def _command_ids(self) -> Iterator[str]:
        """One command id, one event, purged or not."""
        for command_id, times in self._connection.execute(_DUPLICATES):
            yield f"command id {command_id} has {times} events"
        for (command_id,) in self._connection.execute(_BOTH):
            yield f"command id {command_id} has an event and is noted as purged"
        [noted, removed] = self._connection.execute(_PURGED).fetchone()
        if noted != removed:
            yield f"{noted} command ids are noted as purged, but the purged ranges are of {removed} events"

    def _boundaries(self) -> Iterator[str]:
        """Boundary versions count appends, each of which counts at one boundary at most."""
        [counted, lowest, head] = self._connection.execute(
            "SELECT coalesce(sum(boundary_version), 0), coalesce(min(boundary_version), 0), "
            "(SELECT position FROM head) FROM streams"
        ).fetchone()
        if lowest < 0:
            yield f"a boundary version is {lowest}"
        if counted > head:
            yield f"the boundary versions count {counted} appends, but there were {head}"

    def _snapshots(self) -> Iterator[str]:
        """Snapshots are JSON, of versions that exist."""
        for name, fingerprint, version, state, newest in self._connection.execute(_SNAPSHOTS):
            if newest is None or version > newest:
                yield f"snapshot {fingerprint} of aggregate {name} is of version {version}, beyond {newest or 0}"
            yield from state_problems(name, fingerprint, state)

    def _file(self) -> Iterator[str]:
        """What SQLite itself finds."""
        for (finding,) in self._connection.execute("PRAGMA integrity_check"):
            if finding != "ok":
                yield f"SQLite finds the file damaged: {finding}"


def _objects(connection: sqlite3.Connection) -> dict[str, str]:
    """The tables and indexes with the SQL that made them; not those that SQLite makes for itself."""
    rows = connection.execute(
        "SELECT type || ' ' || name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite~_%' ESCAPE '~'"
    )
    return dict(rows.fetchall())
