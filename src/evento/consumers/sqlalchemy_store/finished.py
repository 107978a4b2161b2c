"""The rows of finished events: what an observer has handled beyond its checkpoint."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import bindparam, delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from evento.consumers.port import ConsumerId
from evento.consumers.sqlalchemy_store.damage import integers
from evento.consumers.sqlalchemy_store.identity import fields_of, is_of
from evento.consumers.sqlalchemy_store.schema import finished_events

__all__ = ["finished_positions", "write_finished"]

_position = finished_events.c.position


async def finished_positions(connection: AsyncConnection, consumer: ConsumerId) -> frozenset[int]:
    """Return the remembered positions."""
    positions = frozenset(await connection.scalars(select(_position).where(is_of(finished_events, consumer))))
    for position in positions:
        row, mend = f"a row of {consumer} in {finished_events.name}", "remove it: its event may be handled again"
        integers(row, mend, position=position)
    return positions


async def write_finished(
    connection: AsyncConnection, consumer: ConsumerId, checkpoint: int, positions: Collection[int]
) -> None:
    """Remember positions, and forget those that the checkpoint has passed."""
    mine = is_of(finished_events, consumer)
    await connection.execute(delete(finished_events).where(mine, _position <= checkpoint))
    if positions:
        # A commit whose answer got lost is made again.
        again = delete(finished_events).where(mine, _position == bindparam("again"))
        await connection.execute(again, [{"again": position} for position in positions])
        whose = fields_of(consumer)
        await connection.execute(insert(finished_events), [{**whose, "position": position} for position in positions])
