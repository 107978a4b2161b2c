"""Durable domain commands through a whole bundle: gateway, bus, boundary, state, decision, group commit.

Each command is answered when its event is on disk. ``state cached`` is a bundle as it starts by default, after one
command to each order; ``state loaded`` has the cache off, so that each command reads and folds its order's events.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

from evento import (
    Aggregate,
    AggregateId,
    AggregateState,
    CommandRejected,
    DomainCommand,
    DomainEvent,
    EventoBundle,
    aggregate_command_handler,
    event_sourcing_handler,
)
from figures import Case, Sample, measured_calls, sampled
from workload import EVENTS_EACH, ORDERS, line

__all__ = ["SYSTEM", "Load", "cases", "order_id", "run_on_fast_loop", "seed"]

SYSTEM = "evento"
SETTINGS = {"state cached": 2 * ORDERS, "state loaded": 0}
T = TypeVar("T")


class OrderPlacedEvent(DomainEvent, domain="Order"):
    """An order was placed."""

    order_id: str
    customer: str


class OrderLineAddedEvent(DomainEvent, domain="Order"):
    """An order got a line."""

    order_id: str
    sku: str
    title: str
    quantity: int
    unit_price: int
    note: str


class OrderPlaceCommand(DomainCommand[OrderPlacedEvent], domain="Order"):
    """Place an order."""

    order_id: AggregateId
    customer: str


class OrderAddLineCommand(DomainCommand[OrderLineAddedEvent], domain="Order"):
    """Add a line to an order."""

    order_id: AggregateId
    sku: str
    title: str
    quantity: int
    unit_price: int
    note: str


class OrderState(AggregateState):
    """What is ordered."""

    lines: dict[str, int] = {}  # noqa: RUF012 - states are structs: each gets its own copy
    total: int = 0


class OrderAggregate(Aggregate[OrderState]):
    """An order."""

    @aggregate_command_handler(init=True)
    def place(self, command: OrderPlaceCommand) -> OrderPlacedEvent:
        """Place it."""
        return OrderPlacedEvent(command.order_id, command.customer)

    @event_sourcing_handler
    def on_placed(self, event: OrderPlacedEvent) -> OrderState:
        """Begin empty."""
        return OrderState()

    @aggregate_command_handler
    def add_line(self, command: OrderAddLineCommand, state: OrderState) -> OrderLineAddedEvent:
        """Add a line."""
        if command.quantity < 1:
            raise CommandRejected("a line has at least one piece", quantity=command.quantity)
        return OrderLineAddedEvent(
            command.order_id, command.sku, command.title, command.quantity, command.unit_price, command.note
        )

    @event_sourcing_handler
    def on_line_added(self, event: OrderLineAddedEvent, state: OrderState) -> None:
        """Count it in."""
        state.lines[event.sku] = state.lines.get(event.sku, 0) + event.quantity
        state.total += event.quantity * event.unit_price


def order_id(number: int) -> str:
    """Return the id of the order with this number."""
    return f"ORD_{number:08d}"


def run_on_fast_loop(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on uvloop where it is installed, else on asyncio's own loop."""
    try:
        import uvloop
    except ModuleNotFoundError:
        return asyncio.run(main)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


def seed(path: Path, *, orders: int = ORDERS) -> None:
    """Make a store of orders of :data:`~workload.EVENTS_EACH` events each, through commands."""
    run_on_fast_loop(_seed(path, orders))


def cases(seeded: Path, directory: Path, *, callers: tuple[int, ...], seconds: float) -> list[Case]:
    """Load or take from the cache, decide, append one: with as many callers at a time, each on orders of its own."""
    return [
        Case(
            SYSTEM,
            f"command, {setting}",
            count,
            _take(Load(seeded, directory, cache_size=size, callers=count, seconds=seconds)),
        )
        for setting, size in SETTINGS.items()
        for count in callers
    ]


def _take(load: Load) -> Callable[[], Sample]:
    return lambda: run_on_fast_loop(load.run())


async def _seed(path: Path, orders: int) -> None:
    async with _bundle(path, orders) as bundle:
        numbers = iter(range(orders))

        async def fill() -> None:
            for number in numbers:
                await bundle.commands.send(OrderPlaceCommand(order_id(number), f"customer {number}"))
                for index in range(EVENTS_EACH - 1):
                    await bundle.commands.send(OrderAddLineCommand(order_id(number), **line(number + index)))

        await asyncio.gather(*(fill() for _ in range(128)))


class Load:
    """Callers that send commands to a copy of a seeded store, for a while; ``measuring`` while they are measured."""

    def __init__(self, seeded: Path, directory: Path, *, cache_size: int, callers: int, seconds: float) -> None:
        self._seeded = seeded
        self._directory = directory
        self._cache_size = cache_size
        self._callers = callers
        self._seconds = seconds
        self.measuring = False

    async def run(self) -> Sample:
        """Warm the cache, where there is one; then measure."""
        async with _copied(self._seeded, self._directory) as path, _bundle(path, self._cache_size) as bundle:
            send = bundle.commands.send

            def caller(first: int) -> Callable[[int], Awaitable[object]]:
                mine = range(first, ORDERS, self._callers)  # callers never meet on an order: no conflicts
                return lambda number: send(OrderAddLineCommand(order_id(mine[number % len(mine)]), **line(number)))

            if self._cache_size:
                every = (OrderAddLineCommand(order_id(number), **line(number)) for number in range(ORDERS))
                await asyncio.gather(*(send(command) for command in every))
            self.measuring = True
            begin = perf_counter()
            times = await asyncio.gather(
                *(measured_calls(caller(first), begin + self._seconds) for first in range(self._callers))
            )
            took = perf_counter() - begin
            self.measuring = False
            return sampled(took, [time for mine in times for time in mine])


def _bundle(path: Path, cache_size: int) -> EventoBundle:
    return EventoBundle(
        "benchmark", components=[OrderAggregate], server=f"embedded:{path}", state_cache_size=cache_size
    )


@asynccontextmanager
async def _copied(seeded: Path, directory: Path) -> AsyncIterator[Path]:
    """Give a copy of a seeded store to run on, so that every round begins with the same one."""
    path = directory / "run" / "evento.db"
    path.parent.mkdir()
    try:
        shutil.copyfile(seeded, path)
        yield path
    finally:
        shutil.rmtree(path.parent)
