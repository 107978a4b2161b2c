"""Pausing and resuming consumers, and what operators see of them."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import Any

import pytest
from streams import ClockTickedEvent, Seen, ThingAddedEvent, ThingProjector, add, group_of, things
from waiting import eventually

from evento import EventMessage, Projector, event_handler
from evento.consumers import ConsumerGroup, ConsumerId, ConsumerState, SqlConsumerStateStore
from evento.errors import ReadModelBehind
from evento.state_store import StateStore

THINGS = ConsumerId("test_bundle", "ThingProjector", 1, "*")


def state_of(group: ConsumerGroup) -> ConsumerState:
    return group.statuses()[0].state


async def test_a_paused_consumer_handles_nothing_until_it_is_resumed(
    events: StateStore, state: SqlConsumerStateStore
) -> None:
    seen = Seen()
    async with group_of(events, state, ThingProjector(seen)) as group:
        await add(events, *things(2))
        await group.caught_up(10)
        await group.administration.pause("ThingProjector")
        await eventually(lambda: state_of(group) is ConsumerState.PAUSED)
        await add(events, *things(2))
        with pytest.raises(ReadModelBehind, match=r"is at 2 \(paused\)"):
            await group.caught_up(0.1)
        (status,) = await group.administration.list()
        assert (status.position, status.head, status.lag_events, status.healthy) == (2, 4, 2, False)
        assert status.lag_seconds is not None
        assert status.lag_seconds > 0
        await group.administration.resume(THINGS)
        await group.caught_up(10)
        (status,) = await group.administration.list()
        assert (status.state, status.lag_events, status.lag_seconds) == (ConsumerState.RUNNING, 0, 0)
    assert seen.positions == [1, 2, 3, 4]


async def test_a_pause_outlives_a_restart(events: StateStore, state: SqlConsumerStateStore) -> None:
    await add(events, *things(3))
    seen = Seen()
    async with group_of(events, state, ThingProjector(seen)) as group:
        await group.caught_up(10)
        await group.administration.pause(THINGS)
    await add(events, *things(2))
    async with group_of(events, state, ThingProjector(seen)) as group:
        await eventually(lambda: state_of(group) is ConsumerState.PAUSED)
        assert seen.positions == [1, 2, 3]
        await group.administration.resume(THINGS)
        await group.caught_up(10)
    assert seen.positions == [1, 2, 3, 4, 5]


async def test_a_pause_before_the_first_start_keeps_the_start(events: StateStore, state: SqlConsumerStateStore) -> None:
    await add(events, *things(3))
    await state.set_paused(THINGS, True)
    seen = Seen()
    async with group_of(events, state, ThingProjector(seen)) as group:
        group._consumers[THINGS]._from_head = True  # as sagas and observers do
        await eventually(lambda: state_of(group) is ConsumerState.PAUSED)
        await add(events, *things(2))
        await group.administration.resume(THINGS)
        await group.caught_up(10)
    assert seen.positions == [1, 2, 3, 4, 5]


async def test_a_pause_ends_the_wait_of_a_handler_that_is_retried_for_ever(
    events: StateStore, state: SqlConsumerStateStore
) -> None:
    class StubbornProjector(Projector, version=1):
        @event_handler(retry=-1, retry_delay=timedelta(hours=1))
        async def on_added(self, event: ThingAddedEvent, message: EventMessage[ThingAddedEvent]) -> None:
            await handle(message)

    consumer = ConsumerId("test_bundle", "StubbornProjector", 1, "*")
    broken, seen = True, Seen()

    async def handle(message: EventMessage[Any]) -> None:
        if broken:
            raise ValueError("no")
        await seen(message)

    await add(events, *things(2))
    async with asyncio.timeout(10), group_of(events, state, StubbornProjector()) as group:
        await eventually(lambda: group.statuses()[0].errors > 0)
        await group.administration.pause(consumer)
        await eventually(lambda: state_of(group) is ConsumerState.PAUSED)
        broken = False
        await group.administration.resume(consumer)
        await group.caught_up(10)
        assert group.statuses()[0].dead == 0
    assert seen.positions == [1, 2]


async def test_dead_events_are_retried_while_the_consumer_is_paused(
    events: StateStore, state: SqlConsumerStateStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "evento.consumers")
    broken, seen = True, Seen()

    async def handle(message: EventMessage[Any]) -> None:
        if broken and message.position == 1:
            raise ValueError("no")
        await seen(message)

    await add(events, ThingAddedEvent("A"), ThingAddedEvent("A"))
    async with group_of(events, state, ThingProjector(handle)) as group:
        await group.caught_up(10)
        await group.administration.pause(THINGS)
        await eventually(lambda: state_of(group) is ConsumerState.PAUSED)
        await add(events, ThingAddedEvent("A"))
        broken = False
        await group.administration.retry(THINGS, all=True)
        await eventually(lambda: seen.positions == [1, 2])
        await eventually(lambda: not group._consumers[THINGS].is_retrying)
        assert state_of(group) is ConsumerState.PAUSED
        await group.administration.resume(THINGS)
        await group.caught_up(10)
    assert seen.positions == [1, 2, 3]


@pytest.mark.timeout(300)  # 200 of its events have a transaction of their own, two times
async def test_the_circuit_breaker_is_reset_by_resuming(
    events: StateStore, state: SqlConsumerStateStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "evento.consumers")
    broken, seen = True, Seen()

    async def handle(message: EventMessage[Any]) -> None:
        if broken:
            raise ValueError("no such table")
        await seen(message)

    class TickProjector(Projector, version=1):
        @event_handler(retry=0)
        async def on_ticked(self, event: ClockTickedEvent, message: EventMessage[ClockTickedEvent]) -> None:
            await handle(message)

    consumer = ConsumerId("test_bundle", "TickProjector", 1, "*")
    await add(events, *(ClockTickedEvent(number) for number in range(250)))
    async with group_of(events, state, TickProjector()) as group:
        await eventually(lambda: state_of(group) is ConsumerState.PAUSED, within=60)
        assert group.statuses()[0].dead == 100
        await group.administration.resume(consumer)  # nothing is mended: it takes a hundred more
        await eventually(lambda: group.statuses()[0].dead == 200 and state_of(group) is ConsumerState.PAUSED, within=60)
        broken = False
        await group.administration.retry(consumer, 1)  # tried while the consumer is paused
        await eventually(lambda: seen.positions == [1])
        assert state_of(group) is ConsumerState.PAUSED
        await group.administration.resume(consumer)
        await group.caught_up(30)
        await group.administration.retry(consumer, all=True)
        await group.caught_up(60)
        (status,) = await group.administration.list()
        assert (status.dead, status.healthy) == (0, True)
    assert sorted(seen.positions) == list(range(1, 251))


async def test_what_another_process_asks_for_is_taken_up(events: StateStore, state: SqlConsumerStateStore) -> None:
    seen = Seen()
    poll = timedelta(milliseconds=20)
    async with group_of(events, state, ThingProjector(seen), fetch_delay=poll) as group:
        await state.set_paused(THINGS, True)  # as the terminal does
        await eventually(lambda: state_of(group) is ConsumerState.PAUSED)
        await add(events, *things(1))
        await state.set_paused(THINGS, False)
        await group.caught_up(10)
    assert seen.positions == [1]


async def test_a_gate_does_not_wait_for_a_paused_consumer(events: StateStore, state: SqlConsumerStateStore) -> None:
    class GateProjector(Projector, version=1, wait_for_head_reached=True):
        @event_handler
        def on_added(self, event: ThingAddedEvent) -> None: ...

    await add(events, *things(1))
    await state.set_paused(ConsumerId("test_bundle", "GateProjector", 1, "*"), True)
    async with group_of(events, state, GateProjector()) as group:
        with pytest.raises(
            ReadModelBehind, match=r"GateProjector.* is paused at position 0 and will not .*resume GateProjector$"
        ):
            await group.ready()
