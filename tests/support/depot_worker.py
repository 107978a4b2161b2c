"""A process that works on the depot until it is killed: ``depot_worker.py storm|hold|start|purge DIRECTORY ...``."""

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
from shop import PaymentCaptureCommand

from evento import EventoBundle
from evento.bundle import services
from evento.messages import now_micros
from evento.state_store.sqlite import SqliteStateStore

CALLERS = 24
READY, RUNNING, STEP = b"ready\n", b"running\n", b"step\n"


def tell(word: bytes) -> None:
    """Tell the parent how far the process has come."""
    os.write(1, word)


async def storm(directory: Path, round: str, timeout: str = "30", lease_seconds: str = "30") -> None:
    """Send commands from many callers at once, for ever; first those that have no answer yet."""
    services.LEASE_SECONDS = float(lease_seconds)
    journal = Journal(directory / "journal")
    history = journal.read()
    unanswered = deque(history.open)
    answered = [history.sent[key] for key in history.done]
    tell(READY)
    async with running(directory, 1) as bundle, asyncio.TaskGroup() as callers:
        tell(RUNNING)
        for number in range(CALLERS):
            # The orders of a few rounds are shared, so that later processes continue what earlier ones have begun.
            prefix, aggregates = f"{round}-{number}", f"ORD_{int(round) // 3}"
            callers.create_task(
                _call(bundle, journal, prefix, aggregates, unanswered, answered, timeout=float(timeout))
            )


async def _call(
    bundle: EventoBundle,
    journal: Journal,
    prefix: str,
    aggregates: str,
    unanswered: deque[Order],
    answered: list[Order],
    *,
    timeout: float,
) -> None:
    random = Random(prefix)
    fresh = orders(random, prefix=prefix, aggregates=aggregates)
    while True:
        if unanswered:
            order = unanswered.popleft()
        elif answered and random.random() < 0.05:
            order = random.choice(answered)
        else:
            order = next(fresh)
        if not await send(bundle, journal, order, timeout=timeout):
            unanswered.append(order)


async def hold(directory: Path) -> None:
    """Hold the lock of a payment for ever."""

    async def hang(message_id: str) -> None:
        tell(RUNNING)
        await asyncio.Event().wait()

    tell(READY)
    async with running(directory, 1, on_payment=hang) as bundle:
        await bundle.commands.send(PaymentCaptureCommand("ORD", 1), message_id="held")


async def start(directory: Path) -> None:
    """Start a bundle, on files that need not be there yet, and stop it."""
    tell(READY)
    async with running(directory, 1):
        tell(RUNNING)


async def purge(directory: Path) -> None:
    """Remove the events of all deleted orders, telling of each step, and then hang."""
    async with SqliteStateStore(event_store(directory)) as store:
        tell(READY)
        await store.purge(deleted_before=now_micros(), progress=lambda done, total: tell(STEP))
        await asyncio.Event().wait()


MODES = {mode.__name__: mode for mode in (storm, hold, start, purge)}

if __name__ == "__main__":
    signal.alarm(120)  # a process whose parent has died ends by itself
    asyncio.run(MODES[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:]))
