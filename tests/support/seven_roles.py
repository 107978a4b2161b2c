"""The depot with a component of each role. Run as a program, it places orders until it is killed."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import msgspec
from depot import Diary, _make_tables, components, event_store
from shop import (
    ItemAddCommand,
    ItemAddedEvent,
    Ledger,
    OrderCancelCommand,
    OrderCancelledEvent,
    OrderFindQuery,
    OrderPlaceCommand,
    OrderPlacedEvent,
    OrderView,
    PaymentCaptureCommand,
    PaymentCapturedEvent,
)

from evento import (
    CommandGateway,
    EventMessage,
    EventoBundle,
    Invoker,
    NotFound,
    Observer,
    Projection,
    Saga,
    SagaState,
    event_handler,
    invocation_handler,
    query_handler,
    saga_event_handler,
)
from evento.consumers import ConsumerId, SqlConsumerStateStore

SAGA = ConsumerId("seven", "GiftSaga", 1, "*")
READY = b"ready\n"


class GiftState(SagaState):
    steps: list[str] = []
    paid: int = 0


class GiftSaga(Saga[GiftState], version=1):
    """Adds two gifts to an order, captures the payment, cancels every third order; the others stay for ever."""

    @saga_event_handler(init=True, association_property="order_id")
    async def on_placed(self, event: OrderPlacedEvent, commands: CommandGateway) -> GiftState:
        state = GiftState(steps=["placed"])
        state.set_association("order_id", event.order_id)
        await commands.send(ItemAddCommand(event.order_id, "gift", 1))
        await commands.send(ItemAddCommand(event.order_id, "gift", 2))
        return state

    @saga_event_handler(association_property="order_id")
    async def on_added(self, event: ItemAddedEvent, state: GiftState, commands: CommandGateway) -> None:
        state.steps.append(f"added {event.quantity}")
        if event.quantity == 2:
            await commands.send(PaymentCaptureCommand(event.order_id, 7))

    @saga_event_handler(association_property="order_id")
    async def on_paid(self, event: PaymentCapturedEvent, state: GiftState, commands: CommandGateway) -> None:
        state.steps.append("paid")
        state.paid += event.amount
        if int(event.order_id.removeprefix("ORD_")) % 3 == 0:
            await commands.send(OrderCancelCommand(event.order_id))

    @saga_event_handler(association_property="order_id")
    async def on_cancelled(self, event: OrderCancelledEvent, state: GiftState) -> None:
        state.end()


class Sightings:
    """A file with a line for each event that the observer has handled to its end."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def add(self, position: int) -> None:
        os.write(self._file, b"%d\n" % position)

    def close(self) -> None:
        os.close(self._file)


class SightingObserver(Observer, version=1):
    def __init__(self, sightings: Sightings) -> None:
        self._sightings = sightings

    async def _see(self, position: int) -> None:
        await asyncio.sleep(0.005)  # so that a kill finds some that are begun
        self._sightings.add(position)

    @event_handler
    async def on_placed(self, event: OrderPlacedEvent, message: EventMessage[Any]) -> None:
        await self._see(message.position)

    @event_handler
    async def on_added(self, event: ItemAddedEvent, message: EventMessage[Any]) -> None:
        await self._see(message.position)

    @event_handler
    async def on_paid(self, event: PaymentCapturedEvent, message: EventMessage[Any]) -> None:
        await self._see(message.position)

    @event_handler
    async def on_cancelled(self, event: OrderCancelledEvent, message: EventMessage[Any]) -> None:
        await self._see(message.position)


class TableProjection(Projection):
    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @query_handler
    def find(self, query: OrderFindQuery) -> OrderView:
        with closing(sqlite3.connect(self._directory / "read.db")) as database:
            row = database.execute(
                "SELECT id, customer, total FROM orders_1 WHERE id = ?", (query.order_id,)
            ).fetchone()
        if row is None:
            raise NotFound(f"there is no order {query.order_id}")
        return OrderView(*row)


class CustomerInvoker(Invoker):
    @invocation_handler
    async def place(self, number: int) -> None:
        await self.commands.send(OrderPlaceCommand(f"ORD_{number}", "ann"), message_id=f"place-{number}")

    @invocation_handler
    async def find(self, number: int) -> OrderView:
        return await self.queries.query(OrderFindQuery(f"ORD_{number}"))


@asynccontextmanager
async def running(
    directory: Path, *, version: int = 1, state_cache_size: int = 8192, ledger: Ledger | None = None
) -> AsyncIterator[EventoBundle]:
    """Run a bundle of all seven roles on the files of a directory; projectors of another version replay."""
    _make_tables(directory, version)
    diary, sightings = Diary(directory, version), Sightings(directory / "sightings")
    bundle = EventoBundle(
        "seven",
        components=[*components(version, diary), GiftSaga, SightingObserver, TableProjection, CustomerInvoker],
        server=f"embedded:{event_store(directory)}",
        consumer_state_store=f"sqlite+aiosqlite:///{directory / 'read.db'}",
        state_cache_size=state_cache_size,
        injector={Ledger: ledger or Ledger(), Sightings: sightings, Path: directory},
    )
    try:
        async with bundle:
            yield bundle
    finally:
        diary.close()
        sightings.close()


def seen(directory: Path) -> set[int]:
    """Return the positions that the observer has handled."""
    return {int(line) for line in (directory / "sightings").read_text().split()}


async def saga_states(directory: Path) -> dict[str, GiftState]:
    """Return the states of the sagas by their orders."""
    async with SqlConsumerStateStore(f"sqlite+aiosqlite:///{directory / 'read.db'}") as store:
        states = [msgspec.json.decode(saga.state, type=GiftState) for saga in await store.sagas(SAGA)]
    return {str(state.get_association("order_id")): state for state in states}


async def main(directory: Path, first: int, count: int) -> None:
    """Place orders one after another, and wait to be killed."""
    os.write(1, READY)
    async with running(directory) as bundle:
        invoker = bundle.invoker(CustomerInvoker)
        for number in range(first, first + count):
            await invoker.place(number)
            await asyncio.sleep(0.02)  # the pace of what is sent
        await asyncio.Event().wait()


if __name__ == "__main__":
    signal.alarm(60)  # a process whose parent has died ends by itself
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
