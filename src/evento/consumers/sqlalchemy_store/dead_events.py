"""The rows of the dead event queue: reading, marking and removing them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Integer,
    Row,
    Select,
    and_,
    case,
    delete,
    func,
    insert,
    not_,
    or_,
    select,
    type_coerce,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from evento.consumers.port import ConsumerId, DeadEvent, DeadEventFilter
from evento.consumers.sqlalchemy_store.damage import AnyText, damaged
from evento.consumers.sqlalchemy_store.identity import fields_of, is_of
from evento.consumers.sqlalchemy_store.schema import dead_events
from evento.databases import database_now
from evento.errors import PayloadError

__all__ = [
    "acceptable",
    "count_dead_events",
    "discard_dead_events",
    "list_dead_events",
    "list_keys",
    "list_retryable",
    "mark_dead_events",
    "park",
    "put_back",
    "remove",
]

MAX_TEXT = 64 * 1024
"""Longer error messages and tracebacks are cut."""

d = dead_events.c


# Reading ---------------------------------------------------------------------------------------------------------


async def count_dead_events(connection: AsyncConnection, consumer: ConsumerId) -> tuple[int, int, int]:
    """Return how many events are dead, how many wait, and how many of both are to be handled again now."""
    counts = select(func.count(case((not_(d.waiting), 1))), func.count(case((d.waiting, 1))))
    dead, waiting = (await connection.execute(counts.where(is_of(dead_events, consumer)))).one()
    if not dead + waiting:
        return 0, 0, 0
    retrying = await connection.scalar(_retryable(consumer).with_only_columns(func.count()))
    return dead, waiting, retrying or 0


async def list_keys(connection: AsyncConnection, consumer: ConsumerId) -> frozenset[str]:
    """Return the keys that have events in the queue."""
    if connection.dialect.name != "postgresql":
        await _check_rows(connection, consumer)
    mine = and_(is_of(dead_events, consumer), d.held_key.is_not(None))
    query = select(d.held_key, func.min(d.position)).where(mine).group_by(d.held_key)
    keys: dict[str, int] = {row[0]: row[1] for row in await connection.execute(query)}
    for key, first in keys.items():
        if _shown(key) != key:
            raise _damaged(consumer, first, f"its key {key!r:.100} is no text, so nobody knows what waits behind it")
    return frozenset(keys)


async def _check_rows(connection: AsyncConnection, consumer: ConsumerId) -> None:
    """Raise for a row that is neither dead nor waiting, or is nowhere: it would hold its key back for ever, unseen."""
    waiting, retry = (type_coerce(flag, Integer) for flag in (d.waiting, d.retry))
    shown: list[ColumnElement[Any]] = [waiting, retry]
    wrong = or_(waiting.not_in((0, 1)), retry.not_in((0, 1)))
    if connection.dialect.name == "sqlite":
        wrong = or_(wrong, func.typeof(d.position) != "integer")
        shown = [type_coerce(flag, AnyText()) for flag in shown]  # whatever they are
    query = select(d.position, shown[0].label("waiting"), shown[1].label("retry")).where(
        is_of(dead_events, consumer), wrong
    )
    row = (await connection.execute(query.limit(1))).one_or_none()
    if row is not None:
        raise _damaged(
            consumer, row.position, f"position, waiting, retry are {row.position!r}, {row.waiting!r}, {row.retry!r}"
        )


def _damaged(consumer: ConsumerId, position: object, reason: str) -> PayloadError:
    if isinstance(position, int):
        mend = f"discard the event: evento consumers dead discard {consumer.component} {position}"
    else:
        mend = f"remove the row from {dead_events.name}, or restore the consumer state from a backup"
    return damaged(f"the row of the dead event at position {position!r:.100} of {consumer}", reason, mend)


async def list_dead_events(
    connection: AsyncConnection, consumer: ConsumerId, criteria: DeadEventFilter, *, after: int, limit: int
) -> list[DeadEvent]:
    """Return the events that match, with positions beyond ``after``."""
    query = select(dead_events).where(_matches(consumer, criteria), d.position > after)
    return [_event(row) for row in await connection.execute(query.order_by(d.position).limit(limit))]


async def list_retryable(
    connection: AsyncConnection, consumer: ConsumerId, *, after: int, limit: int
) -> list[DeadEvent]:
    """Return the events that are to be handled again now, with positions beyond ``after``."""
    query = _retryable(consumer).where(d.position > after)
    return [_event(row) for row in await connection.execute(query.order_by(d.position).limit(limit))]


def _retryable(consumer: ConsumerId) -> Select[Any]:
    # All rows of a key before its first unmarked dead event; usually that one is the first.
    blocked = (
        select(d.held_key, func.min(d.position).label("first"))
        .where(is_of(dead_events, consumer), not_(d.waiting), not_(d.retry), d.held_key.is_not(None))
        .group_by(d.held_key)
        .subquery()
    )
    return (
        select(dead_events)
        .outerjoin(blocked, d.held_key == blocked.c.held_key)
        .where(
            is_of(dead_events, consumer),
            or_(d.waiting, d.retry),
            or_(blocked.c.first.is_(None), d.position < blocked.c.first),
        )
    )


def _matches(consumer: ConsumerId, criteria: DeadEventFilter) -> ColumnElement[bool]:
    wanted: dict[Any, Any] = {
        d.position: criteria.position,
        d.held_key: criteria.key,
        d.event_name: criteria.event_name,
        d.error_type: criteria.error_type,
    }
    flags = {d.waiting: criteria.waiting, d.retry: criteria.retry}
    return and_(
        is_of(dead_events, consumer),
        *(column == value for column, value in wanted.items() if value is not None),
        *(column.is_(value) for column, value in flags.items() if value is not None),
    )


# Writing ---------------------------------------------------------------------------------------------------------


async def park(connection: AsyncConnection, consumer: ConsumerId, events: Sequence[DeadEvent]) -> None:
    """Put events into the queue; those that are in it already are put there anew."""
    await remove(connection, consumer, [event.position for event in events])
    await connection.execute(
        insert(dead_events).values(parked_at=database_now()), [_row(consumer, event) for event in events]
    )


async def remove(connection: AsyncConnection, consumer: ConsumerId, positions: Sequence[int]) -> None:
    """Take events out of the queue."""
    await connection.execute(delete(dead_events).where(is_of(dead_events, consumer), d.position.in_(positions)))


async def put_back(connection: AsyncConnection, consumer: ConsumerId, event: DeadEvent) -> None:
    """Write the error of a failed retry; nothing happens when the event is not in the queue any more."""
    await connection.execute(
        update(dead_events)
        .where(is_of(dead_events, consumer), d.position == event.position)
        .values(waiting=False, retry=False, attempts=event.attempts, parked_at=database_now(), **_error(event))
    )


async def mark_dead_events(
    connection: AsyncConnection, consumer: ConsumerId, criteria: DeadEventFilter, *, retry: bool
) -> int:
    """Mark the dead events that match, or take the mark off; return how many match."""
    matches = and_(_matches(consumer, criteria), not_(d.waiting))
    count = await connection.scalar(select(func.count()).select_from(dead_events).where(matches))
    await connection.execute(update(dead_events).where(matches).values(retry=retry))
    return count or 0


async def discard_dead_events(
    connection: AsyncConnection, consumer: ConsumerId, criteria: DeadEventFilter, *, limit: int
) -> list[DeadEvent]:
    """Remove the first events that match, and return them."""
    events = await list_dead_events(connection, consumer, criteria, after=0, limit=limit)
    if events:
        await remove(connection, consumer, [event.position for event in events])
    return events


# Rows ------------------------------------------------------------------------------------------------------------


def _row(consumer: ConsumerId, event: DeadEvent) -> dict[str, Any]:
    return {
        **fields_of(consumer),
        "position": event.position,
        "event_id": event.event_id,
        "event_name": event.event_name,
        "event_context": event.context,
        "aggregate_id": event.aggregate_id,
        "held_key": event.key,
        "waiting": event.waiting,
        "attempts": event.attempts,
        "retry": event.retry,
        **_error(event),
    }


def _error(event: DeadEvent) -> dict[str, Any]:
    return {
        "error_type": acceptable(event.error_type),
        "error_message": acceptable(event.error_message),
        "traceback": acceptable(event.traceback),
    }


def _event(row: Row[Any]) -> DeadEvent:
    if not isinstance(row.position, int):
        raise _damaged(ConsumerId(row.bundle, row.component, row.version, row.context), row.position, "it is nowhere")
    # The rest must not stand in the way of showing and discarding the event, whatever it is.
    return DeadEvent(
        position=row.position,
        event_id=_shown(row.event_id),
        event_name=_shown(row.event_name),
        context=_shown(row.event_context),
        aggregate_id=None if row.aggregate_id is None else _shown(row.aggregate_id),
        key=None if row.held_key is None else _shown(row.held_key),
        waiting=bool(row.waiting),
        error_type=_shown(row.error_type),
        error_message=_shown(row.error_message),
        traceback=_shown(row.traceback),
        attempts=row.attempts if isinstance(row.attempts, int) else 0,
        retry=bool(row.retry),
        parked_at=row.parked_at if isinstance(row.parked_at, int) else 0,
    )


def acceptable(text: str) -> str:
    """Return ``text`` as every database can keep it: no NUL, no lone surrogates, of bounded length."""
    if len(text) > MAX_TEXT:
        text = text[: MAX_TEXT // 2] + "\n...\n" + text[-MAX_TEXT // 2 :]
    return _shown(text.replace("\0", "\\0"))


def _shown(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
