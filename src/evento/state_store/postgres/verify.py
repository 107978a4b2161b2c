"""Checking every invariant of a store by reading all of it, in one read-only transaction.

Each check yields a sentence for each thing that is wrong.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import asyncpg

from evento.state_store.port import VerifyReport
from evento.state_store.postgres.connections import Connection
from evento.state_store.rows import row_problems, state_problems

__all__ = ["verify"]

_LISTED_EACH = 25
_PAGE = 5000

_EXPECTED = {
    "table": "closed_commands events head locks meta purged_ranges snapshots streams",
    "index": "closed_commands_expiry closed_commands_pkey events_command events_context events_name events_pkey "
    "events_stream events_timestamp head_pkey locks_pkey meta_pkey purged_ranges_last_key purged_ranges_pkey "
    "snapshots_pkey streams_pkey streams_to_purge",
    "sequence": "lock_tokens snapshots_written",
}
_KINDS = {"r": "table", "i": "index", "S": "sequence"}
# The registry and the consumers may keep their tables beside the store's: they do when a user has the schema's name.
_OBJECTS = """
SELECT c.relname::text, c.relkind::text, coalesce(i.indisvalid, true)
FROM pg_class AS c LEFT JOIN pg_index AS i ON i.indexrelid = c.oid
JOIN pg_class AS t ON t.oid = coalesce(i.indrelid, c.oid)
WHERE c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'events'::regclass)
  AND c.relkind IN ('r', 'i', 'S') AND t.relname !~ '^evento_(registry|consumer)'
"""
_EVENTS = """
SELECT position, kind, convert_to(payload, 'UTF8'), convert_to(metadata, 'UTF8') FROM events ORDER BY position
"""
# Versions 1, 2, 3 ... in the order of positions; a purge takes the first ones.
_BROKEN_VERSIONS = """
SELECT e.aggregate_id, e.version, position, former_version, former_position FROM (
  SELECT aggregate_id, version, position,
    lag(version, 1, 0::bigint) OVER versions AS former_version,
    lag(position, 1, 0::bigint) OVER versions AS former_position
  FROM events WHERE aggregate_id IS NOT NULL WINDOW versions AS (PARTITION BY aggregate_id ORDER BY version)
) AS e LEFT JOIN streams AS s USING (aggregate_id)
WHERE position <= former_position
   OR (e.version <> former_version + 1 AND (former_version > 0 OR s.deleted_at IS NULL))
ORDER BY position
"""
_BROKEN_STREAMS = """
SELECT coalesce(s.aggregate_id, e.aggregate_id), coalesce(s.version, 0), coalesce(e.newest, 0)
FROM streams AS s FULL JOIN
  (SELECT aggregate_id, max(version) AS newest FROM events WHERE aggregate_id IS NOT NULL GROUP BY aggregate_id) AS e
  ON e.aggregate_id = s.aggregate_id
WHERE coalesce(s.version, 0) <> coalesce(e.newest, 0)
"""
_STRAYS = "SELECT position FROM events WHERE (aggregate_id IS NULL) <> (version IS NULL)"
_DELETIONS = """
SELECT s.aggregate_id, s.deleted_at, e.timestamp
FROM streams AS s JOIN events AS e ON e.aggregate_id = s.aggregate_id AND e.version = s.version
WHERE s.deleted_at IS NOT NULL AND s.deleted_at <> e.timestamp
"""
_DUPLICATES = "SELECT command_id, count(*) FROM events GROUP BY command_id HAVING count(*) > 1"
_BOTH = "SELECT command_id FROM closed_commands AS c JOIN events USING (command_id) WHERE c.error IS NULL"
_PURGED = """
SELECT (SELECT count(*) FROM closed_commands WHERE error IS NULL),
  (SELECT coalesce(sum(last - first + 1), 0)::bigint FROM purged_ranges)
"""
_BOUNDARIES = """
SELECT coalesce(sum(boundary_version), 0)::bigint, coalesce(min(boundary_version), 0), (SELECT max(position) FROM head)
FROM streams
"""
_TOKENS = "SELECT (SELECT last_value FROM lock_tokens), (SELECT max(token) FROM locks)"
_SNAPSHOTS = """
SELECT p.aggregate_id, p.fingerprint, p.version, convert_to(p.state, 'UTF8'), s.version
FROM snapshots AS p LEFT JOIN streams AS s ON s.aggregate_id = p.aggregate_id
"""


async def verify(connection: Connection, progress: Callable[[int, int], None] | None) -> VerifyReport:
    """Check everything, as of one instant."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        check = _Verification(connection, progress or (lambda read, head: None))
        await check.run()
    return VerifyReport(check.events, check.aggregates, tuple(check.problems))


class _Verification:
    def __init__(self, connection: Connection, progress: Callable[[int, int], None]) -> None:
        self._connection = connection
        self._progress = progress
        self.problems: list[str] = []
        self.events = 0
        self.aggregates = 0

    async def run(self) -> None:
        checks: Mapping[str, AsyncIterator[str]] = {
            "schema": self._schema(),
            "events": self._events(),
            "versions": self._versions(),
            "deletions": self._deletions(),
            "command ids": self._command_ids(),
            "boundaries": self._boundaries(),
            "tokens": self._tokens(),
            "snapshots": self._snapshots(),
        }
        for name, problems in checks.items():
            await self._collect(name, problems)

    async def _collect(self, name: str, problems: AsyncIterator[str]) -> None:
        found = 0
        try:
            async with self._connection.transaction():  # a savepoint: the other checks go on after a failure
                async for problem in problems:
                    found += 1
                    if found <= _LISTED_EACH:
                        self.problems.append(problem)
        except (asyncpg.DataError, asyncpg.InternalServerError, asyncpg.SyntaxOrAccessError) as error:
            self.problems.append(f"the database is damaged: checking its {name} failed: {error}")
        if found > _LISTED_EACH:
            self.problems.append(f"and {found - _LISTED_EACH} more like the one before")

    def _rows(self, sql: str) -> Any:
        return self._connection.cursor(sql, prefetch=_PAGE)

    async def _schema(self) -> AsyncIterator[str]:
        expected = {(kind, name) for kind, names in _EXPECTED.items() for name in names.split()}
        found = set()
        async for name, kind, is_valid in self._rows(_OBJECTS):
            found.add((_KINDS[kind], name))
            if not is_valid:
                yield f"the index {name} is not valid: make it anew (REINDEX)"
        for kind, name in sorted(expected ^ found):
            lacks = (kind, name) in expected
            yield f"the schema lacks the {kind} {name}" if lacks else f"the {kind} {name} of the schema is not Evento's"

    async def _events(self) -> AsyncIterator[str]:
        """Every row readable, and no positions missing but the purged ranges."""
        [[head, heads]] = await self._connection.fetch("SELECT coalesce(max(position), 0), count(*) FROM head")
        if heads != 1:
            yield f"there are {heads} heads, but there is one"
        gaps = set()
        last = 0
        async for position, kind, payload, metadata in self._rows(_EVENTS):
            if position != last + 1:
                gaps.add((last + 1, position - 1))
            last = position
            for problem in row_problems(position, kind, payload, metadata):
                yield problem
            self.events += 1
            if self.events % _PAGE == 0:
                self._progress(self.events, head)
        self._progress(self.events, head)
        purged = {tuple(row) for row in await self._connection.fetch("SELECT first, last FROM purged_ranges")}
        for first, end in sorted(gaps - purged):
            yield f"positions {first} to {end} have no events, but are not a purged range"
        for first, end in sorted(purged - gaps):
            yield f"the purged range {first} to {end} is not the gap that it should be"
        if last != head:
            yield f"the head is {head}, but the newest event is at {last}"

    async def _versions(self) -> AsyncIterator[str]:
        """Versions up to the stream row's, and every event in a stream."""
        self.aggregates = await self._connection.fetchval("SELECT count(*) FROM streams WHERE version > 0")
        async for name, version, position, former, former_position in self._rows(_BROKEN_VERSIONS):
            if version != former + 1:
                yield f"aggregate {name} has version {version} after {former}"
            if position <= former_position:
                yield f"version {version} of aggregate {name} is at position {position}, before its predecessor"
        async for name, version, newest in self._rows(_BROKEN_STREAMS):
            yield f"the stream row of aggregate {name} has version {version}, but its newest event {newest}"
        async for (position,) in self._rows(_STRAYS):
            yield f"event {position} has a version without an aggregate, or an aggregate without a version"

    async def _deletions(self) -> AsyncIterator[str]:
        """The newest event of a deleted aggregate is the one that deleted it."""
        async for name, deleted_at, timestamp in self._rows(_DELETIONS):
            yield f"aggregate {name} was deleted at {deleted_at}, but its newest event is of {timestamp}"

    async def _command_ids(self) -> AsyncIterator[str]:
        """One command id, one event, purged or not."""
        async for command_id, times in self._rows(_DUPLICATES):
            yield f"command id {command_id} has {times} events"
        async for (command_id,) in self._rows(_BOTH):
            yield f"command id {command_id} has an event and is noted as purged"
        [[noted, removed]] = await self._connection.fetch(_PURGED)
        if noted != removed:
            yield f"{noted} command ids are noted as purged, but the purged ranges are of {removed} events"

    async def _boundaries(self) -> AsyncIterator[str]:
        """Boundary versions count appends, each of which counts at one boundary at most."""
        [[counted, lowest, head]] = await self._connection.fetch(_BOUNDARIES)
        if lowest < 0:
            yield f"a boundary version is {lowest}"
        if counted > head:
            yield f"the boundary versions count {counted} appends, but there were {head}"

    async def _tokens(self) -> AsyncIterator[str]:
        """The counter of fencing tokens is never behind a token."""
        [[counter, newest]] = await self._connection.fetch(_TOKENS)
        if newest is not None and newest > counter:
            yield f"the newest fencing token is {newest}, but they are counted up to {counter}"

    async def _snapshots(self) -> AsyncIterator[str]:
        """Snapshots are JSON, of versions that exist."""
        async for name, fingerprint, version, state, newest in self._rows(_SNAPSHOTS):
            if newest is None or version > newest:
                yield f"snapshot {fingerprint} of aggregate {name} is of version {version}, beyond {newest or 0}"
            for problem in state_problems(name, fingerprint, state):
                yield problem
