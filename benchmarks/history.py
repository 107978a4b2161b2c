"""Does cost grow with history? The same operations on a store of ten thousand events and on one of a million.

Both stores hold orders of 20 events each, the events of 500 orders interleaved, so that an order's events lie apart.
Operations run one at a time; what is compared is the time that half of the calls stay under.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from itertools import count, islice
from pathlib import Path
from time import perf_counter, time_ns
from typing import NamedTuple

import msgspec

from commands import order_id, run_on_fast_loop
from evento.messages import new_id
from evento.state_store import Append, Appended, NewEvent, StateStore
from evento.state_store.sqlite import SqliteStateStore
from figures import Case, Figure, Sample, Table, sampled
from workload import EVENTS_EACH, line

__all__ = ["LARGE", "LARGE_QUICK", "SMALL", "cases", "fill", "table"]

SMALL, LARGE, LARGE_QUICK = 10_000, 1_000_000, 100_000
INTERLEAVED = 500
WINDOW = 1_000
REPEAT = 200
CHANGES = 40


class Call(NamedTuple):
    """One call of an operation: the ``number``-th on a store that was made with ``events`` events."""

    store: StateStore
    events: int
    head: int
    number: int


Operation = Callable[[Call], Awaitable[object]]


def fill(path: Path, events: int, progress: Callable[[str], None] = lambda text: None) -> None:
    """Make a store of so many events, through the store's port."""
    run_on_fast_loop(_fill(path, events, progress))


def cases(stores: dict[int, Path]) -> list[Case]:
    """Each operation on each store; ``stores`` maps the number of events to the file."""
    return [
        Case(f"{events:,} events", what, 1, _take(path, events, operation, _numbers(what)))
        for what, operation in _operations().items()
        for events, path in stores.items()
    ]


def table(figures: list[Figure]) -> Table:
    """Compare the stores, operation by operation."""
    systems = list(dict.fromkeys(figure.system for figure in figures))
    found = {(figure.what, figure.system): figure for figure in figures}
    rows = []
    for what in dict.fromkeys(figure.what for figure in figures):
        small, large = (found[what, system].p50 or 0.0 for system in systems)
        rows.append((what, f"{small:,.1f}", f"{large:,.1f}", f"{large / small:.2f}"))
    return Table(
        "Cost and history",
        ("operation, microseconds (median)", *systems, "ratio"),
        tuple(rows),
        "One operation at a time. A cost that does not grow has a ratio near 1; a deeper index costs a little.",
    )


def _operations() -> dict[str, Operation]:
    return {
        "head query": lambda call: call.store.head(),
        "fetch at the head": lambda call: call.store.fetch(call.head),
        "page of 1,000 in the middle": lambda call: call.store.fetch(call.events // 2 + call.number),
        "load an order of 20 events": lambda call: call.store.story(_order(call.events, call.number)),
        "append an event": _append,
        "append 64 events at once": _append_many,
        "append a deleting event": _delete,
    }


def _take(path: Path, events: int, operation: Operation, numbers: Callable[[], list[int]]) -> Callable[[], Sample]:
    return lambda: run_on_fast_loop(_times(path, events, operation, numbers()))


async def _times(path: Path, events: int, operation: Operation, numbers: list[int]) -> Sample:
    async with SqliteStateStore(str(path)) as store:
        head = await store.head()
        for number in range(10):
            await store.fetch(events // 2 + 10 * number, limit=10)
            await store.story(_order(events, number))
        times = []
        start = perf_counter()
        for number in numbers:
            call = Call(store, events, head, number)
            begin = perf_counter()
            await operation(call)
            times.append(perf_counter() - begin)
        return sampled(perf_counter() - start, times)


async def _append(call: Call) -> None:
    _stored(await call.store.append(Append(_event(f"NEW_{new_id()}", 0), expected_version=0)))


async def _append_many(call: Call) -> None:
    appends = [Append(_event(f"NEW_{new_id()}", 0), expected_version=0) for _ in range(64)]
    for outcome in await asyncio.gather(*(call.store.append(append) for append in appends)):
        _stored(outcome)


async def _delete(call: Call) -> None:
    event = _event(order_id(call.number), EVENTS_EACH)
    _stored(await call.store.append(Append(event, expected_version=EVENTS_EACH, deletes=True)))


def _numbers(what: str) -> Callable[[], list[int]]:
    """Say which orders a round works on: fresh ones where it writes, since a deleted one cannot be deleted again."""
    fresh = count()
    return (lambda: list(islice(fresh, CHANGES))) if what.startswith("append") else (lambda: list(range(REPEAT)))


def _order(events: int, number: int) -> str:
    """Return an order of the newer half, whose orders are never deleted."""
    orders = events // EVENTS_EACH
    return order_id(orders - 1 - number * 7 % (orders // 2))


def _stored(outcome: object) -> None:
    if not isinstance(outcome, Appended):
        raise SystemExit(f"an append of the benchmark was answered with {outcome!r}")


async def _fill(path: Path, events: int, progress: Callable[[str], None]) -> None:
    async with SqliteStateStore(str(path)) as store:
        appends = _history(events)
        done = 0
        while window := list(islice(appends, WINDOW)):
            for outcome in await asyncio.gather(*(store.append(append) for append in window)):
                _stored(outcome)
            done += len(window)
            if done % 100_000 == 0:
                progress(f"{done:,} of {events:,} events stored")


def _history(events: int) -> Iterator[Append]:
    for first in range(0, events // EVENTS_EACH, INTERLEAVED):
        for version in range(EVENTS_EACH):
            for number in range(first, first + INTERLEAVED):
                yield Append(_event(order_id(number), version), expected_version=version)


def _event(aggregate_id: str, version: int) -> NewEvent:
    command_id = new_id()
    return NewEvent(
        context="default",
        aggregate_id=aggregate_id,
        name="OrderLineAddedEvent",
        schema_version=1,
        kind="domain",
        payload=_payloads[version % len(_payloads)],
        metadata=b"{}",
        event_id=new_id(),
        command_id=command_id,
        correlation_id=command_id,
        causation_id=command_id,
        timestamp=time_ns() // 1000,
    )


_payloads = [msgspec.json.encode({"order_id": order_id(number), **line(number)}) for number in range(100)]
