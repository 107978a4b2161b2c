"""Commands with a saga and an observer in the system, beside the same commands without them.

Both follow every order line: the saga counts it in its state, which commits with its checkpoint, the observer looks at
it. The rate is that of the callers; how far the two are behind when the callers stop, they catch up afterwards, which
is not measured. Everything shares one process and its event loop.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import perf_counter

from commands import (
    SYSTEM,
    OrderAddLineCommand,
    OrderAggregate,
    OrderLineAddedEvent,
    order_id,
    run_on_fast_loop,
)
from evento import EventoBundle, Observer, Saga, SagaState, event_handler, saga_event_handler
from figures import Case, Sample, measured_calls, sampled
from workload import ORDERS, line

__all__ = ["cases"]


class CountState(SagaState):
    """What the saga knows of an order."""

    lines: int = 0


class CountSaga(Saga[CountState], version=1):
    """Counts the lines of each order."""

    @saga_event_handler(init=True, association_property="order_id")
    def on_line(self, event: OrderLineAddedEvent, state: CountState | None) -> CountState:
        """Count one."""
        if state is None:
            state = CountState()
            state.set_association("order_id", event.order_id)
        state.lines += 1
        return state


class LineObserver(Observer, version=1):
    """Looks at each line."""

    def __init__(self) -> None:
        self.seen = 0

    @event_handler
    async def on_line(self, event: OrderLineAddedEvent) -> None:
        """Look at one."""
        self.seen += 1


SETTINGS: dict[str, tuple[type, ...]] = {
    "without": (OrderAggregate,),
    "with an observer": (OrderAggregate, LineObserver),
    "with a saga and an observer": (OrderAggregate, CountSaga, LineObserver),
}


def cases(seeded: Path, directory: Path, *, callers: tuple[int, ...], seconds: float) -> list[Case]:
    """Send commands from as many callers at a time, each to orders of its own, with and without consumers."""
    return [
        Case(SYSTEM, f"command, {setting}", count, _take(seeded, directory, components, count, seconds))
        for setting, components in SETTINGS.items()
        for count in callers
    ]


def _take(
    seeded: Path, directory: Path, components: tuple[type, ...], callers: int, seconds: float
) -> Callable[[], Sample]:
    def take() -> Sample:
        path = directory / "run" / "evento.db"
        path.parent.mkdir()
        try:
            shutil.copyfile(seeded, path)
            return run_on_fast_loop(_run(path, components, callers, seconds))
        finally:
            shutil.rmtree(path.parent)

    return take


async def _run(path: Path, components: tuple[type, ...], callers: int, seconds: float) -> Sample:
    async with EventoBundle(
        "benchmark", components=components, server=f"embedded:{path}", state_cache_size=2 * ORDERS
    ) as bundle:
        send = bundle.commands.send

        def caller(first: int) -> Callable[[int], Awaitable[object]]:
            mine = range(first, ORDERS, callers)  # callers never meet on an order: no conflicts
            return lambda number: send(OrderAddLineCommand(order_id(mine[number % len(mine)]), **line(number)))

        await asyncio.gather(*(send(OrderAddLineCommand(order_id(number), **line(number))) for number in range(ORDERS)))
        await bundle.consumers_caught_up(60)
        begin = perf_counter()
        times = await asyncio.gather(*(measured_calls(caller(first), begin + seconds) for first in range(callers)))
        took = perf_counter() - begin
        await bundle.consumers_caught_up(60)  # every event was followed
        return sampled(took, [time for mine in times for time in mine])
