"""Handlers that write on the consumer's connection, on the servers, whatever becomes of sessions and locks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection
from streams import ThingAddedEvent, add, add_many, group_of, things
from waiting import eventually

from evento import EventMessage, Projector, event_handler
from evento.consumers import ConsumerId, ConsumerState, SqlConsumerStateStore
from evento.state_store import StateStore

Write = Callable[[AsyncConnection, EventMessage[Any]], Awaitable[None]]

EFFECTS = ConsumerId("test_bundle", "EffectProjector", 1, "*")
SESSIONS = {
    "postgresql": (
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()",
        "SELECT pg_terminate_backend({})",
    ),
    "mysql": (
        "SELECT id FROM information_schema.processlist WHERE db = DATABASE() AND id <> CONNECTION_ID()",
        "KILL CONNECTION {}",
    ),
}


class EffectProjector(Projector, version=1):
    """Keeps a row for each event, then does what the test says, on the same connection."""

    def __init__(self, write: Write) -> None:
        self._write = write

    @event_handler(retry=0)
    async def on_added(
        self, event: ThingAddedEvent, connection: AsyncConnection, message: EventMessage[ThingAddedEvent]
    ) -> None:
        effect = {"position": message.position, "number": event.number}
        await connection.execute(text("INSERT INTO effects VALUES (:position, :number)"), effect)
        await self._write(connection, message)


class OtherProjector(EffectProjector, version=1):
    """The same, as another consumer."""


async def nothing(connection: AsyncConnection, message: EventMessage[Any]) -> None:
    """Write nothing more."""


@pytest.fixture
async def state(database: str) -> AsyncIterator[SqlConsumerStateStore]:
    """The consumer state store, with the tables of the projector."""
    async with SqlConsumerStateStore(database) as store:
        async with store.begin() as connection:
            await connection.execute(text("CREATE TABLE effects (position BIGINT, number BIGINT CHECK (number >= 0))"))
            await connection.execute(text("CREATE TABLE totals (name VARCHAR(9) PRIMARY KEY, amount BIGINT)"))
            await connection.execute(text("INSERT INTO totals VALUES ('a', 0), ('b', 0)"))
        yield store


async def effects(store: SqlConsumerStateStore) -> list[int]:
    """Return the positions in the table, sorted."""
    async with store.begin() as connection:
        return list(await connection.scalars(text("SELECT position FROM effects ORDER BY position")))


async def kill_sessions(store: SqlConsumerStateStore) -> int:
    """End all sessions of others in the database; return how many there were."""
    async with store.begin() as connection:
        find, kill = SESSIONS[connection.dialect.name]
        sessions = (await connection.scalars(text(find))).all()
        for session in sessions:
            with suppress(DBAPIError):  # it has ended meanwhile
                await connection.execute(text(kill.format(session)))
        return len(sessions)


async def test_sessions_that_end_at_random_moments_repeat_and_lose_nothing(
    database: str, events: StateStore, state: SqlConsumerStateStore
) -> None:
    random, killed, count = Random(7), 0, 0

    async def write(connection: AsyncConnection, message: EventMessage[Any]) -> None:
        await connection.execute(text("UPDATE totals SET amount = amount + 1 WHERE name = 'a'"))

    async with (
        SqlConsumerStateStore(database) as killer,
        group_of(events, state, EffectProjector(write), fetch_size=10) as group,
    ):
        while killed < 8:
            await add_many(events, things(20))
            count += 20
            await asyncio.sleep(random.uniform(0.005, 0.1))
            killed += await kill_sessions(killer)
        await group.caught_up(50)
        assert group.statuses()[0].dead == 0
    assert await effects(state) == list(range(1, count + 1))
    async with state.begin() as connection:
        assert await connection.scalar(text("SELECT amount FROM totals WHERE name = 'a'")) == count


async def test_who_takes_over_in_a_handler_writes_everything_once(
    database: str, events: StateStore, state: SqlConsumerStateStore
) -> None:
    inside, go_on = asyncio.Event(), asyncio.Event()

    async def wait(connection: AsyncConnection, message: EventMessage[Any]) -> None:
        if message.position == 3:
            inside.set()
            await go_on.wait()

    await add(events, *things(5))
    async with (
        SqlConsumerStateStore(database) as other,
        group_of(events, state, EffectProjector(wait), lease_ttl=timedelta(hours=1)) as paused,
    ):
        await inside.wait()
        async with group_of(events, other, EffectProjector(nothing), take_over=True) as group:
            await group.caught_up(20)
            go_on.set()
            await eventually(lambda: paused.statuses()[0].state is ConsumerState.STANDBY)
            assert await effects(other) == [1, 2, 3, 4, 5]
    assert await effects(state) == [1, 2, 3, 4, 5]
    assert await state.dead_events(EFFECTS) == []


async def test_a_deadlock_is_no_fault_of_the_events(events: StateStore, state: SqlConsumerStateStore) -> None:
    together = asyncio.Barrier(2)
    first = {"a": True, "b": True}

    def lock(one: str, two: str) -> Write:
        async def write(connection: AsyncConnection, message: EventMessage[Any]) -> None:
            for name in (one, two):
                await connection.execute(text(f"UPDATE totals SET amount = amount + 1 WHERE name = '{name}'"))
                if first[one]:
                    first[one] = False
                    await together.wait()

        return write

    await add(events, *things(2))
    readers = EffectProjector(lock("a", "b")), OtherProjector(lock("b", "a"))
    async with group_of(events, state, *readers) as group:
        await group.caught_up(20)
        assert [status.dead for status in group.statuses()] == [0, 0]
    assert await effects(state) == [1, 1, 2, 2]
    async with state.begin() as connection:
        assert (await connection.scalars(text("SELECT amount FROM totals"))).all() == [4, 4]


async def test_waiting_in_a_transaction_is_the_fault_of_the_handler_and_a_slow_statement_is_not(
    database: str, events: StateStore, state: SqlConsumerStateStore
) -> None:
    sleep = "SELECT pg_sleep(1)" if "postgresql" in database else "SELECT SLEEP(1)"

    async def write(connection: AsyncConnection, message: EventMessage[Any]) -> None:
        match message.position:
            case 1:
                await connection.execute(text(sleep))
            case 2:
                await asyncio.Event().wait()

    await add(events, *things(3))
    async with (
        SqlConsumerStateStore(database, patience=0.2) as impatient,
        group_of(events, impatient, EffectProjector(write)) as group,
    ):
        await group.caught_up(20)
    assert await effects(state) == [1, 3]
    (dead,) = await state.dead_events(EFFECTS)
    assert (dead.position, dead.error_type) == (2, "TransactionTooLong")


@pytest.mark.parametrize("statement", [None, "SELECT nowhere FROM effects", "SELECT 1 FROM nothing", "SELEC 1"])
async def test_what_the_database_refuses_for_good_is_a_dead_event(
    events: StateStore, state: SqlConsumerStateStore, statement: str | None
) -> None:
    async def write(connection: AsyncConnection, message: EventMessage[Any]) -> None:
        if statement is not None and message.position == 2:
            await connection.execute(text(statement))

    await add(events, ThingAddedEvent("T_1"), ThingAddedEvent("T_2", 0 if statement else -1), ThingAddedEvent("T_3"))
    async with group_of(events, state, EffectProjector(write)) as group:
        await group.caught_up(20)
    assert await effects(state) == [1, 3]
    assert [event.position for event in await state.dead_events(EFFECTS)] == [2]
