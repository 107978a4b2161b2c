"""kill -9 at random moments: nothing acknowledged is lost, nothing is stored twice, read models equal a replay.

``EVENTO_CHAOS_ROUNDS`` says how many kills (``make chaos``: 100), ``EVENTO_CHAOS_SEED`` which: a failure prints it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections import defaultdict
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from random import Random

import pytest
from depot import event_store, running
from journal import Journal
from killing import Worker, all_events, check_store, settle, worker
from shop import (
    ItemAddCommand,
    ItemAddedEvent,
    OrderCancelledEvent,
    OrderPlaceCommand,
    OrderPlacedEvent,
    PaymentCaptureCommand,
)

from evento import AggregateDeleted
from evento.messages import EventRecord, new_id, now_micros, seal
from evento.state_store import AlreadyStored, Append, Appended, NewEvent
from evento.state_store.sqlite import SqliteStateStore

pytestmark = pytest.mark.chaos

ROUNDS = int(os.environ.get("EVENTO_CHAOS_ROUNDS", "6"))
SEED = os.environ.get("EVENTO_CHAOS_SEED") or str(Random().randrange(10**6))
SETTLE_EVERY = 10
OrderEvent = OrderPlacedEvent | ItemAddedEvent | OrderCancelledEvent
TIMEOUT = 60 + 10 * ROUNDS


@pytest.fixture
def random(request: pytest.FixtureRequest) -> Random:
    print(f"EVENTO_CHAOS_SEED={SEED}")  # noqa: T201 - pytest shows it when the test fails
    return Random(f"{SEED} {request.node.name}")


@pytest.fixture
def depot(tmp_path: Path) -> Path:
    directory = tmp_path / "depot"
    directory.mkdir()
    return directory


@pytest.mark.timeout(TIMEOUT)
async def test_under_load(depot: Path, tmp_path: Path, random: Random) -> None:
    journal = Journal(depot / "journal")
    for number in count(1):
        async with worker("storm", depot, number) as victim:
            await _reach_a_random_moment(victim, random)
            await victim.kill()
        await check_store(depot, tmp_path / "copy", journal.read())
        if number < ROUNDS and number % SETTLE_EVERY:
            continue
        events = await settle(depot, tmp_path / "copy", version=number + 1)
        if number >= ROUNDS and events > 20 * ROUNDS:  # more rounds where few was stored: by chance, or a busy machine
            break
    journal.close()


async def _reach_a_random_moment(victim: Worker, random: Random) -> None:
    """Mostly under load, sometimes in the start-up and the recovery of what the last kill has left."""
    match random.random():
        case chance if chance < 0.1:
            await asyncio.sleep(random.uniform(0, 1))
        case chance if chance < 0.25:
            await victim.until("ready")
            await asyncio.sleep(random.uniform(0, 0.1))
        case _:
            await victim.until("running")
            await asyncio.sleep(random.uniform(0.05, 1))


@pytest.mark.timeout(TIMEOUT)
async def test_a_process_that_stands_still_for_longer_than_its_deadlines_and_leases(
    depot: Path, tmp_path: Path, random: Random
) -> None:
    journal = Journal(depot / "journal")
    for number in range(max(1, ROUNDS // 3)):
        async with worker("storm", depot, number, 0.3, 0.2) as victim:
            await victim.until("running")
            for _ in range(3):
                await asyncio.sleep(random.uniform(0.05, 0.3))
                victim.pause()
                await asyncio.sleep(random.uniform(0.01, 0.5))
                if random.random() < 0.2:
                    break
                victim.go_on()
            await victim.kill()
        await check_store(depot, tmp_path / "copy", journal.read())
    await settle(depot, tmp_path / "copy", version=2)
    journal.close()


@pytest.mark.timeout(TIMEOUT)
async def test_while_the_files_are_made(depot: Path, tmp_path: Path, random: Random) -> None:
    for number in range(ROUNDS):
        files = tmp_path / f"depot-{number // 3}"
        files.mkdir(exist_ok=True)
        async with worker("start", files) as victim:
            await victim.until("ready")
            await asyncio.sleep(random.uniform(0, 0.08))
            await victim.kill()
        if number % 3 == 2 or number == ROUNDS - 1:
            async with running(files, 1) as bundle:
                await bundle.commands.send(OrderPlaceCommand("ORD", "ann"))
            async with SqliteStateStore(event_store(files)) as store:
                assert (await store.verify()).ok
                assert await store.head() == 1


async def test_the_lock_of_a_killed_process_is_free_at_once(depot: Path) -> None:
    async with worker("hold", depot) as victim:
        await victim.until("running")
        await victim.kill()
    async with running(depot, 1) as bundle:
        event = await bundle.commands.send(PaymentCaptureCommand("ORD", 1), message_id="held", timeout=15)
        assert event.token == 2  # the dead process had the first


@pytest.mark.timeout(TIMEOUT)
async def test_during_a_purge(depot: Path, tmp_path: Path, random: Random) -> None:
    async with SqliteStateStore(event_store(depot)) as store:
        before = await _fill(store, deleted=60, living=5, events=50)
    for number in range(max(1, ROUNDS // 2)):
        files = tmp_path / f"copy-{number}"
        shutil.copytree(depot, files)
        async with worker("purge", files) as victim:
            await victim.until("ready")
            for _ in range(random.randrange(1, 5)):
                await victim.until("step")
            await asyncio.sleep(random.uniform(0, 0.003))
            await victim.kill()
        async with SqliteStateStore(event_store(files)) as store:
            assert await _check_purged(store, before) < len(before)
            await store.purge(deleted_before=now_micros())
            assert await _check_purged(store, before) == 5 * 50 + 60
        async with running(files, 1) as bundle:
            with pytest.raises(AggregateDeleted):
                await bundle.commands.send(ItemAddCommand("GONE-1", "tea"))
            message = await bundle.commands.send_message(ItemAddCommand("KEPT-1", "tea"))
            assert (message.position, message.version) == (len(before) + 1, 51)


async def _check_purged(store: SqliteStateStore, before: Sequence[EventRecord]) -> int:
    """Check a store after a purge, whole or not; return how many events are left."""
    report = await store.verify()
    assert report.ok, report.problems
    assert await store.head() == len(before)
    left = {event.position: event for event in await all_events(store)}
    for event in before:
        if event.aggregate_id is None or event.aggregate_id.startswith("KEPT") or event.name == "OrderCancelledEvent":
            assert left[event.position] == event
        known = await store.lookup(event.command_id)
        assert isinstance(known, AlreadyStored)
        assert (known.name, known.aggregate_id) == (event.name, event.aggregate_id)
    return len(left)


async def _fill(store: SqliteStateStore, *, deleted: int, living: int, events: int) -> list[EventRecord]:
    """Store the events of many orders, mixed."""
    appends = []
    versions: dict[str, int] = defaultdict(int)
    names = [f"GONE-{number}" for number in range(deleted)] + [f"KEPT-{number}" for number in range(living)]
    for number in range(1, events + 1):
        for name in names:
            last = number == events and name.startswith("GONE")
            event: OrderEvent = OrderCancelledEvent(name) if last else ItemAddedEvent(name, "tea", 0)
            if number == 1:
                event = OrderPlacedEvent(name, "ann")
            append = Append(_new(event, name), expected_version=versions[name], boundary=name, deletes=last)
            versions[name] += 1
            appends.append(store.append(append))
    stored = await asyncio.gather(*appends)
    assert all(isinstance(outcome, Appended) for outcome in stored)
    return await all_events(store)


def _new(event: OrderEvent, order_id: str) -> NewEvent:
    message_id = new_id()
    return NewEvent(
        context="default",
        aggregate_id=order_id,
        name=type(event).__name__,
        schema_version=1,
        kind="domain",
        payload=seal(event)[0],
        metadata=b"{}",
        event_id=new_id(),
        command_id=message_id,
        correlation_id=message_id,
        causation_id=None,
        timestamp=now_micros(),
    )
