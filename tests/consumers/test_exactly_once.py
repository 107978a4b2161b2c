"""Handlers that write on the consumer's connection: their effects and the checkpoint are one transaction."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from streams import (
    TICK,
    ClockTickedEvent,
    FaultyConsumerStore,
    RowProjector,
    Seen,
    ThingAddedEvent,
    ThingProjector,
    add,
    add_many,
    group_of,
    make_rows,
    rows,
    things,
)
from waiting import eventually

from evento import EventMessage, Projector, TransientError, event_handler
from evento.consumers import ConsumerId, SqlConsumerStateStore
from evento.errors import StoreUnavailable
from evento.state_store import StateStore

ROWS = ConsumerId("test_bundle", "RowProjector", 1, "*")


async def test_what_a_handler_writes_is_there_with_the_checkpoint(
    events: StateStore, state: SqlConsumerStateStore
) -> None:
    await add(events, *things(5))
    async with group_of(events, state, RowProjector(Seen())) as group:
        await group.caught_up(10)
        assert await rows(state) == [1, 2, 3, 4, 5]


async def test_a_batch_of_events_is_one_transaction(events: StateStore, state: SqlConsumerStateStore) -> None:
    await add_many(events, things(1000))
    store = FaultyConsumerStore(state)
    interval = timedelta(hours=1)  # how many there are at the default depends on how fast this machine is
    async with group_of(events, store, RowProjector(Seen()), checkpoint_interval=interval) as group:
        await group.caught_up(40)
    assert await rows(state) == list(range(1, 1001))
    assert store.commits < 100


@pytest.mark.parametrize("failing", [1, 4, 10])
async def test_a_failing_event_takes_nothing_else_with_it(
    events: StateStore, state: SqlConsumerStateStore, failing: int
) -> None:
    async def handle(message: EventMessage[Any]) -> None:
        if message.position == failing:
            raise ValueError("no")

    await add(events, *things(10))
    async with group_of(events, state, RowProjector(handle)) as group:
        await group.caught_up(10)
    assert await rows(state) == [position for position in range(1, 11) if position != failing]
    (dead,) = await state.dead_events(ROWS)
    assert (dead.position, dead.error_message) == (failing, "no")


async def test_events_that_wait_are_parked_once_when_their_batch_is_repeated(
    events: StateStore, state: SqlConsumerStateStore
) -> None:
    async def handle(message: EventMessage[Any]) -> None:
        if message.aggregate_id in {"A", "C"}:
            raise ValueError("no")

    await add(events, ThingAddedEvent("A"))
    async with group_of(events, state, RowProjector(handle)) as group:
        await group.caught_up(10)
    await add(events, *(ThingAddedEvent(thing) for thing in ("B", "A", "B", "C", "A", "B")))
    async with group_of(events, state, RowProjector(handle)) as group:
        await group.caught_up(10)
        (status,) = group.statuses()
        assert (status.dead, status.waiting) == (2, 2)
    assert await rows(state) == [2, 4, 7]
    assert [dead.position for dead in await state.dead_events(ROWS)] == [1, 3, 5, 6]


async def test_events_that_wait_just_before_a_failing_one_are_parked(
    events: StateStore, state: SqlConsumerStateStore
) -> None:
    async def handle(message: EventMessage[Any]) -> None:
        if message.aggregate_id in {"A", "C"}:
            raise ValueError("no")

    await add(events, *(ThingAddedEvent(name) for name in "ZAAC"))
    async with group_of(events, state, RowProjector(handle), checkpoint_interval=timedelta(hours=1)) as group:
        await group.caught_up(10)
    assert await rows(state) == [1]
    assert [(e.position, e.waiting) for e in await state.dead_events(ROWS)] == [(2, False), (3, True), (4, False)]


class MixedProjector(Projector, version=1):
    """Writes on the injected connection for one event, and elsewhere for the other."""

    def __init__(self, elsewhere: Seen) -> None:
        self._elsewhere = elsewhere

    @event_handler
    async def on_ticked(self, event: ClockTickedEvent, message: EventMessage[ClockTickedEvent]) -> None:
        await self._elsewhere(message)

    @event_handler(retry=0)
    async def on_added(self, event: ThingAddedEvent, connection: AsyncConnection) -> None:
        raise ValueError("no")


async def test_a_handler_without_a_transaction_is_not_repeated_for_ever_before_one_that_fails(
    events: StateStore, state: SqlConsumerStateStore
) -> None:
    elsewhere = Seen()
    await add(events, ClockTickedEvent(), ThingAddedEvent("A"), ClockTickedEvent())
    group = group_of(events, state, MixedProjector(elsewhere), checkpoint_interval=timedelta(hours=1))
    async with group:
        await group.caught_up(10)
        assert group.statuses()[0].dead == 1
    assert elsewhere.positions == [1, 1, 3]  # again once, with the transaction that was rolled back


async def test_a_retry_writes_once(events: StateStore, state: SqlConsumerStateStore) -> None:
    failures = {3: 2, 5: 1}

    async def handle(message: EventMessage[Any]) -> None:
        if failures.get(message.position, 0):
            failures[message.position] -= 1
            raise TransientError("not now")

    await add(events, *things(6))
    async with group_of(events, state, RowProjector(handle)) as group:
        await group.caught_up(10)
    assert await rows(state) == [1, 2, 3, 4, 5, 6]


async def test_an_error_of_the_database_is_the_handlers(events: StateStore, state: SqlConsumerStateStore) -> None:
    class BrokenProjector(Projector, version=1):
        @event_handler(retry=1, retry_delay=TICK)
        async def on_added(
            self, event: ThingAddedEvent, connection: AsyncConnection, message: EventMessage[Any]
        ) -> None:
            await connection.execute(text("INSERT INTO rows (position) VALUES (:p)"), {"p": message.position})
            if event.number == 2:
                await connection.execute(text("CREATE TABLE rows (position INTEGER UNIQUE) WITHOUT NONSENSE"))

    await add(events, *things(5))
    projector = BrokenProjector()
    async with group_of(events, state, projector) as group:
        # To SQLite this is an OperationalError, which passes by itself as far as anyone knows.
        await eventually(lambda: group.statuses()[0].errors >= 3)
        assert group.statuses()[0].position == 2
        assert await rows(state) == [1, 2]


async def test_a_commit_that_the_database_refuses_is_the_events(
    events: StateStore, state: SqlConsumerStateStore
) -> None:
    """As a deferred constraint does: the statements pass, the commit does not."""

    async def refuse(connection: AsyncConnection) -> Exception | None:
        refused = await connection.scalar(text("SELECT count(*) FROM rows WHERE position = 4"))
        return IntegrityError("COMMIT", {}, Exception("deferred constraint")) if refused else None

    store = FaultyConsumerStore(state)
    store.refuse = refuse
    await add(events, *things(6))
    async with group_of(events, store, RowProjector(Seen())) as group:
        await group.caught_up(10)
    assert await rows(state) == [1, 2, 3, 5, 6]
    (dead,) = await state.dead_events(ROWS)
    assert (dead.position, dead.error_type, dead.attempts) == (4, "IntegrityError", 3)


async def test_a_store_that_fails_at_the_commit_leaves_no_double(
    events: StateStore, state: SqlConsumerStateStore
) -> None:
    store = FaultyConsumerStore(state)
    await add(events, *things(4))
    async with group_of(events, store, RowProjector(Seen())) as group:
        await group.caught_up(10)
        store.error = StoreUnavailable("gone")
        await add(events, *things(4))
        await eventually(lambda: store.failures >= 2)
        assert await rows(state) == [1, 2, 3, 4]
        store.error = None
        await group.caught_up(10)
    assert await rows(state) == list(range(1, 9))


async def test_a_lost_lease_rolls_the_handler_back(events: StateStore, state: SqlConsumerStateStore) -> None:
    async def steal(message: EventMessage[Any]) -> None:
        if message.position == 2 and not stolen:
            stolen.append(True)
            # Nobody else can write while the transaction is open, so the thief comes in through it.
            await connections[0].execute(text("UPDATE evento_consumer SET lease_token = lease_token + 1"))

    stolen: list[bool] = []
    connections: list[AsyncConnection] = []

    class StolenProjector(Projector, version=1):
        @event_handler
        async def on_added(
            self, event: ThingAddedEvent, connection: AsyncConnection, message: EventMessage[Any]
        ) -> None:
            connections[:] = [connection]
            await connection.execute(text("INSERT INTO rows (position) VALUES (:p)"), {"p": message.position})
            await steal(message)

    await add(events, *things(3))
    async with group_of(events, state, StolenProjector()) as group:
        await group.caught_up(10)
    assert stolen
    assert await rows(state) == [1, 2, 3]


async def test_a_handler_that_commits_by_itself_is_told(events: StateStore, state: SqlConsumerStateStore) -> None:
    class MeddlingProjector(Projector, version=1):
        @event_handler(retry=0)
        async def on_added(self, event: ThingAddedEvent, connection: AsyncConnection) -> None:
            if event.number == 1:
                await connection.commit()

    await add(events, *things(3))
    async with group_of(events, state, MeddlingProjector()) as group:
        await group.caught_up(10)
    (dead,) = await state.dead_events(ConsumerId("test_bundle", "MeddlingProjector", 1, "*"))
    assert dead.position == 2
    assert "leave that to the consumer" in dead.error_message


async def test_a_handler_that_waits_in_its_transaction_fails_and_lets_the_others_go_on(events: StateStore) -> None:
    async def wait(message: EventMessage[Any]) -> None:
        if message.position == 2:
            await asyncio.Event().wait()

    await add(events, *things(4))
    async with SqlConsumerStateStore("sqlite+aiosqlite://", patience=0.1) as state:
        await make_rows(state)
        async with group_of(events, state, RowProjector(wait)) as group:
            await group.caught_up(10)
        assert await rows(state) == [1, 3, 4]
        (dead,) = await state.dead_events(ROWS)
        assert (dead.position, dead.error_type, dead.attempts) == (2, "TransactionTooLong", 3)
        assert "RowProjector.on_added held the checkpoint's transaction for more than 0.1 s" in dead.error_message


class Base(DeclarativeBase):
    pass


class Row(Base):
    __tablename__ = "rows"
    position: Mapped[int] = mapped_column(primary_key=True)
    thing_id: Mapped[str]


async def test_a_session_writes_in_the_same_transaction(events: StateStore, state: SqlConsumerStateStore) -> None:
    class SessionProjector(Projector, version=1):
        @event_handler(retry=0)
        async def on_added(self, event: ThingAddedEvent, session: AsyncSession, message: EventMessage[Any]) -> None:
            session.add(Row(position=message.position, thing_id=event.thing_id))
            if event.number == 2:
                raise ValueError("no")
            if event.number == 3:
                await session.commit()  # flushes: the transaction is the consumer's
            if event.number == 4:
                await session.merge(Row(position=1, thing_id="changed"))

    await add(events, *things(5))
    async with group_of(events, state, SessionProjector()) as group:
        await group.caught_up(10)
    assert await rows(state) == [1, 2, 4, 5]
    async with state.begin() as connection:
        assert await connection.scalar(text("SELECT thing_id FROM rows WHERE position = 1")) == "changed"
    (dead,) = await state.dead_events(ConsumerId("test_bundle", "SessionProjector", 1, "*"))
    assert dead.position == 3


async def test_no_transaction_stays_open_at_the_head(events: StateStore, state: SqlConsumerStateStore) -> None:
    seen = Seen()
    async with group_of(events, state, RowProjector(seen), checkpoint_interval=timedelta(hours=1)), asyncio.timeout(10):
        await add(events, *things(2))
        await seen.wait(2)
        await eventually(lambda: _count(state, 2))


async def _count(state: SqlConsumerStateStore, wanted: int) -> bool:
    return len(await rows(state)) == wanted


async def test_other_consumers_go_on_beside_an_open_transaction(
    events: StateStore, state: SqlConsumerStateStore
) -> None:
    seen = Seen()
    await add_many(events, things(300))
    async with group_of(events, state, RowProjector(Seen()), ThingProjector(seen), fetch_size=10) as group:
        await group.caught_up(20)
    assert await rows(state) == seen.positions == list(range(1, 301))
