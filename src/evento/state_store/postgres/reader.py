"""Reading stories, pages and search results. Every read is one statement, and so of one instant.

Every statement is a range of an index, whatever statistics say: ``position + 0`` can be looked up in the indexes by
name and by context only, and a condition that must not choose the index is written in a way that no index serves.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from evento.messages import EventRecord
from evento.state_store.port import EVENT_OVERHEAD, EventFilter, Found, Page, Snapshot, StoreInfo, Story
from evento.state_store.postgres.connections import Connection
from evento.state_store.postgres.records import records, selected, selected_with_deleted_at

__all__ = ["event", "fetch", "head", "info", "search", "story"]

_MAX_MERGED_NAMES = 50
_LOOK_AHEAD = 10
"""How many times its limit a filtering fetch looks ahead at most, so that one call is short whatever matches."""

_HEAD = "SELECT position FROM head ORDER BY position DESC LIMIT 1"
_EVENT = f"SELECT {selected_with_deleted_at('events')} FROM events WHERE position = $1"


def _up_to(rows: str, max_bytes: str, *, limit: str, order: str, columns: str) -> str:
    """Return a SELECT of those rows of ``events`` that come first by ``order``, up to ``max_bytes`` and one beyond.

    Their running size comes first, then ``columns`` of the table "sized". No more rows are looked at than such bytes
    can hold, and of those that are not returned, no text is read: its size stands in the row.
    """
    return f"""
    SELECT running, {columns} FROM (
      SELECT *, sum(size) OVER (ORDER BY {order} ROWS UNBOUNDED PRECEDING) AS running FROM (
        SELECT *, octet_length(payload) + octet_length(metadata) + {EVENT_OVERHEAD} AS size FROM ({rows}) AS wanted
        ORDER BY {order} LIMIT least({limit}, {max_bytes} / {EVENT_OVERHEAD} + 1)
      ) AS found
    ) AS sized WHERE running - size <= {max_bytes}
    """


# Its first row is about the aggregate, the others are its events.
_NO_EVENT = ", ".join(["NULL"] * 15)
_EVENTS_OF_STORY = """
SELECT * FROM events
WHERE aggregate_id = $1 AND version > coalesce(header.snapshot_version, $4) AND version <= header.stream_version
"""
_STORY = f"""
WITH header AS MATERIALIZED (
  SELECT s.version AS stream_version, s.deleted_at, b.boundary_version,
    p.version AS snapshot_version, convert_to(p.state, 'UTF8') AS state, p.updated_at,
    greatest($5::bigint - coalesce(octet_length(p.state), 0), -1) AS room
  FROM (SELECT) AS one
  LEFT JOIN streams AS s ON s.aggregate_id = $1
  LEFT JOIN streams AS b ON b.aggregate_id = $2
  LEFT JOIN snapshots AS p
    ON p.aggregate_id = $1 AND p.fingerprint = $3 AND p.version >= $4 AND s.aggregate_id IS NOT NULL
)
SELECT true AS is_header, header.*, {_NO_EVENT} FROM header
UNION ALL
SELECT false, NULL, NULL, NULL, NULL, NULL, NULL, NULL, e.* FROM header CROSS JOIN LATERAL (
  {_up_to(_EVENTS_OF_STORY, "header.room", limit="NULL", order="version", columns=selected("sized"))}
) AS e
"""
_HEADER_FIELDS = 8
_INFO = f"""
SELECT store_id, epoch, schema_version, position,
  position - (SELECT coalesce(sum(last - first + 1), 0) FROM purged_ranges)::bigint,
  (SELECT count(*) FROM streams WHERE version > 0),
  (SELECT count(*) FROM streams WHERE deleted_at IS NOT NULL),
  (SELECT count(*) FROM snapshots),
  (SELECT count(*) FROM purged_ranges),
  (SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::bigint FROM pg_class
     WHERE relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'events'::regclass) AND relkind = 'r')
FROM meta, ({_HEAD}) AS head
"""


async def head(connection: Connection) -> int:
    """Return the newest position."""
    return int(await connection.fetchval(_HEAD))


async def info(connection: Connection, location: str) -> StoreInfo:
    """Describe the store."""
    row = (*await connection.fetchrow(_INFO), location)
    return StoreInfo(*row)


async def event(connection: Connection, position: int) -> EventRecord | None:
    """Return the event at a position."""
    row = await connection.fetchrow(_EVENT, position)
    return None if row is None else EventRecord(*row)


async def story(
    connection: Connection,
    aggregate_id: str,
    boundary: str | None,
    fingerprint: str | None,
    after_version: int,
    max_bytes: int,
) -> Story:
    """Return snapshot and events of an aggregate."""
    rows = await connection.fetch(_STORY, aggregate_id, boundary, fingerprint, after_version, max(0, max_bytes))
    at = next(number for number, row in enumerate(rows) if row[0])
    header = rows.pop(at)[1:_HEADER_FIELDS]
    version, deleted_at, boundary_version, snapshot_version, state, updated_at, room = header
    snapshot = None
    if fingerprint is not None and snapshot_version is not None:
        snapshot = Snapshot(aggregate_id, snapshot_version, fingerprint, state, updated_at)
    _cut(rows, _HEADER_FIELDS, room, least=0 if snapshot else 1)
    events = records(row[_HEADER_FIELDS + 1 :] for row in rows)
    return Story(aggregate_id, version or 0, boundary_version or 0, deleted_at, snapshot, events)


async def fetch(
    connection: Connection,
    after: int,
    contexts: Sequence[str],
    names: Sequence[str] | None,
    limit: int,
    max_bytes: int,
) -> Page:
    """Return a page and the head of its instant."""
    everywhere = any(context and not context.strip("*") for context in contexts)
    patterns = None if everywhere else [_like(context) for context in contexts]
    wanted = None if names is None else list(dict.fromkeys(names))
    if limit < 1 or wanted == [] or patterns == []:
        newest = await head(connection)
        return Page((), after if limit < 1 else max(after, newest), newest)
    merging = wanted is not None and len(wanted) <= _MAX_MERGED_NAMES
    selective = patterns is not None or (wanted is not None and not merging)
    window = _LOOK_AHEAD * limit if selective else None
    max_bytes = max(0, max_bytes)  # at least one event, whatever is asked for
    arguments: list[Any] = [after, window, limit, max_bytes]
    if patterns is not None:
        arguments.append(patterns)
    if wanted is not None:
        arguments += wanted if merging else [wanted]
    sql = _fetch(len(wanted) if wanted is not None and merging else 0, wanted is not None, patterns is not None)
    rows = await connection.fetch(sql, *arguments)
    newest = rows[0][0]
    if after >= newest:
        return Page((), after, newest)
    until = newest if window is None else min(newest, after + window)
    if rows[0][2] is None:
        return Page((), until, newest)
    is_cut = _cut(rows, 1, max_bytes)
    if is_cut or len(rows) == limit:
        until = rows[-1][2]
    return Page([EventRecord(*row[2:]) for row in rows], until, newest)


def _cut(rows: list[Any], running: int, max_bytes: int, *, least: int = 1) -> bool:
    """Take off the row beyond ``max_bytes``, unless it is one of the ``least``, and say whether there was one."""
    is_cut = bool(rows) and rows[-1][running] > max_bytes
    if is_cut and len(rows) > least:
        rows.pop()
    return is_cut


@lru_cache(maxsize=256)
def _fetch(merged_names: int, with_names: bool, with_contexts: bool) -> str:
    """Return the statement of a page: $1 after, $2 how far it looks (null: to the head), $3 limit, $4 bytes.

    Then the patterns of contexts, if any, and the names: each on its own where their ranges are merged, else an array.
    """
    number = 5
    contexts = ""
    if with_contexts:
        contexts = 'AND (context COLLATE "POSIX") LIKE ANY ($5::text[])'
        number = 6
    until = "least(head.position, $1 + coalesce($2::bigint, head.position))"
    if merged_names:
        # One range of the name index for each name, merged by position as far as needed.
        order = "place"
        ranges = " UNION ALL ".join(
            f"(SELECT events.*, position + 0 AS place FROM events WHERE name = ${n} AND position + 0 > $1 "
            f"AND position + 0 <= {until} {contexts} ORDER BY position + 0)"
            for n in range(number, number + merged_names)
        )
    else:
        order = "position"
        names = f'AND (name COLLATE "POSIX") = ANY (${number}::text[])' if with_names else ""
        ranges = f"SELECT * FROM events WHERE position > $1 AND position <= {until} {names} {contexts}"
    page = _up_to(ranges, "$4::bigint", limit="$3::bigint", order=order, columns=selected("sized"))
    return f"SELECT head.position, page.* FROM ({_HEAD}) AS head LEFT JOIN LATERAL ({page}) AS page ON true"


def _like(pattern: str) -> str:
    # Only the star is a wildcard for us.
    escaped = pattern.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return escaped.replace("*", "%")


async def search(
    connection: Connection,
    criteria: EventFilter,
    after: int,
    before: int | None,
    limit: int,
    descending: bool,
    max_bytes: int,
) -> Found:
    """Return matching events, found by the index of the most selective condition."""
    limit, max_bytes = max(0, limit), max(0, max_bytes)
    sql, arguments = _search(criteria, after, before, limit, descending, max_bytes)
    rows = await connection.fetch(sql, *arguments)
    is_cut = _cut(rows, 0, max_bytes)
    return Found(records(row[1:] for row in rows), more=is_cut or 0 < len(rows) == limit)


def _search(
    criteria: EventFilter, after: int, before: int | None, limit: int, descending: bool, max_bytes: int
) -> tuple[str, list[Any]]:
    # The first condition that is given chooses the index, the others filter: "IS NOT DISTINCT FROM" is an equality that
    # no index serves; "timestamp + 0" and "position - 0" are in none.
    arguments: list[Any] = []

    def bound(value: Any) -> str:
        arguments.append(value)
        return f"${len(arguments)}"

    place, order = "position", "position"
    conditions: list[str] = []
    leading = next((name for name in ("aggregate_id", "name", "context") if getattr(criteria, name) is not None), None)
    for name in ("aggregate_id", "name", "context"):
        if (value := getattr(criteria, name)) is not None:
            equals = "=" if name == leading else "IS NOT DISTINCT FROM"
            conditions.append(f"events.{name} {equals} {bound(value)}")
    if leading is not None:
        place = order = "position + 0"
    elif criteria.since is not None or criteria.until is not None:
        place = order = "position - 0"
    if leading == "aggregate_id":
        order = "version"
    time = "timestamp" if leading is None else "timestamp + 0"
    if criteria.since is not None:
        conditions.append(f"{time} >= {bound(criteria.since)}")
    if criteria.until is not None:
        conditions.append(f"{time} < {bound(criteria.until)}")
    conditions.append(f"{place} > {bound(after)}")
    if before is not None:
        conditions.append(f"{place} < {bound(before)}")
    sql = _up_to(
        f"SELECT *, {order} AS place FROM events WHERE {' AND '.join(conditions)}",
        f"{bound(max_bytes)}::bigint",
        limit=f"{bound(limit)}::bigint",
        order=f"place {'DESC' if descending else 'ASC'}",
        columns=selected_with_deleted_at("sized"),
    )
    return sql, arguments
