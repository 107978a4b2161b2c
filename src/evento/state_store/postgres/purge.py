"""Removing the events of deleted aggregates, a bounded step with each statement.

What stays: the stream's row and its deleting event, so that the aggregate stays deleted; the command ids, so that
nothing is stored twice; and the removed positions as ranges, so that the gaps are known ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from evento.state_store.postgres.connections import Connection

__all__ = ["Cursor", "Step", "amount", "step"]

_EVENTS_A_STEP = 500
_STREAMS_A_STEP = 100

_AMOUNT = """
SELECT coalesce(sum(version - 1), 0)::bigint FROM streams
WHERE deleted_at < $1 AND deleted_at IS NOT NULL AND NOT purged
"""
_STEP = f"SELECT * FROM purge_step($1, $2, $3, {_STREAMS_A_STEP}, {_EVENTS_A_STEP}, $4, $5, $6)"


class Cursor(NamedTuple):
    """How far a purge has come: streams by the time of their deletion; ``version`` None when the stream is done."""

    deleted_at: int = -(2**63)
    aggregate_id: str = ""
    version: int | None = None


class Step(NamedTuple):
    """What one step found (and removed): where the next one starts, None at the end."""

    next: Cursor | None
    aggregates: int
    positions: Sequence[int]


async def amount(connection: Connection, deleted_before: int) -> int:
    """Return about how many events there are to remove."""
    return int(await connection.fetchval(_AMOUNT, deleted_before))


async def step(connection: Connection, lock_key: int, *, deleted_before: int, cursor: Cursor, remove: bool) -> Step:
    """Go on from ``cursor`` for a bounded number of streams and events; only look unless ``remove``."""
    row = await connection.fetchrow(_STEP, lock_key, deleted_before, remove, *cursor)
    deleted_at, aggregate_id, version, aggregates, positions = row
    return Step(None if deleted_at is None else Cursor(deleted_at, aggregate_id, version), aggregates, positions)
