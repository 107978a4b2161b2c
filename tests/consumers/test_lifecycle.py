"""Starting, stopping, outages of the stores, and crashes of the engine itself."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import Any

import pytest
from streams import (
    FaultyConsumerStore,
    FaultyStateStore,
    Seen,
    ThingProjector,
    add,
    group_of,
    things,
)
from waiting import eventually

from evento import EventMessage
from evento.components import Role, component_definition
from evento.consumers import ConsumerId, ConsumerState, SqlConsumerStateStore
from evento.consumers.head import HeadWatch
from evento.errors import DefinitionError, ReadModelBehind, Stopped, StoreUnavailable
from evento.state_store import StateStore

THINGS = ConsumerId("test_bundle", "ThingProjector", 1, "*")


# Stopping


async def test_a_stop_waits_for_the_running_handler(events: StateStore, state: SqlConsumerStateStore) -> None:
    await add(events, *things(3))
    running, go_on = asyncio.Event(), asyncio.Event()
    seen = Seen()

    async def handle(message: EventMessage[Any]) -> None:
        running.set()
        await go_on.wait()
        await seen(message)

    group = group_of(events, state, ThingProjector(handle))
    await group.__aenter__()
    await running.wait()
    stopping = asyncio.create_task(group.__aexit__())
    await asyncio.sleep(0)
    assert not stopping.done()
    go_on.set()
    await stopping
    assert seen.positions == [1]
    stored = await state.load(THINGS)
    assert stored is not None
    assert stored.checkpoint.position == 1


async def test_a_handler_that_does_not_end_is_cancelled_and_not_committed(
    events: StateStore, state: SqlConsumerStateStore
) -> None:
    await add(events, *things(2))
    running = asyncio.Event()
    cancelled: list[int] = []

    async def hang(message: EventMessage[Any]) -> None:
        running.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append(message.position)

    async with group_of(events, state, ThingProjector(hang), stop_timeout=timedelta(milliseconds=50)):
        await running.wait()
    assert cancelled == [1]
    stored = await state.load(THINGS)
    assert stored is not None
    assert (stored.checkpoint.position, stored.dead) == (0, 0)
    seen = Seen()
    async with group_of(events, state, ThingProjector(seen), take_over=True) as group:
        await group.caught_up(10)
    assert seen.positions == [1, 2]


async def test_a_stop_that_is_cancelled_leaves_no_task(events: StateStore, state: SqlConsumerStateStore) -> None:
    await add(events, *things(1))
    running = asyncio.Event()

    async def hang(message: object) -> None:
        running.set()
        await asyncio.Event().wait()

    before = asyncio.all_tasks()
    group = group_of(events, state, ThingProjector(hang))
    await group.__aenter__()
    await running.wait()
    stopping = asyncio.create_task(group.__aexit__())
    await eventually(lambda: group._consumers[THINGS]._signals.stopping)
    stopping.cancel()
    await asyncio.wait({stopping})
    await eventually(lambda: asyncio.all_tasks() <= before)


async def test_a_start_that_a_paused_projector_fails_waits_for_no_other(
    events: StateStore, state: SqlConsumerStateStore
) -> None:
    class OpenProjector(ThingProjector, version=1, wait_for_head_reached=True):
        pass

    class PausedProjector(ThingProjector, version=1, wait_for_head_reached=True):
        pass

    await add(events, *things(1))
    await state.set_paused(ConsumerId("test_bundle", "PausedProjector", 1, "*"), True)
    released = asyncio.Event()

    async def hang(message: object) -> None:
        await released.wait()

    async with group_of(events, state, OpenProjector(hang), PausedProjector(hang)) as group:
        with pytest.raises(ReadModelBehind, match="PausedProjector"):
            await group.ready()
        coroutines = [task.get_coro() for task in asyncio.all_tasks()]
        assert not [one for one in coroutines if getattr(one, "__name__", "") == "wait_head_reached"]
        released.set()


async def test_a_stop_in_the_middle_of_a_page_comes_at_once(events: StateStore, state: SqlConsumerStateStore) -> None:
    await add(events, *things(50))
    seen = Seen()
    stopping = asyncio.Event()

    async def handle(message: EventMessage[Any]) -> None:
        await seen(message)
        if message.position == 5:
            stopping.set()
            await eventually(lambda: group._consumers[THINGS]._signals.stopping)

    async with group_of(events, state, ThingProjector(handle)) as group:
        await stopping.wait()
    assert seen.positions == [1, 2, 3, 4, 5]
    async with group_of(events, state, ThingProjector(seen)) as group:
        await group.caught_up(10)
    assert seen.positions == list(range(1, 51))


async def test_the_gate_is_released_by_a_stop(events: StateStore, state: SqlConsumerStateStore) -> None:
    class GateProjector(ThingProjector, version=1, wait_for_head_reached=True):
        pass

    store = FaultyStateStore(events)
    group = group_of(store, state, GateProjector(Seen()))
    async with group:
        store.error = StoreUnavailable("gone")
        gate = asyncio.create_task(group.ready())
    with pytest.raises(Stopped):
        await asyncio.wait_for(gate, 10)


async def test_a_group_that_cannot_start_leaves_no_task(state: SqlConsumerStateStore, events: StateStore) -> None:
    class NoHead(FaultyStateStore):
        async def head(self) -> int:
            self._fail()
            return await self._store.head()

    store = NoHead(events)
    store.error = StoreUnavailable("gone")
    before = asyncio.all_tasks()
    with pytest.raises(StoreUnavailable):
        await group_of(store, state, ThingProjector(Seen())).__aenter__()
    assert asyncio.all_tasks() == before


async def test_a_group_without_consumers_follows_nothing(state: SqlConsumerStateStore, events: StateStore) -> None:
    before = asyncio.all_tasks()
    async with group_of(events, state) as group:
        assert asyncio.all_tasks() == before
        await add(events, *things(1))
        await group.caught_up(10)


async def test_only_consumers_join_the_group(events: StateStore, state: SqlConsumerStateStore) -> None:
    from shop import OrderAggregate

    definition = component_definition(OrderAggregate)
    assert definition.role is Role.AGGREGATE
    with pytest.raises(DefinitionError, match="OrderAggregate"):
        group_of(events, state).add(definition, OrderAggregate())


# Outages


@pytest.mark.parametrize(
    "error", [StoreUnavailable("the disk is gone"), ConnectionResetError("reset"), TimeoutError("no answer")]
)
async def test_an_outage_of_the_event_store_is_waited_for(
    events: StateStore, state: SqlConsumerStateStore, error: Exception
) -> None:
    store = FaultyStateStore(events)
    seen = Seen()
    async with group_of(store, state, ThingProjector(seen), fetch_delay=timedelta(milliseconds=20)) as group:
        await add(events, *things(2))
        await group.caught_up(10)
        store.error = error
        group._watch.seen(await add(events, *things(2)))  # the watch may have been in the outage before it saw them
        await eventually(lambda: group.statuses()[0].errors >= 2)
        (status,) = group.statuses()
        assert status.state is ConsumerState.RETRYING
        assert str(error) in (status.last_error or "")
        store.error = None
        await group.caught_up(10)
        (status,) = group.statuses()
        assert (status.state, status.errors) == (ConsumerState.RUNNING, 0)
    assert seen.positions == [1, 2, 3, 4]


async def test_what_was_handled_before_an_outage_is_committed_during_it(
    events: StateStore, state: SqlConsumerStateStore
) -> None:
    store, seen = FaultyStateStore(events), Seen()
    async with group_of(store, state, ThingProjector(seen), checkpoint_interval=timedelta(hours=1)) as group:
        await add(events, *things(2))
        await seen.wait(2)
        store.error = StoreUnavailable("gone")
        group._watch.seen(await add(events, *things(1)))
        await eventually(lambda: group.statuses()[0].position == 2)
        store.error = None
        await group.caught_up(10)
    assert seen.positions == [1, 2, 3]


async def test_an_outage_of_the_consumer_store_is_waited_for(events: StateStore, state: SqlConsumerStateStore) -> None:
    store = FaultyConsumerStore(state)
    seen = Seen()
    async with group_of(events, store, ThingProjector(seen)) as group:
        await add(events, *things(2))
        await group.caught_up(10)
        store.error = StoreUnavailable("the database is gone")
        await add(events, *things(2))
        await eventually(lambda: store.failures >= 2)
        assert "the database is gone" in (group.statuses()[0].last_error or "")
        store.error = None
        await group.caught_up(10)
        assert group.statuses()[0].errors == 0
    # Handled, but not written down: they came again, in order.
    assert seen.positions[:2] == [1, 2]
    assert seen.positions[-2:] == [3, 4]
    assert set(seen.positions[2:]) == {3, 4}


async def test_a_crash_of_the_engine_is_never_silent(
    events: StateStore, state: SqlConsumerStateStore, caplog: pytest.LogCaptureFixture
) -> None:
    store = FaultyStateStore(events)
    seen = Seen()
    async with group_of(store, state, ThingProjector(seen), fetch_delay=timedelta(milliseconds=20)) as group:
        await add(events, *things(1))
        await group.caught_up(10)
        with caplog.at_level(logging.ERROR, "evento.consumers"):
            store.error = RuntimeError("a bug")
            group._watch.seen(await add(events, *things(1)))
            await eventually(lambda: group.statuses()[0].errors >= 2)
        (status,) = group.statuses()
        assert status.state is ConsumerState.RETRYING
        assert status.last_error == "RuntimeError: a bug"
        store.error = None
        await group.caught_up(10)
    assert seen.positions == [1, 2]
    crashes = [record for record in caplog.records if "crashed" in record.getMessage()]
    assert crashes
    assert all(record.exc_info and "ThingProjector v1" in record.getMessage() for record in crashes)


async def test_a_removed_consumer_is_registered_again(events: StateStore, state: SqlConsumerStateStore) -> None:
    from sqlalchemy import text

    seen = Seen()
    async with group_of(events, state, ThingProjector(seen), lease_ttl=timedelta(milliseconds=100)) as group:
        await add(events, *things(2))
        await group.caught_up(10)
        async with state.begin() as connection:
            await connection.execute(text("DELETE FROM evento_consumer"))
        await seen.wait(4)
    assert seen.positions == [1, 2, 1, 2]


# The watch of the head


async def test_the_watch_wakes_its_listeners(events: StateStore) -> None:
    heard = asyncio.Event()
    async with HeadWatch(events, poll=60.0) as watch:
        watch.listen(heard.set)
        head = await add(events, *things(1))
        await asyncio.wait_for(heard.wait(), 10)
        assert watch.head == head


async def test_the_watch_survives_an_outage(events: StateStore) -> None:
    store = FaultyStateStore(events)
    async with HeadWatch(store, poll=0.01) as watch:
        store.error = StoreUnavailable("gone")
        await eventually(lambda: store.failures >= 2)
        head = await add(events, *things(1))
        store.error = None
        await eventually(lambda: watch.head == head)


async def test_a_store_that_answers_early_makes_no_busy_loop(events: StateStore) -> None:
    class Impatient(FaultyStateStore):
        async def wait(self, after: int, timeout: float) -> int:
            self.waits += 1
            return await self._store.head()

    store = Impatient(events)
    async with HeadWatch(store, poll=3600.0):
        for _ in range(1000):
            await asyncio.sleep(0)
        assert store.waits == 1


async def test_a_store_that_neither_finds_nor_scans_makes_no_busy_loop(
    events: StateStore, state: SqlConsumerStateStore
) -> None:
    import msgspec

    class Stuck(FaultyStateStore):
        async def fetch(self, *arguments: Any, **named: Any) -> Any:
            page = await super().fetch(*arguments, **named)
            return msgspec.structs.replace(page, events=[], scanned_to=0)

    store = Stuck(events)
    await add(events, *things(1))
    async with group_of(store, state, ThingProjector(Seen())) as group:
        await eventually(lambda: store.fetches >= 1 and group.statuses()[0].head == 1)
        for _ in range(1000):
            await asyncio.sleep(0)
        assert store.fetches <= 3
