"""The dead event queue at work: retries in the engine, in order, exactly once; discarding; what a crash leaves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection
from streams import (
    ClockTickedEvent,
    FaultyConsumerStore,
    RowProjector,
    Seen,
    ThingAddedEvent,
    ThingProjector,
    add,
    add_many,
    add_raw,
    group_of,
    rows,
    things,
)
from waiting import eventually

from evento import EventMessage, Projector, TransientError, event_handler
from evento.consumers import Checkpoint, ConsumerId, ConsumerState, SqlConsumerStateStore, retries
from evento.consumers.dead_events import waiting_event
from evento.errors import NotFound, ReadModelBehind, StoreUnavailable
from evento.state_store import StateStore

THINGS = ConsumerId("test_bundle", "ThingProjector", 1, "*")
ROWS = ConsumerId("test_bundle", "RowProjector", 1, "*")
NEVER = timedelta(hours=1)


class Broken:
    """A handle that fails for some positions until it is mended; keeps what it has handled, and how often it ran."""

    def __init__(self, *positions: int, error: BaseException | None = None) -> None:
        self.positions: Collection[int] = positions
        self.error = error or ValueError("größe is missing")
        self.runs: list[int] = []
        self.seen = Seen()

    async def __call__(self, message: EventMessage[Any]) -> None:
        self.runs.append(message.position)
        if message.position in self.positions:
            raise self.error
        await self.seen(message)

    def mend(self) -> None:
        self.positions = ()


class OnceProjector(Projector, version=1):
    """Its handler is tried once."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    @event_handler(retry=0)
    async def on_added(self, event: ThingAddedEvent, message: EventMessage[ThingAddedEvent]) -> None:
        await self._handle(message)

    @event_handler(retry=0)
    async def on_ticked(self, event: ClockTickedEvent, message: EventMessage[ClockTickedEvent]) -> None:
        await self._handle(message)


ONCE = ConsumerId("test_bundle", "OnceProjector", 1, "*")


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "evento.consumers")


async def queue(state: SqlConsumerStateStore, consumer: ConsumerId = THINGS) -> list[int]:
    return [event.position for event in await state.dead_events(consumer, limit=10_000)]


# Retrying


async def test_a_poison_event_is_seen_mended_and_retried(events: StateStore, state: SqlConsumerStateStore) -> None:
    await add(events, *(ThingAddedEvent(name) for name in "ABABA"))
    handle = Broken(1)
    async with group_of(events, state, RowProjector(handle)) as group:
        consumers = group.administration
        await group.caught_up(10)
        (status,) = await consumers.list()
        assert (status.position, status.dead, status.waiting, status.lag_events) == (5, 1, 2, 0)
        dead, *waiting = await consumers.dead("RowProjector")
        assert (dead.position, dead.error_type, dead.error_message) == (1, "ValueError", "größe is missing")
        assert [(event.position, event.waiting) for event in waiting] == [(3, True), (5, True)]
        assert await rows(state) == [2, 4]  # B's went on

        handle.mend()
        assert await consumers.retry("RowProjector", key="A") == 1
        await group.caught_up(10)
        assert handle.seen.positions == [2, 4, 1, 3, 5]
        assert await rows(state) == [1, 2, 3, 4, 5]  # what a clean replay gives
        assert await queue(state, ROWS) == []
        await add(events, ThingAddedEvent("A"))
        await group.caught_up(10)
        (status,) = await consumers.list()
        assert (status.dead, status.waiting, status.retrying) == (0, 0, 0)
    assert await rows(state) == [1, 2, 3, 4, 5, 6]  # live events of the key flow again


async def test_a_retry_that_fails_puts_its_error_back_and_holds_the_key(
    events: StateStore, state: SqlConsumerStateStore
) -> None:
    await add(events, *(ThingAddedEvent("A") for _ in range(3)))
    handle = Broken(1)
    async with group_of(events, state, ThingProjector(handle)) as group:
        await group.caught_up(10)
        handle.error = KeyError("another one")
        await group.administration.retry(THINGS, 1)
        await group.caught_up(10)
        first, *rest = await state.dead_events(THINGS)
        assert (first.error_type, first.error_message, first.attempts) == ("KeyError", "'another one'", 6)
        assert "KeyError" in first.traceback
        assert not first.retry
        assert [event.waiting for event in rest] == [True, True]
        assert handle.seen.positions == []
        await add(events, ThingAddedEvent("A"))
        await group.caught_up(10)
        assert await queue(state) == [1, 2, 3, 4]
        assert group.statuses()[0].last_error == "KeyError: 'another one'"


async def test_a_failed_retry_takes_nothing_else_back(events: StateStore, state: SqlConsumerStateStore) -> None:
    await add(events, ThingAddedEvent("A"))
    handle = Broken(1)
    async with group_of(events, state, ThingProjector(handle), checkpoint_interval=NEVER) as group:
        await group.caught_up(10)
        await add(events, ThingAddedEvent("B"))
        await handle.seen.wait(1)  # handled, and not committed yet
        await group.administration.retry(THINGS, 1)
        await group.caught_up(10)
    assert handle.seen.positions == [2]


async def test_what_waited_and_fails_is_dead_itself(events: StateStore, state: SqlConsumerStateStore) -> None:
    await add(events, *(ThingAddedEvent("A") for _ in range(4)))
    handle = Broken(1, 3)
    async with group_of(events, state, ThingProjector(handle)) as group:
        await group.caught_up(10)
        handle.positions = {3}
        await group.administration.retry(THINGS, all=True)
        await group.caught_up(10)
        assert handle.seen.positions == [1, 2]
        assert handle.runs.count(3) == 3  # as often as live
        assert [(event.position, event.waiting) for event in await state.dead_events(THINGS)] == [(3, False), (4, True)]


async def test_only_what_was_asked_for_is_retried(events: StateStore, state: SqlConsumerStateStore) -> None:
    await add(events, *things(3), ClockTickedEvent(1))
    handle = Broken(1, 2, 3, 4)
    async with group_of(events, state, ThingProjector(handle)) as group:
        await group.caught_up(10)
        handle.mend()
        consumers = group.administration
        assert await consumers.retry(THINGS, event_name="ClockTickedEvent") == 1
        assert await consumers.retry(THINGS, error_type="KeyError") == 0
        assert await consumers.retry(THINGS, 2) == 1
        await group.caught_up(10)
        assert sorted(handle.seen.positions) == [2, 4]
        assert await queue(state) == [1, 3]


@pytest.mark.timeout(300)  # each of the retries has a transaction of its own
async def test_more_than_a_thousand_dead_events_are_paged_and_retried_in_order(
    events: StateStore, state: SqlConsumerStateStore
) -> None:
    count = 600
    await add_many(events, things(2 * count, per_thing=2))
    await state.register(ONCE, Checkpoint(0, events.store_id, events.epoch))
    lease = await state.acquire(ONCE, owner="before", ttl=60)
    assert lease is not None
    stored = (await events.fetch(0, limit=2 * count)).events
    parked = [replace(waiting_event(one, one.aggregate_id), waiting=one.position % 2 == 0) for one in stored]
    await state.commit(lease, 2 * count, parked=parked)
    await state.release(lease)
    seen = Seen()
    async with group_of(events, state, OnceProjector(seen)) as group:
        consumers = group.administration
        await group.caught_up(10)
        pages, after = [], 0
        while page := await consumers.dead(ONCE, after=after, limit=500):
            pages.append(len(page))
            after = page[-1].position
        assert pages == [500, 500, 200]
        assert await consumers.retry(ONCE, all=True) == count
        await group.caught_up(240)
        assert seen.positions == list(range(1, 2 * count + 1))
        assert await queue(state, ONCE) == []


async def test_live_events_that_arrive_during_a_retry_queue_behind(
    events: StateStore, state: SqlConsumerStateStore
) -> None:
    await add(events, ThingAddedEvent("A"), ThingAddedEvent("A"), ThingAddedEvent("B"))
    retried, go = asyncio.Event(), asyncio.Event()
    broken = Broken(1)

    async def handle(message: EventMessage[Any]) -> None:
        if message.position == 1 and not broken.positions:
            retried.set()
            await go.wait()
        await broken(message)

    async with asyncio.timeout(20), group_of(events, state, RowProjector(handle)) as group:
        await group.caught_up(10)
        broken.mend()
        await group.administration.retry(ROWS, all=True)
        await retried.wait()
        await add(events, *(ThingAddedEvent(name) for name in "ABA"))
        with pytest.raises(ReadModelBehind):  # what is being retried is not handled
            await group.caught_up(0.05)
        go.set()
        await group.caught_up(10)
        seen = broken.seen.messages
        assert [message.position for message in seen if message.payload.thing_id == "A"] == [1, 2, 4, 6]
        assert await queue(state, ROWS) == []
    assert await rows(state) == [1, 2, 3, 4, 5, 6]


async def test_the_stream_goes_on_between_retries(
    events: StateStore, state: SqlConsumerStateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "TURN_EVENTS", 10)
    await add(events, *things(90))
    broken = Broken(*range(1, 91))

    async def handle(message: EventMessage[Any]) -> None:
        await broken(message)
        if message.position == 1:
            await add(events, ThingAddedEvent("live"))

    async with group_of(events, state, OnceProjector(handle)) as group:
        await group.caught_up(20)
        broken.mend()
        await group.administration.retry(ONCE, all=True)
        await group.caught_up(30)
    assert sorted(broken.seen.positions) == list(range(1, 92))
    assert broken.seen.positions[-1] != 91  # it did not wait for the last retry


async def test_a_transient_failure_of_a_retry_is_waited_for_while_the_stream_goes_on(
    events: StateStore, state: SqlConsumerStateStore
) -> None:
    await add(events, ThingAddedEvent("A"), ThingAddedEvent("A"))
    handle = Broken(1)
    async with group_of(events, state, ThingProjector(handle)) as group:
        await group.caught_up(10)
        handle.error = TransientError("the mail server is down")
        before = len(handle.runs)
        await group.administration.retry(THINGS, 1)
        await eventually(lambda: len(handle.runs) > before + 5)  # more often than retry=2 allows
        await add(events, ThingAddedEvent("B"))
        await eventually(lambda: 3 in handle.seen.positions)
        await eventually(lambda: group.statuses()[0].position == 3)  # the retry is all that is left
        assert (await group.administration.show(THINGS)).retrying == 2
        with pytest.raises(ReadModelBehind, match="being retried"):
            await group.caught_up(0.05)
        handle.mend()
        await group.caught_up(10)
    assert handle.seen.positions == [3, 1, 2]


async def test_a_cancelled_retry_is_not_done(events: StateStore, state: SqlConsumerStateStore) -> None:
    await add(events, *things(2))
    handle = Broken(1, 2)
    async with group_of(events, state, ThingProjector(handle)) as group:
        await group.caught_up(10)
        handle.error = TransientError("not now")
        consumers = group.administration
        await consumers.retry(THINGS, all=True)
        await consumers.cancel_retry(THINGS, 2)
        before = len(handle.runs)  # of a pass that has begun, perhaps, which would still handle both
        await eventually(lambda: handle.runs[before:].count(1) >= 2)
        handle.mend()
        await group.caught_up(10)
    assert handle.seen.positions == [1]
    assert await queue(state) == [2]


async def test_a_constraint_that_the_database_checks_is_a_failure_of_the_retry(
    events: StateStore, state: SqlConsumerStateStore
) -> None:
    await add(events, ThingAddedEvent("A"), ThingAddedEvent("B"))
    handle = Broken(1)
    async with group_of(events, state, RowProjector(handle)) as group:
        await group.caught_up(10)
        async with state.begin() as connection:
            await connection.execute(text("CREATE UNIQUE INDEX one ON rows (position)"))
            await connection.execute(text("INSERT INTO rows VALUES (1, 'A')"))
        handle.mend()
        await group.administration.retry(ROWS, all=True)
        await group.caught_up(10)
        (dead,) = await state.dead_events(ROWS)
        assert dead.error_type == "IntegrityError"


async def test_an_event_that_is_gone_or_unhandled_says_so_and_can_be_discarded(
    events: StateStore, state: SqlConsumerStateStore
) -> None:
    class Purged:
        def __getattr__(self, name: str) -> Any:
            return getattr(events, name)

        async def event(self, position: int) -> Any:
            return None if position == 1 else await events.event(position)

    class OnceProjector(Projector, version=1):  # without a handler for ClockTickedEvent
        @event_handler(retry=0)
        async def on_added(self, event: ThingAddedEvent) -> None: ...

    await add(events, ThingAddedEvent("A"), ClockTickedEvent(1), ThingAddedEvent("A"))
    async with group_of(events, state, globals()["OnceProjector"](Broken(1, 2))) as group:
        await group.caught_up(10)
    async with group_of(Purged(), state, OnceProjector()) as group:
        consumers = group.administration
        await consumers.retry(ONCE, all=True)
        await group.caught_up(10)
        gone, unhandled, waiting = await state.dead_events(ONCE)
        assert (gone.error_type, unhandled.error_type, waiting.waiting) == ("NotFound", "NotFound", True)
        assert "no event at position 1 any more" in gone.error_message
        assert "no handler for ClockTickedEvent" in unhandled.error_message
        assert await consumers.discard(ONCE, error_type="NotFound") == 2
        await group.caught_up(10)
        assert await queue(state, ONCE) == []


# Discarding


async def test_what_waits_behind_a_discarded_event_is_handled_in_order(
    events: StateStore, state: SqlConsumerStateStore, caplog: pytest.LogCaptureFixture
) -> None:
    await add(events, *(ThingAddedEvent(name) for name in "AABA"))
    handle = Broken(1)
    async with group_of(events, state, ThingProjector(handle)) as group:
        await group.caught_up(10)
        with caplog.at_level(logging.WARNING, "evento.consumers"):
            assert await group.administration.discard(THINGS, 1) == 1
        assert "ThingAddedEvent at position 1 is discarded: ValueError: größe is missing" in caplog.text
        await group.caught_up(10)
        assert handle.seen.positions == [3, 2, 4]
        assert handle.runs.count(1) == 3  # never again
        assert await queue(state) == []


async def test_discarding_a_whole_queue_goes_batch_by_batch(events: StateStore, state: SqlConsumerStateStore) -> None:
    await add(events, ThingAddedEvent("first"), *(ThingAddedEvent("A") for _ in range(1100)))
    handle = Broken(2)
    async with group_of(events, state, ThingProjector(handle)) as group:
        await group.caught_up(30)
        consumers = group.administration
        assert await consumers.discard(THINGS, key="A", waiting=True) == 1099
        assert await queue(state) == [2]
        assert await consumers.discard(THINGS, all=True) == 1
        await group.caught_up(20)
        await add(events, ThingAddedEvent("A"))
        await group.caught_up(10)
    assert handle.seen.positions == [1, 1102]


# What is asked for must make sense


async def test_unknown_consumers_and_events_are_named(events: StateStore, state: SqlConsumerStateStore) -> None:
    await add(events, ThingAddedEvent("A"), ThingAddedEvent("A"))
    async with group_of(events, state, ThingProjector(Broken(1))) as group:
        consumers = group.administration
        await group.caught_up(10)
        with pytest.raises(NotFound, match=r"no consumer ThngProjector; there are: ThingProjector v1 \[\*\]"):
            await consumers.show("ThngProjector")
        with pytest.raises(NotFound, match="there are: ThingProjector v1"):
            await consumers.pause(ROWS)
        with pytest.raises(NotFound, match="no dead event at position 7"):
            await consumers.retry(THINGS, 7)
        with pytest.raises(NotFound, match="position 2 only waits for the dead event at position 1"):
            await consumers.retry(THINGS, 2)
        with pytest.raises(NotFound, match="no dead event at position 7"):
            await consumers.discard(THINGS, 7)
        for nonsense in ({}, {"all": True, "key": "A"}):
            with pytest.raises(ValueError, match="say which events"):
                await consumers.discard(THINGS, **nonsense)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="limit"):
            await consumers.dead(THINGS, limit=10**6)
        assert await queue(state) == [1, 2]


async def test_one_name_for_two_consumers_needs_more(events: StateStore, state: SqlConsumerStateStore) -> None:
    async with group_of(events, state, ThingProjector(Seen()), contexts=["eu", "us"]) as group:
        consumers = group.administration
        with pytest.raises(NotFound, match=r"not one consumer but 2: .*\[eu\].*\[us\].*say which"):
            await consumers.show("ThingProjector")
        found = await consumers.find("ThingProjector", context="us", version=1)
        assert found == ConsumerId("test_bundle", "ThingProjector", 1, "us")
        assert (await consumers.show(found)).id == found


# Crashes and stops


async def test_a_stop_in_the_middle_of_a_retry_loses_nothing(events: StateStore, state: SqlConsumerStateStore) -> None:
    class SlowRetryProjector(RowProjector, version=1):
        @event_handler(retry=3, retry_delay=NEVER)
        async def on_added(
            self, event: ThingAddedEvent, connection: AsyncConnection, message: EventMessage[ThingAddedEvent]
        ) -> None:
            await self._handle(message)

    consumer = ConsumerId("test_bundle", "SlowRetryProjector", 1, "*")
    await add_raw(events, "ThingAddedEvent", "A", b"not JSON")
    await add(events, ThingAddedEvent("A"))
    async with group_of(events, state, SlowRetryProjector(Seen())) as group:
        await group.caught_up(10)
        handle = Broken(2)
        group_handle = handle  # the waiting one fails once, and waits an hour for its next attempt
    async with asyncio.timeout(10):
        async with group_of(events, state, SlowRetryProjector(group_handle)) as group:
            await group.administration.discard(consumer, 1)
            await eventually(lambda: len(handle.runs) > 0)
    (kept,) = await state.dead_events(consumer)
    assert (kept.position, kept.waiting) == (2, True)  # neither dead nor gone
    seen = Seen()
    async with group_of(events, state, SlowRetryProjector(seen)) as group:
        await group.caught_up(10)
    assert seen.positions == [2]
    assert await queue(state, consumer) == []


async def test_marks_outlive_a_restart(events: StateStore, state: SqlConsumerStateStore) -> None:
    await add(events, *(ThingAddedEvent("A") for _ in range(3)))
    handle = Broken(1)
    async with group_of(events, state, ThingProjector(handle)) as group:
        await group.caught_up(10)
        administration = group.administration
    handle.mend()
    await administration.retry(THINGS, all=True)  # written down while nothing runs
    async with group_of(events, state, ThingProjector(handle)) as group:
        await group.caught_up(10)
    assert handle.seen.positions == [1, 2, 3]


async def test_a_retry_whose_transaction_is_refused_is_done_again(
    events: StateStore, state: SqlConsumerStateStore
) -> None:
    await add(events, ThingAddedEvent("A"), ThingAddedEvent("A"))
    handle, store = Broken(1), FaultyConsumerStore(state)
    async with group_of(events, store, RowProjector(handle)) as group:
        await group.caught_up(10)
        handle.mend()
        store.error = StoreUnavailable("gone")
        await group.administration.retry(ROWS, all=True)
        await eventually(lambda: store.failures > 0)
        assert await rows(state) == []
        assert await queue(state, ROWS) == [1, 2]
        store.error = None
        await group.caught_up(10)
    assert await rows(state) == [1, 2]


async def test_the_retry_runs_where_the_lease_is(events: StateStore, state: SqlConsumerStateStore) -> None:
    await add(events, ThingAddedEvent("A"), ThingAddedEvent("A"))
    first, second = Broken(1), Broken(1)
    poll = timedelta(milliseconds=20)
    async with group_of(events, state, ThingProjector(first), fetch_delay=poll) as active:
        await active.caught_up(10)
        async with group_of(events, state, ThingProjector(second), fetch_delay=poll) as standby:
            await eventually(lambda: standby.statuses()[0].state is ConsumerState.STANDBY)
            first.mend()
            second.mend()
            await standby.administration.retry(THINGS, all=True)  # asked for at the one without the lease
            await eventually(lambda: first.seen.positions == [1, 2])
            await standby.caught_up(20)  # it looks every three seconds
            assert (await standby.administration.show(THINGS)).dead == 0
            await active.caught_up(10)
    assert second.runs == []
