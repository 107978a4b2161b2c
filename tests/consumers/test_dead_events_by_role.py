"""Dead events of sagas and observers: what retrying them brings back."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import Any

import pytest
from streams import Seen, ThingAddedEvent, ThingRenamedEvent, add, group_of, things
from waiting import eventually

from evento import EventMessage, Observer, Saga, SagaState, event_handler, saga_event_handler
from evento.consumers import ConsumerId, ConsumerState, SqlConsumerStateStore
from evento.state_store import StateStore

WATCHER = ConsumerId("test_bundle", "WatchObserver", 1, "*")
COUNTING = ConsumerId("test_bundle", "CountingSaga", 1, "*")


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "evento.consumers")


class Poison:
    """Fails for some positions until it is mended."""

    def __init__(self, *positions: int) -> None:
        self.positions: tuple[int, ...] = positions
        self.seen = Seen()

    async def __call__(self, message: EventMessage[Any]) -> None:
        if message.position in self.positions:
            raise ValueError("no")
        await self.seen(message)


class WatchObserver(Observer, version=1):
    def __init__(self, handle: Any) -> None:
        self._handle = handle

    @event_handler(retry=0)
    async def on_added(self, event: ThingAddedEvent, message: EventMessage[ThingAddedEvent]) -> None:
        await self._handle(message)


class CountingState(SagaState):
    names: int = 0


class CountingSaga(Saga[CountingState], version=1):
    def __init__(self, handle: Any) -> None:
        self._handle = handle

    @saga_event_handler(init=True, association_property="thing_id", retry=0)
    async def on_added(self, event: ThingAddedEvent, message: EventMessage[ThingAddedEvent]) -> CountingState:
        await self._handle(message)
        state = CountingState()
        state.set_association("thing_id", event.thing_id)
        return state

    @saga_event_handler(association_property="thing_id", retry=0)
    async def on_renamed(
        self, event: ThingRenamedEvent, state: CountingState, message: EventMessage[ThingRenamedEvent]
    ) -> None:
        await self._handle(message)
        state.names += 1


async def _start_at_zero(events: StateStore, state: SqlConsumerStateStore, *components: Any) -> None:
    """Let sagas and observers, which start at the head, see what is added from now on."""
    async with group_of(events, state, *components) as group:
        await group.ready()


async def test_an_observers_dead_events_are_retried_beside_its_stream(
    events: StateStore, state: SqlConsumerStateStore
) -> None:
    handle = Poison(1, 3)
    await _start_at_zero(events, state, WatchObserver(handle))
    async with group_of(events, state, WatchObserver(handle)) as group:
        await group.ready()
        await add(events, *things(4))
        await group.caught_up(10)
        dead = await group.administration.dead("WatchObserver")
        assert [(event.position, event.key, event.attempts) for event in dead] == [(1, None, 1), (3, None, 1)]
        await group.administration.retry(WATCHER, 1)
        await group.caught_up(10)
        assert (await group.administration.dead(WATCHER))[0].attempts == 2  # it is not mended yet
        handle.positions = ()
        await group.administration.retry(WATCHER, all=True)
        await group.caught_up(10)
        (status,) = await group.administration.list()
        assert (status.position, status.dead, status.retrying) == (4, 0, 0)
    assert sorted(handle.seen.positions) == [1, 2, 3, 4]


async def test_a_paused_observer_begins_nothing(events: StateStore, state: SqlConsumerStateStore) -> None:
    handle = Poison()
    async with asyncio.timeout(20), group_of(events, state, WatchObserver(handle)) as group:
        await group.ready()
        await group.administration.pause(WATCHER)
        await eventually(lambda: group.statuses()[0].state is ConsumerState.PAUSED)
        await add(events, *things(3))
        await eventually(lambda: group.statuses()[0].head == 3)
        assert handle.seen.positions == []
        await group.administration.resume(WATCHER)
        await group.caught_up(10)
    assert sorted(handle.seen.positions) == [1, 2, 3]


async def test_a_pause_before_the_first_start_keeps_the_start_at_the_head(
    events: StateStore, state: SqlConsumerStateStore
) -> None:
    handle = Poison()
    await add(events, *things(3))
    await state.set_paused(WATCHER, True)
    async with group_of(events, state, WatchObserver(handle), fetch_delay=timedelta(milliseconds=20)) as group:
        await group.ready()
        await eventually(lambda: group.statuses()[0].state is ConsumerState.PAUSED)
        await add(events, *things(2))
        await group.administration.resume(WATCHER)
        await group.caught_up(10)
    assert sorted(handle.seen.positions) == [4, 5]


async def test_retrying_brings_a_sagas_state_to_that_of_an_undisturbed_run(
    events: StateStore, state: SqlConsumerStateStore
) -> None:
    handle = Poison(1, 4)
    await _start_at_zero(events, state, CountingSaga(handle))
    async with group_of(events, state, CountingSaga(handle)) as group:
        await group.ready()
        await add(events, ThingAddedEvent("A"), ThingAddedEvent("B"))
        await add(
            events, ThingRenamedEvent("A"), ThingRenamedEvent("B"), ThingRenamedEvent("A"), ThingRenamedEvent("B")
        )
        await group.caught_up(10)
        (status,) = await group.administration.list()
        assert (status.dead, status.waiting) == (2, 3)
        handle.positions = ()
        assert await group.administration.retry(COUNTING, all=True) == 2
        await group.caught_up(10)
        await add(events, ThingRenamedEvent("A"))
        await group.caught_up(10)
        assert await group.administration.dead(COUNTING) == []
    for thing, names in (("A", 3), ("B", 2)):
        saga = await state.find_saga(COUNTING, f'thing_id="{thing}"')
        assert saga is not None
        assert f'"names":{names}'.encode() in saga.state
