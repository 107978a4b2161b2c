"""A read model that is built in lanes, in a file. Run as a program, it places and fills orders until it is killed."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import msgspec
from shop import ItemAddCommand, ItemAddedEvent, OrderAggregate, OrderPlaceCommand, OrderPlacedEvent

from evento import ConsumerExecutor, EventMessage, EventoBundle, Projector, event_handler

LANES, ORDERS = 4, 12
READY = b"ready\n"


class Sighting(msgspec.Struct, frozen=True):
    """An event that a handler has brought to its end."""

    order_id: str
    position: int
    quantity: int


class LaneLog:
    """What the handlers have written, in its order: a file that outlives kills, with a line for each time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, sighting: Sighting) -> None:
        os.write(self._file, msgspec.json.encode(sighting) + b"\n")

    def read(self) -> list[Sighting]:
        return [msgspec.json.decode(line, type=Sighting) for line in self._path.read_bytes().splitlines()]

    def close(self) -> None:
        os.close(self._file)


def projector(version: int) -> type[Projector]:
    """Return the projector in a version; each builds its read model anew."""

    class LaneProjector(Projector, version=version):
        def __init__(self, log: LaneLog) -> None:
            self._log = log

        async def _see(self, order_id: str, quantity: int, message: EventMessage[Any]) -> None:
            await asyncio.sleep(0.001 * (message.position % 5))  # so that lanes run apart
            self._log.write(Sighting(order_id, message.position, quantity))

        @event_handler(executor="lanes")
        async def on_placed(self, event: OrderPlacedEvent, message: EventMessage[Any]) -> None:
            await self._see(event.order_id, 0, message)

        @event_handler(executor="lanes")
        async def on_added(self, event: ItemAddedEvent, message: EventMessage[Any]) -> None:
            await self._see(event.order_id, event.quantity, message)

    return LaneProjector


@asynccontextmanager
async def running(directory: Path, *, version: int = 1) -> AsyncIterator[tuple[EventoBundle, LaneLog]]:
    """Run the bundle on the files of a directory."""
    log = LaneLog(directory / f"log_{version}")
    bundle = EventoBundle(
        "laned",
        components=[OrderAggregate, projector(version)],
        server=f"embedded:{directory / 'shop.db'}",
        executors=[ConsumerExecutor.partitioned("lanes", lanes=LANES)],
        injector={LaneLog: log},
    )
    try:
        async with bundle:
            yield bundle, log
    finally:
        log.close()


async def main(directory: Path, number: int) -> None:
    """Place orders and add to them at once, until the process is killed."""
    os.write(1, READY)

    async def fill(bundle: EventoBundle, first: int) -> None:
        random = Random(first)
        for order in count(first, ORDERS):
            order_id = f"ORD_{number}_{order}"
            await bundle.commands.send(OrderPlaceCommand(order_id, "ann"))
            for _ in range(25):  # an order has at most 100 items, four at a time
                await bundle.commands.send(ItemAddCommand(order_id, "tea", random.randrange(1, 5)))
                await asyncio.sleep(0.01)  # the pace of what is sent

    async with running(directory) as (bundle, _), asyncio.TaskGroup() as callers:
        for order in range(ORDERS):
            callers.create_task(fill(bundle, order))


if __name__ == "__main__":
    signal.alarm(60)  # a process whose parent has died ends by itself
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
