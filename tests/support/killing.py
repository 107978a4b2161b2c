"""Worker processes that are killed, and what must be true of the files that they leave behind."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from depot import KeptOrderAggregate, decided_on, event_store, read_models, running
from journal import History, Journal, send
from shop import ItemAddedEvent, OrderCancelledEvent, OrderPlacedEvent, OrderState, PaymentCapturedEvent

from evento.bundle.fingerprint import state_fingerprint
from evento.components import component_definition
from evento.messages import EventRecord
from evento.state_store import StateStore
from evento.state_store.sqlite import SqliteStateStore

WORKER = Path(__file__).with_name("depot_worker.py")
FINGERPRINT = state_fingerprint(component_definition(KeptOrderAggregate))
EVENTS = {cls.__name__: cls for cls in (OrderPlacedEvent, ItemAddedEvent, OrderCancelledEvent, PaymentCapturedEvent)}


class Worker:
    """A running worker process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid

    async def until(self, word: str) -> None:
        """Wait until the worker says how far it has come; fail when it ends before."""
        assert self._process.stdout is not None
        while (line := await self._process.stdout.readline()) != f"{word}\n".encode():
            assert line, f"the worker has ended: {await self.ended()}"

    def pause(self) -> None:
        """Stop the process where it is."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let a stopped process go on."""
        self._process.send_signal(signal.SIGCONT)

    async def kill(self) -> None:
        """Kill the process, with no chance to do anything about it; fail when it has ended by itself."""
        if self._process.returncode is None:
            self._process.kill()
        ended = await self.ended()
        assert ended.startswith(f"{-signal.SIGKILL} "), f"the worker has ended by itself: {ended}"

    async def ended(self) -> str:
        """Wait for the end of the process; return its exit code and what it complained about."""
        assert self._process.stderr is not None
        errors = await self._process.stderr.read()
        return f"{await self._process.wait()} {errors.decode()}"


@asynccontextmanager
async def worker(*arguments: object) -> AsyncIterator[Worker]:
    """Run a worker process; it is dead at the end of the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(WORKER),
        *map(str, arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    try:
        yield Worker(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


# What must be true ---------------------------------------------------------------------------------------------------


async def check_store(directory: Path, scratch: Path, history: History) -> list[EventRecord]:
    """Check the event store as a kill has left it, on a copy, so that the next worker finds the files as they are."""
    assert history.wrong == []
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    for file in directory.glob(f"{event_store(directory).name}*"):
        shutil.copy(file, scratch)
    async with SqliteStateStore(event_store(scratch)) as store:
        report = await store.verify()
        assert report.ok, report.problems
        events = await all_events(store)
        assert len(events) == await store.head()
        await _check_snapshots(store, events)
    check_events(events, history)
    return events


async def all_events(store: StateStore) -> list[EventRecord]:
    """Return the whole stream."""
    events: list[EventRecord] = []
    while True:
        page = await store.fetch(events[-1].position if events else 0, limit=10_000)
        events += page.events
        if page.scanned_to >= page.head:
            return events


def check_events(events: Sequence[EventRecord], history: History) -> None:
    """Check that the stream is what the callers were told, exactly once and in order."""
    assert [event.position for event in events] == list(range(1, len(events) + 1))
    versions: dict[str, int] = defaultdict(int)
    totals: dict[str, int] = defaultdict(int)
    tokens: dict[str, int] = defaultdict(int)
    stored: dict[str, tuple[int, int | None]] = {}
    for event in events:
        assert event.command_id not in stored, f"{event.command_id} is stored twice"
        stored[event.command_id] = (event.position, event.version)
        assert event.aggregate_id is not None
        versions[event.aggregate_id] += 1
        assert event.version == versions[event.aggregate_id]
        payload = payload_of(event)
        order = history.sent[event.command_id]  # nothing that was not sent
        assert payload.order_id == order.order_id
        if isinstance(payload, ItemAddedEvent):
            assert payload.quantity == order.quantity
            # Decided on the state right before it, unless it gave that promise up.
            assert payload.sku == decided_on(totals[payload.order_id]) or order.lock is None
            totals[payload.order_id] += payload.quantity
        if isinstance(payload, PaymentCapturedEvent):
            assert payload.token > tokens[event.aggregate_id], "fencing tokens must rise"
            tokens[event.aggregate_id] = payload.token
    assert {key: stored.get(key) for key in history.done} == history.done  # nothing acknowledged is lost or moved
    assert not stored.keys() & history.refused.keys(), "what was refused has taken no effect"
    assert not stored.keys() & history.given_up, "what was not handled, and not sent again, has taken no effect"


async def _check_snapshots(store: SqliteStateStore, events: Sequence[EventRecord]) -> None:
    streams: dict[str, list[EventRecord]] = defaultdict(list)
    for event in events:
        streams[event.aggregate_id or ""].append(event)
    for aggregate_id, records in streams.items():
        story = await store.story(aggregate_id, fingerprint=FINGERPRINT)
        assert story.version == len(records)
        if story.snapshot is not None:
            state = msgspec.json.decode(story.snapshot.state, type=OrderState)
            assert state == fold(records[: story.snapshot.version])


def payload_of(event: EventRecord) -> Any:
    """Return an event's payload."""
    return msgspec.json.decode(event.payload, type=EVENTS[event.name])


def fold(events: Sequence[EventRecord]) -> OrderState:
    """Return the state after all events of an order, worked out apart from the aggregate."""
    state = OrderState()
    for event in events:
        match payload_of(event):
            case OrderPlacedEvent(customer=customer):
                state.customer = customer
            case ItemAddedEvent(sku=sku, quantity=quantity):
                state.items[sku] = state.items.get(sku, 0) + quantity
                state.total += quantity
            case OrderCancelledEvent():
                state.deleted = True
    return state


def expected_read_models(events: Sequence[EventRecord]) -> dict[str, list[Any]]:
    """Return what the read models must hold after these events, worked out apart from the projectors."""
    orders: dict[str, list[Any]] = {}
    payments: dict[str, list[Any]] = {}
    diary: list[Any] = []
    for event in events:
        payload = payload_of(event)
        key = payload.order_id
        amount = 0
        match payload:
            case OrderPlacedEvent(customer=customer):
                orders[key] = [key, customer, 0, 1, 0]
            case ItemAddedEvent(quantity=amount):
                orders[key][2] += amount
                orders[key][3] += 1
            case OrderCancelledEvent():
                orders[key][3] += 1
                orders[key][4] += 1
            case PaymentCapturedEvent(amount=amount):
                row = payments.setdefault(key, [key, 0, 0])
                row[1] += 1
                row[2] += amount
        diary.append((event.position, event.name, key, amount))
    return {
        "orders": [tuple(orders[key]) for key in sorted(orders)],
        "payments": [tuple(payments[key]) for key in sorted(payments)],
        "diary": diary,
    }


async def settle(directory: Path, scratch: Path, *, version: int) -> int:
    """Bring every command to its answer and the read models to the head, and check all of it.

    :param version: of the projectors that read everything from scratch: one that was never run.
    :return: how many events there are.
    """
    journal = Journal(directory / "journal")
    async with running(directory, 1) as bundle:
        history = journal.read()
        for order in history.open:
            assert await send(bundle, journal, order)
        history = journal.read()
        for order in list(history.sent.values())[-200:]:
            if order.id not in history.refused:  # which may be decided otherwise by now
                assert await send(bundle, journal, order)
        await bundle.consumers_caught_up(30)
    async with running(directory, version) as bundle:
        await bundle.consumers_caught_up(30)
    history = journal.read()
    journal.close()
    assert history.open == []
    events = await check_store(directory, scratch, history)
    assert {event.command_id for event in events} == history.done.keys()
    expected = expected_read_models(events)
    assert read_models(directory, 1) == expected
    assert read_models(directory, version) == expected
    return len(events)
