"""Reading stories, pages and search results. Every statement here is a range of an index."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec

from evento.messages import EventRecord
from evento.state_store.port import EventFilter, Found, Page, Snapshot, StoreInfo, Story
from evento.state_store.sqlite.records import COLUMNS, COLUMNS_WITH_DELETED_AT, cut, records

__all__ = ["event", "fetch", "head", "info", "search", "story"]

_MAX_MERGED_NAMES = 50
_LOOK_AHEAD = 10
"""How many times its limit a filtering fetch looks ahead at most, so that one call is short whatever matches."""

_STREAMS = """
SELECT s.stream, s.version, s.deleted_at,
  (SELECT boundary_version FROM streams WHERE aggregate_id = ?2)
FROM (SELECT 1) LEFT JOIN streams AS s ON s.aggregate_id = ?1
"""
_SNAPSHOT = (
    "SELECT aggregate_id, version, fingerprint, CAST(state AS BLOB), updated_at "
    "FROM snapshots WHERE aggregate_id = ? AND fingerprint = ? AND version >= ?"
)
_INFO = """
SELECT store_id, epoch, schema_version, position,
  position - (SELECT coalesce(sum(last - first + 1), 0) FROM purged_ranges),
  (SELECT count(*) FROM streams WHERE version > 0),
  (SELECT count(*) FROM streams WHERE deleted_at IS NOT NULL),
  (SELECT count(*) FROM snapshots),
  (SELECT count(*) FROM purged_ranges),
  (SELECT page_count * page_size FROM pragma_page_count, pragma_page_size)
FROM meta, head
"""


def head(connection: sqlite3.Connection) -> int:
    """Return the newest position."""
    [position] = connection.execute("SELECT position FROM head").fetchone()
    return int(position)


def info(connection: sqlite3.Connection, location: str) -> StoreInfo:
    """Describe the store."""
    row = (*connection.execute(_INFO).fetchone(), location)
    return StoreInfo(*row)


def event(connection: sqlite3.Connection, position: int) -> EventRecord | None:
    """Return the event at a position."""
    found = records(connection, f"SELECT {COLUMNS_WITH_DELETED_AT} FROM events WHERE position = ?", (position,))
    return found[0] if found else None


def story(
    connection: sqlite3.Connection,
    aggregate_id: str,
    boundary: str | None,
    fingerprint: str | None,
    after_version: int,
    max_bytes: int,
) -> Story:
    """Return snapshot and events of an aggregate; inside a transaction, so that they are of one instant."""
    stream, version, deleted_at, boundary_version = connection.execute(_STREAMS, (aggregate_id, boundary)).fetchone()
    snapshot = None
    events: list[EventRecord] = []
    if stream is not None:
        if fingerprint is not None:
            row = connection.execute(_SNAPSHOT, (aggregate_id, fingerprint, after_version)).fetchone()
            if row:
                snapshot = Snapshot(*row)
                after_version = snapshot.version
                max_bytes -= len(snapshot.state)
        if after_version < version:
            events, _ = cut(
                connection,
                f"SELECT {COLUMNS} FROM events WHERE stream = ? AND version > ? ORDER BY version",
                (stream, after_version),
                max_bytes,
                least=0 if snapshot else 1,
            )
    return Story(aggregate_id, version or 0, boundary_version or 0, deleted_at, snapshot, events)


def fetch(
    connection: sqlite3.Connection,
    after: int,
    contexts: Sequence[str],
    names: Sequence[str] | None,
    limit: int,
    max_bytes: int,
) -> Page:
    """Return a page; inside a transaction, so that it fits its head."""
    newest = head(connection)
    if after >= newest or limit < 1:
        return Page((), after, newest)
    everywhere = any(context and not context.strip("*") for context in contexts)
    patterns = [] if everywhere else [_glob(context) for context in contexts]
    wanted = None if names is None else list(dict.fromkeys(names))
    if wanted == [] or not (everywhere or patterns):
        return Page((), newest, newest)
    merging = wanted is not None and len(wanted) <= _MAX_MERGED_NAMES
    if everywhere and (wanted is None or merging):
        until, window = newest, limit  # the index leads straight to what matches
    else:
        window = _LOOK_AHEAD * limit
        until = min(newest, after + window)
    ranges: list[Any] = [after, until]
    if wanted is not None and merging:
        ranges = [value for name in wanted for value in (name, after, until)]
        sql = _merge(len(wanted), len(patterns))
        ranges.append(window)
    else:
        sql = _scan(wanted is not None, len(patterns))
        if wanted is not None:
            ranges.append(msgspec.json.encode(wanted).decode())
    found, is_cut = cut(connection, sql, (*ranges, *patterns, limit), max_bytes)
    if is_cut or len(found) == limit:
        until = found[-1].position
    return Page(found, until, newest)


def _scan(with_names: bool, patterns: int) -> str:
    # The plus signs keep SQLite from using an index other than that of the position.
    names = "AND +name IN (SELECT value FROM json_each(?))" if with_names else ""
    return (
        f"SELECT {COLUMNS} FROM events WHERE position > ? AND position <= ? {names} {_in_contexts(patterns, 'AND')} "
        "ORDER BY position LIMIT ?"
    )


@lru_cache(maxsize=256)
def _merge(names: int, patterns: int) -> str:
    # One range of the name index for each name, merged by position as far as needed.
    one = "SELECT position FROM events INDEXED BY events_name WHERE name = ? AND position > ? AND position <= ?"
    ranges = " UNION ALL ".join([one] * names)
    return (
        f"SELECT {COLUMNS} FROM ({ranges} ORDER BY position LIMIT ?) AS wanted "
        f"CROSS JOIN events ON events.position = wanted.position {_in_contexts(patterns, 'WHERE')} LIMIT ?"
    )


def _in_contexts(patterns: int, keyword: str) -> str:
    return f"{keyword} ({' OR '.join(['+context GLOB ?'] * patterns)})" if patterns else ""


def _glob(pattern: str) -> str:
    # Only the star is a wildcard for us.
    return pattern.replace("[", "[[]").replace("?", "[?]")


def search(
    connection: sqlite3.Connection,
    criteria: EventFilter,
    after: int,
    before: int | None,
    limit: int,
    descending: bool,
    max_bytes: int,
) -> Found:
    """Return matching events, found by the index of the most selective condition."""
    conditions = ["events.position > ?"]
    parameters: list[Any] = [after]
    if before is not None:
        conditions.append("events.position < ?")
        parameters.append(before)
    plain = [
        ("stream = (SELECT stream FROM streams WHERE aggregate_id = ?)", "events_stream", criteria.aggregate_id),
        ("name = ?", "events_name", criteria.name),
        ("context = ?", "events_context", criteria.context),
        ("timestamp >= ?", "events_timestamp", criteria.since),
        ("timestamp < ?", "events_timestamp", criteria.until),
    ]
    given = [entry for entry in plain if entry[2] is not None]
    conditions += [condition for condition, _, _ in given]
    parameters += [value for _, _, value in given]
    index = f"INDEXED BY {given[0][1]}" if given else ""
    order = "version" if criteria.aggregate_id is not None else "events.position"
    found, is_cut = cut(
        connection,
        f"SELECT {COLUMNS_WITH_DELETED_AT} FROM events {index} WHERE {' AND '.join(conditions)} "
        f"ORDER BY {order} {'DESC' if descending else 'ASC'} LIMIT ?",
        (*parameters, max(0, limit)),
        max_bytes,
    )
    return Found(found, more=is_cut or 0 < len(found) == limit)
