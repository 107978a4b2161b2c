"""Streams of things, projectors that do what a test tells them, and stores that fail when told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection
from waiting import eventually

from evento import DomainEvent, EventMessage, Projector, ServiceEvent, event_handler
from evento.components import component_definition
from evento.consumers import ConsumerGroup, ConsumerLease, SqlConsumerStateStore
from evento.consumers.port import CheckpointTransaction
from evento.messages import Event, now_micros, seal
from evento.state_store import Append, Appended, NewEvent, Page, StateStore

TICK = timedelta(milliseconds=1)


class ThingAddedEvent(DomainEvent, domain="Thing"):
    thing_id: str
    number: int = 0


class ThingRenamedEvent(DomainEvent, domain="Thing"):
    thing_id: str


class ClockTickedEvent(ServiceEvent):
    number: int = 0


Handle = Callable[[EventMessage[Any]], Awaitable[None]]


class ThingProjector(Projector, version=1):
    """Hands every message to the test's function."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle

    @event_handler(retry=2, retry_delay=TICK)
    async def on_added(self, event: ThingAddedEvent, message: EventMessage[ThingAddedEvent]) -> None:
        await self._handle(message)

    @event_handler(retry=2, retry_delay=TICK)
    async def on_ticked(self, event: ClockTickedEvent, message: EventMessage[ClockTickedEvent]) -> None:
        await self._handle(message)


class RowProjector(Projector, version=1):
    """Keeps a row for each event in the database of the consumer state store; ``handle`` runs after the insert."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle

    @event_handler(retry=2, retry_delay=TICK)
    async def on_added(
        self, event: ThingAddedEvent, connection: AsyncConnection, message: EventMessage[ThingAddedEvent]
    ) -> None:
        await connection.execute(
            text("INSERT INTO rows (position, thing_id) VALUES (:position, :thing_id)"),
            {"position": message.position, "thing_id": event.thing_id},
        )
        await self._handle(message)


async def make_rows(store: SqlConsumerStateStore) -> None:
    """Make the table of :class:`RowProjector`."""
    async with store.begin() as connection:
        await connection.execute(text("CREATE TABLE IF NOT EXISTS rows (position INTEGER, thing_id TEXT)"))


async def rows(store: SqlConsumerStateStore) -> list[int]:
    """Return the positions in the table, sorted."""
    async with store.begin() as connection:
        return list(await connection.scalars(text("SELECT position FROM rows ORDER BY position")))


class Seen:
    """What a handler has seen: a handle for :class:`ThingProjector` that keeps the messages."""

    def __init__(self) -> None:
        self.messages: list[EventMessage[Any]] = []
        self._changed = asyncio.Event()

    async def __call__(self, message: EventMessage[Any]) -> None:
        self.messages.append(message)
        self._changed.set()
        self._changed = asyncio.Event()

    @property
    def positions(self) -> list[int]:
        return [message.position for message in self.messages]

    async def wait(self, count: int) -> None:
        """Wait until ``count`` messages were handled."""
        async with asyncio.timeout(20):
            while len(self.messages) < count:
                await self._changed.wait()


async def add(store: StateStore, *events: Event, metadata: bytes = b"{}") -> int:
    """Append events, each to the aggregate that its ``thing_id`` names; return the last position."""
    position = 0
    for event in events:
        position = await _append(store, event, seal(event)[0], metadata)
    return position


async def add_many(store: StateStore, events: Sequence[Event]) -> None:
    """Append many events in their order."""
    for start in range(0, len(events), 1000):
        await asyncio.gather(*(add(store, event) for event in events[start : start + 1000]))


async def add_raw(store: StateStore, name: str, aggregate_id: str | None, payload: bytes) -> int:
    """Append an event whose payload may be anything."""
    return await _append(store, ThingAddedEvent("raw"), payload, b"{}", name=name, aggregate_id=aggregate_id)


_numbers = iter(range(10**9))


async def _append(store: StateStore, event: Event, payload: bytes, metadata: bytes, **changes: Any) -> int:
    number = next(_numbers)
    fields: dict[str, Any] = {
        "context": event.context,
        "aggregate_id": getattr(event, "thing_id", None),
        "name": type(event).__evento__.name,
        "schema_version": 1,
        "kind": "domain" if isinstance(event, DomainEvent) else "service",
        "payload": payload,
        "metadata": metadata,
        "event_id": f"event-{number}",
        "command_id": f"command-{number}",
        "correlation_id": f"command-{number}",
        "causation_id": f"command-{number}",
        "timestamp": now_micros(),
    }
    outcome = await store.append(Append(NewEvent(**{**fields, **changes})))
    assert isinstance(outcome, Appended), outcome
    return outcome.record.position


def things(count: int, *, per_thing: int = 1) -> list[ThingAddedEvent]:
    """Return events, ``per_thing`` for each thing in turn."""
    return [ThingAddedEvent(f"T_{number // per_thing}", number) for number in range(count)]


def group_of(
    state_store: StateStore,
    consumer_store: Any,
    *components: object,
    bundle_id: str = "test_bundle",
    contexts: Sequence[str] | None = None,
    **options: Any,
) -> ConsumerGroup:
    """Return a group of projectors, sagas and observers that is not started."""
    group = ConsumerGroup(bundle_id, state_store=state_store, consumer_store=consumer_store, **options)
    for component in components:
        group.add(component_definition(type(component)), component, contexts=contexts)
    return group


def is_resting(group: ConsumerGroup) -> bool:
    """Whether the only consumer of a group waits to be woken: it begins no event until one ends, or it is told."""
    (consumer,) = group._consumers.values()
    wake = consumer._signals._wake
    return bool(wake._waiters) and not wake.is_set()


async def once_stopping(group: ConsumerGroup, do: Callable[[], None]) -> None:
    """Do something when the only consumer of a group is told to stop."""
    (consumer,) = group._consumers.values()
    await eventually(lambda: consumer._signals.stopping)
    do()


class FaultyStateStore:
    """A state store whose reads raise ``error`` while it is set, and are counted."""

    def __init__(self, store: StateStore) -> None:
        self._store = store
        self.error: Exception | None = None
        self.fetches = 0
        self.failures = 0
        self.waits = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def fetch(self, *arguments: Any, **named: Any) -> Page:
        self.fetches += 1
        self._fail()
        return await self._store.fetch(*arguments, **named)

    async def wait(self, after: int, timeout: float) -> int:
        self.waits += 1
        self._fail()
        return await self._store.wait(after, timeout)

    def _fail(self) -> None:
        if self.error is not None:
            self.failures += 1
            raise self.error


class FaultyConsumerStore:
    """A consumer state store whose commits raise ``error`` while it is set, and are counted."""

    def __init__(self, store: SqlConsumerStateStore) -> None:
        self._store = store
        self.error: Exception | None = None
        self.refuse: Callable[[AsyncConnection], Awaitable[Exception | None]] | None = None
        self.commits = 0
        self.failures = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def fail(self) -> None:
        self.commits += 1
        if self.error is not None:
            self.failures += 1
            raise self.error

    async def commit(self, lease: ConsumerLease, position: int, **named: Any) -> None:
        self.fail()
        await self._store.commit(lease, position, **named)

    def transaction(self, lease: ConsumerLease) -> AbstractAsyncContextManager[CheckpointTransaction]:
        return self._transaction(lease)

    @asynccontextmanager
    async def _transaction(self, lease: ConsumerLease) -> AsyncIterator[CheckpointTransaction]:
        async with self._store.transaction(lease) as transaction:
            yield _FaultyTransaction(self, transaction)


class _FaultyTransaction:
    def __init__(self, store: FaultyConsumerStore, transaction: CheckpointTransaction) -> None:
        self._store = store
        self._transaction = transaction
        self.connection = transaction.connection

    @property
    def is_open(self) -> bool:
        return self._transaction.is_open

    @property
    def patience(self) -> float:
        return self._transaction.patience

    def watched(self, handler: str) -> AbstractAsyncContextManager[None]:
        return self._transaction.watched(handler)

    async def commit(self, position: int, **named: Any) -> None:
        self._store.fail()
        if self._store.refuse is not None and (error := await self._store.refuse(self.connection)):
            raise error
        await self._transaction.commit(position, **named)
