"""The shop's checkout: a saga that leads each order through payment. Run as a program, it kills itself on the way."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from shop import (
    ItemAddCommand,
    ItemAddedEvent,
    Ledger,
    OrderAggregate,
    OrderCancelCommand,
    OrderCancelledEvent,
    OrderPlaceCommand,
    OrderPlacedEvent,
    PaymentCaptureCommand,
    PaymentCapturedEvent,
    PaymentService,
)

from evento import CommandGateway, EventoBundle, Saga, SagaState, saga_event_handler
from evento.state_store.sqlite import SqliteStateStore


class CheckoutState(SagaState):
    paid: int = 0
    items: int = 0


class Steps:
    """What a test does between the steps of the saga: ``at`` is awaited with the name of each."""

    def __init__(self, at: Callable[[str], Awaitable[None]] | None = None) -> None:
        self.seen: list[str] = []
        self._at = at

    async def __call__(self, step: str) -> None:
        self.seen.append(step)
        if self._at is not None:
            await self._at(step)


class CheckoutSaga(Saga[CheckoutState], version=1):
    """Order placed: add a gift, then capture the payment; paid: cancel the order, which ends the saga."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps

    @saga_event_handler(init=True, association_property="order_id")
    async def on_placed(self, event: OrderPlacedEvent, commands: CommandGateway) -> CheckoutState:
        await self._steps(f"placed {event.order_id}")
        state = CheckoutState()
        state.set_association("order_id", event.order_id)
        await commands.send(ItemAddCommand(event.order_id, "gift"))
        await self._steps(f"gift added to {event.order_id}")
        await commands.send(ItemAddCommand(event.order_id, "gift"))
        return state

    @saga_event_handler(association_property="order_id")
    async def on_added(self, event: ItemAddedEvent, state: CheckoutState, commands: CommandGateway) -> None:
        await self._steps(f"item of {event.order_id}")
        state.items += event.quantity
        if state.items == 2:
            await commands.send(PaymentCaptureCommand(event.order_id, 5))
        await self._steps(f"item of {event.order_id} counted")

    @saga_event_handler(association_property="order_id")
    async def on_paid(self, event: PaymentCapturedEvent, state: CheckoutState, commands: CommandGateway) -> None:
        await self._steps(f"paid {event.order_id}")
        state.paid += event.amount
        await commands.send(OrderCancelCommand(event.order_id))
        await self._steps(f"cancelled {event.order_id}")

    @saga_event_handler(association_property="order_id")
    async def on_cancelled(self, event: OrderCancelledEvent, state: CheckoutState) -> None:
        await self._steps(f"ended {event.order_id}")
        state.end()


COMPLETE = ["OrderPlacedEvent", "ItemAddedEvent", "ItemAddedEvent", "PaymentCapturedEvent", "OrderCancelledEvent"]
"""The events of an order that has gone through the whole checkout."""


def checkout(directory: Path, steps: Steps, *, components: tuple[type, ...] | None = None) -> EventoBundle:
    """Return the bundle."""
    return EventoBundle(
        "checkout",
        components=components or (OrderAggregate, PaymentService, CheckoutSaga),
        server=f"embedded:{directory / 'shop.db'}",
        injector={Steps: steps, Ledger: Ledger()},
    )


async def stories(directory: Path) -> dict[str, list[str]]:
    """Return the names of the stored events of each order."""
    found: dict[str, list[str]] = {}
    async with SqliteStateStore(directory / "shop.db") as store:
        page = await store.fetch(0, limit=100_000)
    for event in page.events:
        found.setdefault((event.aggregate_id or "").removeprefix("PAY_"), []).append(event.name)
    return found


async def main(directory: Path, orders: int, kill_at: int) -> None:
    """Place orders, and die at the step of that number; without dying, wait for the end of all checkouts."""
    left = kill_at

    async def maybe_die(step: str) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    async with checkout(directory, Steps(maybe_die)) as bundle:
        for number in range(orders):
            await bundle.commands.send(OrderPlaceCommand(f"ORD_{number}", "ann"), message_id=f"place-{number}")
        await bundle.consumers_caught_up(30)


if __name__ == "__main__":
    signal.alarm(60)  # a process whose parent has died ends by itself
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
