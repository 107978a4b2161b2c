"""The shop on databases: snapshots, and two read models that outlive their process. It is what tests/chaos kills."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import msgspec
from shop import (
    ItemAddCommand,
    ItemAddedEvent,
    Ledger,
    OrderAggregate,
    OrderCancelledEvent,
    OrderPlacedEvent,
    OrderState,
    PaymentCapturedEvent,
    PaymentService,
)
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from evento import EventMessage, EventoBundle, Interceptor, Projector, aggregate_command_handler, event_handler
from evento.components import HandlerCall, HandlerKind


class KeptOrderAggregate(OrderAggregate, snapshot_frequency=4):
    """Orders with snapshots, whose events tell on which state they were decided."""

    @aggregate_command_handler
    async def add(self, command: ItemAddCommand, state: OrderState) -> ItemAddedEvent:
        event = await super().add(command, state)
        return msgspec.structs.replace(event, sku=decided_on(state.total))


def decided_on(total: int) -> str:
    """Return what the event of an addition says when the order had this many items before."""
    return f"behind {total}"


class Diary:
    """The database of the at-least-once read model: one row for each event, whatever happens to its delivery."""

    def __init__(self, directory: Path, version: int) -> None:
        self._path = directory / "diary.db"
        self._table = f"diary_{version}"
        self._connection: sqlite3.Connection | None = None

    def write(self, position: int, name: str, key: str, amount: int) -> None:
        """Keep one event; writing it again changes nothing."""
        if self._connection is None:
            self._connection = sqlite3.connect(self._path, isolation_level=None)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = OFF")
        self._connection.execute(
            f"INSERT OR REPLACE INTO {self._table} VALUES (?, ?, ?, ?)", (position, name, key, amount)
        )

    def close(self) -> None:
        """Close the database."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class _Before(Interceptor):
    kinds = frozenset({HandlerKind.COMMAND})

    def __init__(self, wait: Callable[[str], Awaitable[None]]) -> None:
        self._wait = wait

    async def before(self, call: HandlerCall) -> None:
        await self._wait(call.message.message_id)


def components(version: int, diary: Diary) -> list[type]:
    """Return the components, with projectors of a version: each version has tables of its own."""
    orders, payments = f"orders_{version}", f"payments_{version}"

    class TableProjector(Projector, version=version):
        """Exactly once: its statements are not idempotent, so an event too many or too few shows."""

        @event_handler
        async def on_placed(self, event: OrderPlacedEvent, connection: AsyncConnection) -> None:
            await connection.execute(
                text(f"INSERT INTO {orders} VALUES (:id, :customer, 0, 1, 0)"),
                {"id": event.order_id, "customer": event.customer},
            )

        @event_handler
        async def on_added(self, event: ItemAddedEvent, connection: AsyncConnection) -> None:
            await connection.execute(
                text(f"UPDATE {orders} SET total = total + :quantity, events = events + 1 WHERE id = :id"),
                {"id": event.order_id, "quantity": event.quantity},
            )

        @event_handler
        async def on_cancelled(self, event: OrderCancelledEvent, connection: AsyncConnection) -> None:
            await connection.execute(
                text(f"UPDATE {orders} SET cancelled = cancelled + 1, events = events + 1 WHERE id = :id"),
                {"id": event.order_id},
            )

        @event_handler
        async def on_captured(self, event: PaymentCapturedEvent, connection: AsyncConnection) -> None:
            await connection.execute(
                text(
                    f"INSERT INTO {payments} VALUES (:id, 1, :amount) "
                    "ON CONFLICT (id) DO UPDATE SET payments = payments + 1, amount = amount + :amount"
                ),
                {"id": event.order_id, "amount": event.amount},
            )

    class DiaryProjector(Projector, version=version):
        """At least once, and idempotent."""

        @event_handler
        def on_placed(self, event: OrderPlacedEvent, message: EventMessage[Any]) -> None:
            diary.write(message.position, message.name, event.order_id, 0)

        @event_handler
        def on_added(self, event: ItemAddedEvent, message: EventMessage[Any]) -> None:
            diary.write(message.position, message.name, event.order_id, event.quantity)

        @event_handler
        def on_cancelled(self, event: OrderCancelledEvent, message: EventMessage[Any]) -> None:
            diary.write(message.position, message.name, event.order_id, 0)

        @event_handler
        def on_captured(self, event: PaymentCapturedEvent, message: EventMessage[Any]) -> None:
            diary.write(message.position, message.name, event.order_id, event.amount)

    return [KeptOrderAggregate, PaymentService, TableProjector, DiaryProjector]


def event_store(directory: Path) -> Path:
    """Return the path of the event store."""
    return directory / "shop.db"


def _make_tables(directory: Path, version: int) -> None:
    """Make the tables that the read models of a version need, where they are missing."""
    with closing(sqlite3.connect(directory / "read.db")) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute(
            f"CREATE TABLE IF NOT EXISTS orders_{version} "
            "(id TEXT PRIMARY KEY, customer TEXT, total INTEGER, events INTEGER, cancelled INTEGER)"
        )
        database.execute(
            f"CREATE TABLE IF NOT EXISTS payments_{version} (id TEXT PRIMARY KEY, payments INTEGER, amount INTEGER)"
        )
    with closing(sqlite3.connect(directory / "diary.db")) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute(
            f"CREATE TABLE IF NOT EXISTS diary_{version} "
            "(position INTEGER PRIMARY KEY, name TEXT, id TEXT, amount INTEGER)"
        )


def read_models(directory: Path, version: int) -> dict[str, list[Any]]:
    """Return the rows of the read models of a version."""
    with closing(sqlite3.connect(directory / "read.db")) as database:
        found = {
            "orders": database.execute(f"SELECT * FROM orders_{version} ORDER BY id").fetchall(),
            "payments": database.execute(f"SELECT * FROM payments_{version} ORDER BY id").fetchall(),
        }
    with closing(sqlite3.connect(directory / "diary.db")) as database:
        found["diary"] = database.execute(f"SELECT * FROM diary_{version} ORDER BY position").fetchall()
    return found


@asynccontextmanager
async def running(
    directory: Path, version: int, *, on_payment: Callable[[str], Awaitable[None]] | None = None
) -> AsyncIterator[EventoBundle]:
    """Run the bundle on the files of a directory, with the projectors of a version.

    :param on_payment: what the payment service awaits while it holds the lock of an order.
    """
    _make_tables(directory, version)
    diary = Diary(directory, version)
    bundle = EventoBundle(
        "depot",
        components=components(version, diary),
        server=f"embedded:{event_store(directory)}",
        consumer_state_store=f"sqlite+aiosqlite:///{directory / 'read.db'}",
        injector={Ledger: Ledger()},
        interceptors=[] if on_payment is None else [_Before(on_payment)],
    )
    try:
        async with bundle:
            yield bundle
    finally:
        diary.close()
