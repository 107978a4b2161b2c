"""All seven roles under a steady load, for ten minutes or ``EVENTO_SOAK_SECONDS``; memory must stay flat.

The first half is the warm-up, in which caches fill. Their bounds are lowered here: with the usual ones they fill for
longer than the soak lasts, and filling looks like leaking. Over the second half the resident memory (RSS) may grow by
at most 50 bytes for each stored event, in the median of the slopes between any two samples: neither a step of half
a MiB nor a single high sample fails it, but what is lost with each event does. In less than five minutes what settles
after a start, or with a busy moment of the machine, still weighs too much for a verdict. At the end all consumers must
catch up, with no dead event. Exit code 1: not flat.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
import tempfile
from collections.abc import Sequence
from contextlib import closing, suppress
from functools import partial
from itertools import combinations
from pathlib import Path
from statistics import median
from time import monotonic

from resident import resident_bytes
from seven_roles import CustomerInvoker, running
from shop import ItemAddCommand, Ledger, OrderPlaceCommand

from evento import AggregateAlreadyInitialized, AggregateDeleted, EventoBundle, NotFound, RequestTimeout
from evento.consumers import saga_changes

SECONDS = float(os.environ.get("EVENTO_SOAK_SECONDS", "600"))
ORDERS_A_SECOND = 20
MAX_GROWTH = 50.0
"""Bytes for each event: about one small Python object."""
MIB = 1024 * 1024
KNOWN_STATES = 200
SQLITE_MEMORY = 3 * MIB


def growth(samples: Sequence[tuple[float, float]]) -> float:
    """Return the median of the slopes between any two ``(x, y)`` (the Theil-Sen estimator)."""
    return median((y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in combinations(samples, 2) if x2 > x1)


def lower_the_bounds() -> None:
    """Keep those caches of this process small that are no setting of a bundle: sagas, and pages of SQLite."""
    saga_changes.MAX_KNOWN = KNOWN_STATES
    with closing(sqlite3.connect(":memory:")) as any_connection:
        any_connection.execute(f"PRAGMA soft_heap_limit = {SQLITE_MEMORY}")  # of all connections together


async def soak(directory: Path) -> bool:
    """Place orders at a steady rate, read some of them, let some commands fail, and sample."""
    samples: list[tuple[int, int]] = []
    number = 0
    ledger = Ledger()
    async with running(directory, state_cache_size=KNOWN_STATES, ledger=ledger) as bundle:
        invoker = bundle.invoker(CustomerInvoker)
        begin = monotonic()
        while (now := monotonic() - begin) < SECONDS:
            if now >= len(samples):
                samples.append((number, resident_bytes()))
                if len(samples) % 30 == 1:
                    print(f"{now:5.0f} s  {number:7,} orders  {samples[-1][1] / MIB:6.1f} MiB", flush=True)  # noqa: T201
            await invoker.place(number)
            if number % 10 == 9:
                try:
                    await invoker.find(number - 9)
                except NotFound:  # the read model may be behind
                    await bundle.consumers_caught_up(60)
                await trouble(bundle, number)
                ledger.calls.clear()  # what the outside system was asked is no memory of ours
            number += 1
            await asyncio.sleep(max(0.0, number / ORDERS_A_SECOND - (monotonic() - begin)))
        await bundle.consumers_caught_up(120)
        statuses = await bundle.consumers.list()
        assert not any(status.dead or status.waiting for status in statuses), statuses
        events = statuses[0].position
    return flat([(orders * events / number, size) for orders, size in samples])


async def trouble(bundle: EventoBundle, number: int) -> None:
    """Send what is refused, what was sent before, and what gets no answer in time and is sent again."""
    commands, order = bundle.commands, f"ORD_{number}"
    with suppress(AggregateAlreadyInitialized, AggregateDeleted):
        await commands.send(OrderPlaceCommand(order, "bob"))
    await commands.send(OrderPlaceCommand(order, "ann"), message_id=f"place-{number}")
    late = partial(commands.send, ItemAddCommand(order, "late", 3), message_id=f"late-{number}")
    with suppress(RequestTimeout, AggregateDeleted):
        await late(timeout=0.0001)
    with suppress(AggregateDeleted):
        await late()


def flat(samples: Sequence[tuple[float, int]]) -> bool:
    """Tell whether memory stays flat in the second half of samples of ``(events, bytes)``, and print the figures."""
    second_half = samples[len(samples) // 2 :]
    slope = growth(second_half)
    print(  # noqa: T201
        f"{samples[-1][0]:,.0f} events; RSS {samples[0][1] / MIB:.1f} MiB at first, "
        f"{second_half[0][1] / MIB:.1f} at half-time, {samples[-1][1] / MIB:.1f} at the end; "
        f"growth in the second half: {slope:.1f} bytes an event (at most {MAX_GROWTH:g})"
    )
    return slope <= MAX_GROWTH


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        lower_the_bounds()
        sys.exit(0 if asyncio.run(soak(Path(folder))) else 1)
