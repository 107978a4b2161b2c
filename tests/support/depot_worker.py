"""A process that runs the depot until it is killed: ``depot_worker.py storm|purge|start DIRECTORY ROUND``."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import deque
from pathlib import Path
from random import Random

from depot import event_store, running
from journal import Journal, Order, orders, send

from evento import EventoBundle
from evento.messages import now_micros
from evento.state_store.sqlite import SqliteStateStore

CALLERS = 24
READY, RUNNING = b"ready\n", b"running\n"


def tell(word: bytes) -> None:
    """Tell the parent how far the process has come."""
    os.write(1, word)


async def storm(directory: Path, round: str, timeout: float) -> None:
    """Send commands from many callers at once, for ever; first those that have no answer yet."""
    journal = Journal(directory / "journal")
    history = journal.read()
    unanswered = deque(history.open)
    answered = [history.sent[key] for key in history.done]
    tell(READY)
    async with running(directory, 1) as bundle:
        tell(RUNNING)
        await asyncio.gather(
            *(_call(bundle, journal, Random(f"{round}-{n}"), f"{round}-{n}", unanswered, answered, timeout)
              for n in range(CALLERS))
        )  # fmt: skip


async def _call(
    bundle: EventoBundle,
    journal: Journal,
    random: Random,
    prefix: str,
    unanswered: deque[Order],
    answered: list[Order],
    timeout: float,
) -> None:
    # The orders of a few rounds are shared, so that later processes continue what earlier ones have begun.
    fresh = orders(random, prefix=prefix, aggregates=f"ORD_{int(prefix.split('-')[0]) // 3}")
    while True:
        if unanswered:
            order = unanswered.popleft()
        elif answered and random.random() < 0.05:
            order = random.choice(answered)
        else:
            order = next(fresh)
        if not await send(bundle, journal, order, timeout=timeout):
            unanswered.append(order)


async def purge(directory: Path) -> None:
    """Remove the events of all deleted orders."""
    tell(READY)
    async with SqliteStateStore(event_store(directory)) as store:
        tell(RUNNING)
        await store.purge(deleted_before=now_micros())


async def start(directory: Path) -> None:
    """Start a bundle, on files that need not be there yet, and stop it."""
    tell(READY)
    async with running(directory, 1):
        tell(RUNNING)


def main(mode: str, directory: str, round: str = "0", timeout: str = "30") -> None:
    """Run until the end, which mostly is a kill."""
    signal.alarm(120)  # a worker whose parent has died ends by itself
    path = Path(directory)
    match mode:
        case "storm":
            asyncio.run(storm(path, round, float(timeout)))
        case "purge":
            asyncio.run(purge(path))
        case "start":
            asyncio.run(start(path))


if __name__ == "__main__":
    main(*sys.argv[1:])
