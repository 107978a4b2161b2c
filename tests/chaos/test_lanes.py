"""kill -9 at random moments while a read model is built in lanes: no event is missing, each order's stay in order.

``EVENTO_CHAOS_ROUNDS`` says how many kills, ``EVENTO_CHAOS_SEED`` which: a failure prints it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from random import Random

import laned
import pytest
from killing import all_events
from laned import Sighting, running

from evento.state_store.sqlite import SqliteStateStore

pytestmark = pytest.mark.chaos

ROUNDS = int(os.environ.get("EVENTO_CHAOS_ROUNDS", "2"))
SEED = os.environ.get("EVENTO_CHAOS_SEED") or str(Random().randrange(10**6))


@pytest.mark.timeout(60 + 10 * ROUNDS)
async def test_killed_again_and_again_the_lanes_miss_nothing_and_keep_the_order(tmp_path: Path) -> None:
    print(f"EVENTO_CHAOS_SEED={SEED}")  # noqa: T201 - pytest shows it when the test fails
    random = Random(SEED)
    for number in range(ROUNDS):
        await _run_and_kill(tmp_path, number, random)
    async with running(tmp_path) as (bundle, log):
        await bundle.consumers_caught_up(40)
        (status,) = await bundle.consumers.list()
        assert (status.dead, status.waiting) == (0, 0)
        killed = log.read()
    async with running(tmp_path, version=2) as (bundle, log):
        await bundle.consumers_caught_up(40)
        clean = log.read()
    assert read_model(killed) == read_model(clean)
    assert stories(killed) == stories(clean)
    async with SqliteStateStore(tmp_path / "shop.db") as store:
        assert (await store.verify()).ok
        assert {one.position for one in killed} == {event.position for event in await all_events(store)}


async def _run_and_kill(directory: Path, number: int, random: Random) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(laned.__file__),
        *map(str, (directory, number)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == laned.READY
        await asyncio.sleep(random.uniform(0.2, 1.5))
    finally:
        if process.returncode is None:
            process.kill()
        _, errors = await process.communicate()
    assert process.returncode == -signal.SIGKILL, errors.decode()


def read_model(sightings: Iterable[Sighting]) -> dict[str, int]:
    """Return the quantity of each order, where an event that comes again changes nothing."""
    quantities = {one.position: one for one in sightings}
    totals: dict[str, int] = defaultdict(int)
    for one in quantities.values():
        totals[one.order_id] += one.quantity
    return totals


def stories(sightings: Iterable[Sighting]) -> dict[str, list[int]]:
    """Return the positions of each order's events in the order of their first handling, which must be ascending."""
    found: dict[str, dict[int, None]] = defaultdict(dict)
    for one in sightings:
        found[one.order_id][one.position] = None
    for order_id, positions in found.items():
        assert list(positions) == sorted(positions), order_id
    return {order_id: list(positions) for order_id, positions in found.items()}
