"""A projector, a saga and an observer that show in their databases when anything happens twice, or never."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cluster_site import Site
from seven_roles import GiftSaga, SightingObserver
from shop import ItemAddedEvent, OrderCancelledEvent, OrderPlacedEvent, PaymentCapturedEvent
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from evento import EventMessage, Projector, event_handler

__all__ = ["WATCHERS", "make_rows", "rows"]

_INSERT = text("INSERT INTO seen_rows VALUES (:position, :name)")


class RowProjector(Projector, version=1):
    """Exactly once: a row for each event, in a table without a key."""

    async def _see(self, message: EventMessage[Any], connection: AsyncConnection) -> None:
        await connection.execute(_INSERT, {"position": message.position, "name": message.name})

    @event_handler
    async def on_placed(self, event: OrderPlacedEvent, message: EventMessage[Any], connection: AsyncConnection) -> None:
        await self._see(message, connection)

    @event_handler
    async def on_added(self, event: ItemAddedEvent, message: EventMessage[Any], connection: AsyncConnection) -> None:
        await self._see(message, connection)

    @event_handler
    async def on_paid(
        self, event: PaymentCapturedEvent, message: EventMessage[Any], connection: AsyncConnection
    ) -> None:
        await self._see(message, connection)

    @event_handler
    async def on_cancelled(
        self, event: OrderCancelledEvent, message: EventMessage[Any], connection: AsyncConnection
    ) -> None:
        await self._see(message, connection)


WATCHERS = (RowProjector, GiftSaga, SightingObserver)


async def make_rows(site: Site) -> None:
    """Make the table of the projector."""
    engine = create_async_engine(site.consumers)
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE seen_rows (position BIGINT, name TEXT)"))
    await engine.dispose()


async def rows(site: Site) -> Sequence[tuple[int, str]]:
    """Return the rows of the projector, in the order of positions."""
    engine = create_async_engine(site.consumers)
    async with engine.connect() as connection:
        found = await connection.execute(text("SELECT position, name FROM seen_rows ORDER BY position"))
        result = [(int(row.position), str(row.name)) for row in found]
    await engine.dispose()
    return result
