"""kill -9 at random moments with all seven roles at work: what is left equals what an undisturbed run leaves.

``EVENTO_CHAOS_ROUNDS`` says how many kills, ``EVENTO_CHAOS_SEED`` which: a failure prints it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import defaultdict
from pathlib import Path
from random import Random

import pytest
import seven_roles
from depot import event_store, read_models
from killing import all_events, expected_read_models
from seven_roles import CustomerInvoker, running, saga_states, seen

from evento.messages import EventRecord
from evento.state_store.sqlite import SqliteStateStore

pytestmark = pytest.mark.chaos

ROUNDS = int(os.environ.get("EVENTO_CHAOS_ROUNDS", "2"))
SEED = os.environ.get("EVENTO_CHAOS_SEED") or str(Random().randrange(10**6))
ORDERS_EACH = 10


@pytest.mark.timeout(60 + 10 * ROUNDS)
async def test_killed_again_and_again_nothing_is_twice_and_nothing_is_missing(tmp_path: Path) -> None:
    print(f"EVENTO_CHAOS_SEED={SEED}")  # noqa: T201 - pytest shows it when the test fails
    random = Random(SEED)
    killed, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    killed.mkdir()
    undisturbed.mkdir()
    for number in range(ROUNDS):
        await _run_and_kill(killed, number * ORDERS_EACH, random)
    orders = ROUNDS * ORDERS_EACH
    await _settle(killed, orders)
    await _settle(undisturbed, orders)

    events = await _events(killed)
    assert _stories(events) == _stories(await _events(undisturbed))
    assert len({event.command_id for event in events}) == len(events)
    states = await saga_states(killed)
    assert states == await saga_states(undisturbed)
    assert len(states) == orders - (orders + 2) // 3  # every third has ended
    assert read_models(killed, 1) == read_models(killed, 2) == expected_read_models(events)
    assert seen(killed) >= {event.position for event in events}


async def _run_and_kill(directory: Path, first: int, random: Random) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(seven_roles.__file__),
        *map(str, (directory, first, ORDERS_EACH)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == seven_roles.READY
        await asyncio.sleep(random.uniform(0.1, 1.5))
    finally:
        if process.returncode is None:
            process.kill()
        _, errors = await process.communicate()
    assert process.returncode == -signal.SIGKILL, errors.decode()


async def _settle(directory: Path, orders: int) -> None:
    """Place every order, again where it was placed before; wait for all that follows, and replay the read models."""
    async with running(directory) as bundle:
        invoker = bundle.invoker(CustomerInvoker)
        for number in range(orders):
            await invoker.place(number)
        await bundle.consumers_caught_up(40)
        assert [(status.dead, status.waiting) for status in await bundle.consumers.list()] == [(0, 0)] * 4
        assert (await invoker.find(orders - 1)).total == 3
    async with running(directory, version=2) as bundle:
        await bundle.consumers_caught_up(40)


async def _events(directory: Path) -> list[EventRecord]:
    async with SqliteStateStore(event_store(directory)) as store:
        assert (await store.verify()).ok
        return await all_events(store)


def _stories(events: list[EventRecord]) -> dict[str, list[str]]:
    stories: dict[str, list[str]] = defaultdict(list)
    for event in events:
        stories[(event.aggregate_id or "").removeprefix("PAY_")].append(event.name)
    return dict(sorted(stories.items()))
