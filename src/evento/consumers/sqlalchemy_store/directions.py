"""The rows that say what operators want of consumers."""

from __future__ import annotations

from sqlalchemy import and_, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from evento.consumers.port import ConsumerId, Directions
from evento.consumers.sqlalchemy_store.damage import integers
from evento.consumers.sqlalchemy_store.identity import fields_of, is_of
from evento.consumers.sqlalchemy_store.schema import consumers, directions

__all__ = ["list_directions", "note_request"]

_IDENTITY = ("bundle", "component", "version", "context")


async def list_directions(
    connection: AsyncConnection, *, bundle: str | None = None, consumer: ConsumerId | None = None
) -> dict[ConsumerId, Directions]:
    """Return the directions for the consumers of a bundle, or for one."""
    own = [directions.c[name] for name in _IDENTITY]
    same = and_(*(directions.c[name] == consumers.c[name] for name in _IDENTITY))
    query = select(*own, directions.c.revision, directions.c.paused, consumers.c.dead_streak).outerjoin(consumers, same)
    if bundle is not None:
        query = query.where(directions.c.bundle == bundle)
    if consumer is not None:
        query = query.where(is_of(directions, consumer))
    found: dict[ConsumerId, Directions] = {}
    for row in await connection.execute(query):
        whose = ConsumerId(row.bundle, row.component, row.version, row.context)
        what, mend = f"the row of {whose} in {directions.name}", "remove it: nobody has paused the consumer then"
        integers(what, mend, revision=row.revision)
        found[whose] = Directions(row.revision, bool(row.paused), row.dead_streak or 0)
    return found


async def note_request(connection: AsyncConnection, consumer: ConsumerId, *, paused: bool | None = None) -> None:
    """Let the revision rise, and set the pause where it is given: the last statement of a request."""
    values = {} if paused is None else {"paused": paused}
    d = directions.c
    risen = update(directions).where(is_of(directions, consumer)).values(revision=d.revision + 1, **values)
    if (await connection.execute(risen)).rowcount:
        return
    try:
        async with connection.begin_nested():
            first = insert(directions).values(**fields_of(consumer), revision=1, paused=bool(paused))
            await connection.execute(first)
    except IntegrityError:  # another request was first
        await connection.execute(risen)
