"""History into projectors: pages from the event store, decoding, the consumer engine, checkpoints.

``replay`` is a projector that does nothing; ``replay, envelope and metadata`` asks for what costs to make;
``replay, three projectors`` counts the events of all three, which read at the same time. ``replay, exactly once``
writes a row for each event in the transaction of the checkpoint.

Part of the whole run; alone it prints its own figures::

    python benchmarks/replay.py [DIRECTORY]
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from time import perf_counter

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

import history
from commands import SYSTEM, OrderLineAddedEvent, run_on_fast_loop
from evento import EventMessage, Metadata, Projector, event_handler
from evento.components import component_definition
from evento.consumers import ConsumerGroup, SqlConsumerStateStore
from evento.state_store.sqlite import SqliteStateStore
from figures import Case, Sample, measure, progress

__all__ = ["EVENTS", "cases", "fill"]

EVENTS = 200_000
EVENTS_EXACTLY_ONCE = 20_000
_INSERT = text("INSERT INTO line (order_id, sku, quantity) VALUES (:order_id, :sku, :quantity)")


class IdleProjector(Projector, version=1):
    """Does nothing."""

    @event_handler
    async def on_line_added(self, event: OrderLineAddedEvent) -> None:
        """Do nothing."""


class SecondIdleProjector(IdleProjector, version=1):
    """Does nothing, beside the first one."""


class ThirdIdleProjector(IdleProjector, version=1):
    """Does nothing, beside the others."""


class CuriousProjector(Projector, version=1):
    """Does nothing with the envelope and the metadata."""

    @event_handler
    def on_line_added(
        self, event: OrderLineAddedEvent, message: EventMessage[OrderLineAddedEvent], metadata: Metadata
    ) -> None:
        """Do nothing."""


class RowProjector(Projector, version=1):
    """Writes a row for each event, exactly once."""

    @event_handler
    async def on_line_added(self, event: OrderLineAddedEvent, connection: AsyncConnection) -> None:
        """Write a row."""
        values = {"order_id": event.order_id, "sku": event.sku, "quantity": event.quantity}
        await connection.execute(_INSERT, values)


def fill(path: Path) -> None:
    """Make the store that is replayed."""
    history.fill(path, EVENTS, progress)


def cases(seeded: Path, directory: Path) -> list[Case]:
    """Replay the store at ``seeded``; consumer state lies in ``directory``."""

    def case(what: str, events: int, *projectors: type[Projector]) -> Case:
        return Case(SYSTEM, what, 1, _take(seeded, directory, events, projectors))

    return [
        case("replay", EVENTS, IdleProjector),
        case("replay, envelope and metadata", EVENTS, CuriousProjector),
        case("replay, three projectors", EVENTS, IdleProjector, SecondIdleProjector, ThirdIdleProjector),
        case("replay, exactly once", EVENTS_EXACTLY_ONCE, RowProjector),
    ]


def _take(seeded: Path, directory: Path, events: int, projectors: tuple[type[Projector], ...]) -> Callable[[], Sample]:
    def take() -> Sample:
        with tempfile.TemporaryDirectory(dir=directory) as folder:
            return run_on_fast_loop(_replay(seeded, Path(folder) / "consumers.db", events, projectors))

    return take


async def _replay(seeded: Path, consumers: Path, events: int, projectors: tuple[type[Projector], ...]) -> Sample:
    async with SqliteStateStore(seeded) as store, SqlConsumerStateStore(f"sqlite+aiosqlite:///{consumers}") as state:
        async with state.begin() as connection:
            await connection.execute(text("CREATE TABLE line (order_id TEXT, sku TEXT, quantity INTEGER)"))
        group = ConsumerGroup("benchmark", state_store=store, consumer_store=state, take_over=True)
        for projector in projectors:
            group.add(component_definition(projector), projector())
        begin = perf_counter()
        async with group:
            deadline = asyncio.get_running_loop().time() + timedelta(minutes=5).total_seconds()
            await group.wait_for(None, events, deadline)
            done = sum(status.position for status in group.statuses())
            return Sample(done / (perf_counter() - begin))


def main() -> None:
    """Measure five rounds and print them."""
    with tempfile.TemporaryDirectory(prefix=".benchmark-", dir=sys.argv[1] if sys.argv[1:] else ".") as folder:
        directory = Path(folder)
        fill(directory / "events.db")
        for figure in measure(cases(directory / "events.db", directory), rounds=5, label="replay"):
            low, high = figure.spread
            print(f"{figure.what:35} {figure.rate:10,.0f} events/s ({low:,.0f} .. {high:,.0f})")


if __name__ == "__main__":
    main()
