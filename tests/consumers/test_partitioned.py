"""Lanes: events side by side, those of an aggregate in their order, and nothing is lost."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from threading import Barrier, current_thread
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection
from streams import (
    TICK,
    ClockTickedEvent,
    FaultyConsumerStore,
    Handle,
    Seen,
    ThingAddedEvent,
    ThingRenamedEvent,
    add,
    add_many,
    add_raw,
    group_of,
    is_resting,
    once_stopping,
    things,
)
from waiting import eventually, turns

from evento import (
    DefinitionError,
    EventMessage,
    Observer,
    Projector,
    ProjectorStatus,
    ReadModelBehind,
    StoreUnavailable,
    TransientError,
    event_handler,
)
from evento.consumers import ConsumerGroup, ConsumerId, ConsumerState, SqlConsumerStateStore, StoredConsumer
from evento.consumers.lanes import Lanes
from evento.state_store import StateStore

LANES = 4
PROJECTOR = ConsumerId("test_bundle", "LaneProjector", 1, "*")


class LaneProjector(Projector, version=1):
    """Hands every message to the test's function; one handler names the lanes, so both run in them."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle

    @event_handler(retry=2, retry_delay=TICK, executor="lanes")
    async def on_added(self, event: ThingAddedEvent, message: EventMessage[ThingAddedEvent]) -> None:
        await self._handle(message)

    @event_handler(retry=2, retry_delay=TICK)
    async def on_ticked(self, event: ClockTickedEvent, message: EventMessage[ClockTickedEvent]) -> None:
        await self._handle(message)


class LaneObserver(Observer, version=1):
    """The same, of an observer."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle

    @event_handler(retry=2, retry_delay=TICK, executor="lanes")
    async def on_added(self, event: ThingAddedEvent, message: EventMessage[ThingAddedEvent]) -> None:
        await self._handle(message)


class Stuck:
    """A handle that never returns for some positions, unless it is told to; it keeps the rest like :class:`Seen`."""

    def __init__(self, *positions: int) -> None:
        self.positions = set(positions)
        self.released = asyncio.Event()
        self.running: set[int] = set()
        self.most = 0
        self.seen = Seen()

    async def __call__(self, message: EventMessage[Any]) -> None:
        self.running.add(message.position)
        self.most = max(self.most, len(self.running))
        try:
            if message.position in self.positions:
                await self.released.wait()
            await asyncio.sleep(0)
        finally:
            self.running.discard(message.position)
        await self.seen(message)


def lanes_group(
    events: StateStore, state: Any, component: object, *, limits: dict[str, Any] | None = None, **options: Any
) -> ConsumerGroup:
    """Return a group with the lanes, that is not started."""
    # Its threads are made when a handler needs one, and async ones do not.
    options = {"executors": {"lanes": ThreadPoolExecutor(LANES)}, "lanes": {"lanes": LANES}, **options}
    group = group_of(events, state, component, **options)
    for consumer in group._consumers.values():
        consumer._settings = replace(consumer._settings, **(limits or {}))
    return group


def has_looked_at(group: ConsumerGroup, position: int) -> bool:
    """Whether the consumer has looked at all events up to the newest one, which is at ``position``."""
    (status,) = group.statuses()
    return (status.head, status.lag_events) == (position, 0)


@asynccontextmanager
async def running(
    events: StateStore, state: Any, handle: Handle, *, kind: type = LaneProjector, **options: Any
) -> AsyncIterator[ConsumerGroup]:
    """Run the projector in lanes."""
    async with lanes_group(events, state, kind(handle), **options) as group:
        await group.ready()
        yield group


async def stored(state: SqlConsumerStateStore) -> StoredConsumer:
    found = await state.load(PROJECTOR)
    assert found is not None
    return found


def names_in_lanes() -> list[str]:
    """Return the name of a thing in each lane."""
    lanes = Lanes(LANES)
    names: dict[int, str] = {}
    for number in range(1000):
        names.setdefault(id(lanes.lane_of(f"T_{number}")), f"T_{number}")
    assert len(names) == LANES
    return list(names.values())


def names_in_one_lane(count: int) -> list[str]:
    """Return names of things that share a lane."""
    lanes = Lanes(LANES)
    first = lanes.lane_of("T_0")
    return [name for name in (f"T_{number}" for number in range(1000)) if lanes.lane_of(name) is first][:count]


def by_thing(seen: Seen) -> dict[str | None, list[int]]:
    found: dict[str | None, list[int]] = defaultdict(list)
    for message in seen.messages:
        found[message.aggregate_id].append(message.position)
    return found


# Order and concurrency


@pytest.mark.parametrize("kind", [LaneProjector, LaneObserver])
async def test_an_aggregates_events_keep_their_order(
    events: StateStore, state: SqlConsumerStateStore, kind: type
) -> None:
    dice, seen, running_now, most = random.Random(7), Seen(), set[str | None](), 0

    async def handle(message: EventMessage[Any]) -> None:
        nonlocal most
        assert message.aggregate_id not in running_now
        running_now.add(message.aggregate_id)
        most = max(most, len(running_now))
        for _ in range(dice.randrange(20)):
            await asyncio.sleep(0)
        running_now.discard(message.aggregate_id)
        if dice.random() < 0.1 and not failed.get(message.position):
            failed[message.position] = True
            raise ValueError("once")
        await seen(message)

    failed: dict[int, bool] = {}
    async with running(events, state, handle, kind=kind) as group:
        await add_many(events, [ThingAddedEvent(f"T_{dice.randrange(30)}") for _ in range(600)])
        await group.caught_up(20)
    assert sorted(seen.positions) == list(range(1, 601))
    assert all(positions == sorted(positions) for positions in by_thing(seen).values())
    assert failed
    assert most == LANES


async def test_lanes_work_side_by_side_one_event_each(events: StateStore, state: SqlConsumerStateStore) -> None:
    names = names_in_lanes()
    handle = Stuck(*range(1, 2 * LANES + 1))
    async with running(events, state, handle) as group:
        await add(events, *(ThingAddedEvent(name) for name in names * 2))
        await eventually(lambda: len(handle.running) >= LANES and has_looked_at(group, 2 * LANES) and is_resting(group))
        assert handle.running == set(range(1, LANES + 1))
        handle.released.set()
        await group.caught_up(10)
    assert handle.most == LANES


async def test_events_without_an_aggregate_go_to_any_lane(events: StateStore, state: SqlConsumerStateStore) -> None:
    handle = Stuck(*range(1, LANES + 1))
    async with running(events, state, handle) as group:
        await add(events, *(ClockTickedEvent(number) for number in range(10)))
        await eventually(lambda: len(handle.running) == LANES)
        handle.released.set()
        await group.caught_up(10)
    assert sorted(handle.seen.positions) == list(range(1, 11))


async def test_a_plain_handler_runs_in_as_many_threads_as_there_are_lanes(
    events: StateStore, state: SqlConsumerStateStore
) -> None:
    all_there, threads = Barrier(LANES, timeout=20), set[str]()

    class PlainProjector(Projector, version=1):
        @event_handler(executor="lanes")
        def on_added(self, event: ThingAddedEvent, status: ProjectorStatus) -> None:
            assert status.position <= status.head == LANES
            all_there.wait()
            threads.add(current_thread().name)

    with ThreadPoolExecutor(LANES, thread_name_prefix="lane") as pool:
        await add(events, *(ThingAddedEvent(name) for name in names_in_lanes()))
        async with lanes_group(events, state, PlainProjector(), executors={"lanes": pool}) as group:
            await group.caught_up(20)
    assert len(threads) == LANES
    assert all(name.startswith("lane") for name in threads)


# The checkpoint


async def test_a_restart_repeats_the_unfinished_event_and_no_other(
    events: StateStore, state: SqlConsumerStateStore
) -> None:
    first, second, *_ = names_in_lanes()
    # Positions 1, 3 and 7 do not concern the projector; 2 and 6 are stuck, and what is behind them in their lanes.
    await add(events, ThingRenamedEvent("x"), ThingAddedEvent(first), ThingRenamedEvent("x"), ThingAddedEvent(second))
    await add(events, ThingAddedEvent(second), ThingAddedEvent(second), ThingRenamedEvent("x"), ThingAddedEvent(first))
    await add(events, *(ThingAddedEvent(name) for name in names_in_lanes()[2:]))
    handle = Stuck(2, 6)

    async def remembered() -> bool:
        return await state.finished(PROJECTOR) == {4, 5, 9, 10}

    async with running(events, state, handle, stop_timeout=TICK, checkpoint_interval=TICK):
        await eventually(remembered)
    assert sorted(handle.seen.positions) == [4, 5, 9, 10]
    assert (await stored(state)).checkpoint.position == 1
    seen = Seen()
    async with running(events, state, seen, take_over=True) as group:
        await group.caught_up(10)
    assert sorted(seen.positions) == [2, 6, 8]
    assert seen.positions.index(2) < seen.positions.index(8)
    assert (await stored(state)).checkpoint.position == 10
    assert await state.finished(PROJECTOR) == frozenset()


async def test_a_crash_without_a_last_checkpoint_loses_nothing(
    events: StateStore, state: SqlConsumerStateStore
) -> None:
    await add(events, *things(60, per_thing=5))
    stuck, faulty = Stuck(11), FaultyConsumerStore(state)

    async def remembered() -> bool:
        return bool(await state.finished(PROJECTOR))

    async def handle(message: EventMessage[Any]) -> None:
        await stuck(message)
        if len(stuck.seen.positions) >= 20 and faulty.error is None:
            await eventually(remembered)  # a checkpoint in between
            faulty.error = StoreUnavailable("gone")

    async with running(events, faulty, handle, stop_timeout=TICK, checkpoint_interval=TICK):
        await eventually(lambda: faulty.failures >= 1)
    position, finished = (await stored(state)).checkpoint.position, await state.finished(PROJECTOR)
    assert position <= 10
    assert set(range(1, position + 1)) | finished <= set(stuck.seen.positions)
    assert finished
    seen = Seen()
    async with running(events, state, seen, take_over=True) as group:
        await group.caught_up(10)
    assert sorted(seen.positions) == sorted(set(range(position + 1, 61)) - finished)
    assert all(positions == sorted(positions) for positions in by_thing(seen).values())


async def test_a_checkpoint_is_waited_for_until_all_before_it_is_handled(
    events: StateStore, state: SqlConsumerStateStore
) -> None:
    first, second, *_ = names_in_lanes()
    handle = Stuck(1)
    loop = asyncio.get_running_loop()
    async with running(events, state, handle, checkpoint_interval=timedelta(hours=1)) as group:
        await add(events, ThingAddedEvent(first), ThingAddedEvent(second), ThingRenamedEvent("x"))
        await handle.seen.wait(1)
        with pytest.raises(ReadModelBehind):
            await group.wait_for(["LaneProjector"], 2, loop.time() + 0.05)
        with pytest.raises(ReadModelBehind):
            await group.caught_up(0.05)
        assert not group.statuses()[0].head_reached
        handle.released.set()
        await group.wait_for(["LaneProjector"], 2, loop.time() + 20)
        await group.caught_up(20)
        assert group.statuses()[0].head_reached


async def test_the_gate_opens_when_the_lanes_are_done(events: StateStore, state: SqlConsumerStateStore) -> None:
    class GateProjector(LaneProjector, version=1, wait_for_head_reached=True):
        pass

    await add(events, *things(8))
    handle = Stuck(5)
    async with lanes_group(events, state, GateProjector(handle)) as group:
        ready = asyncio.create_task(group.ready())
        await eventually(lambda: handle.running == {5} and has_looked_at(group, 8) and is_resting(group))
        await turns()
        assert not ready.done()
        handle.released.set()
        await ready
    assert sorted(handle.seen.positions) == list(range(1, 9))


# Bounds


def begun() -> list[asyncio.Task[Any]]:
    """The events that are begun and not finished."""
    return [task for task in asyncio.all_tasks() if task.get_name().startswith("evento-event")]


async def test_a_hot_lane_is_bounded(events: StateStore, state: SqlConsumerStateStore) -> None:
    first, second, *_ = names_in_lanes()
    handle = Stuck(1)
    async with running(events, state, handle, limits={"observer_unfinished": 50}) as group:
        await add_many(events, [ThingAddedEvent(first)] * 100 + [ThingAddedEvent(second)])
        await eventually(lambda: handle.running == {1} and len(begun()) >= 50 and is_resting(group))
        assert len(begun()) == 50
        assert handle.seen.positions == []  # the second lane has nothing yet: its event is behind the bound
        handle.released.set()
        await group.caught_up(10)
    assert by_thing(handle.seen)[first] == list(range(1, 101))
    assert by_thing(handle.seen)[second] == [101]


async def test_what_is_finished_behind_a_stuck_lane_is_bounded(
    events: StateStore, state: SqlConsumerStateStore
) -> None:
    first, second, *_ = names_in_lanes()
    handle = Stuck(1)
    limits = {"observer_window": 100, "observer_unfinished": 10}
    async with running(events, state, handle, limits=limits) as group:
        await add_many(events, [ThingAddedEvent(first), *[ThingAddedEvent(second)] * 400])
        await eventually(lambda: len(handle.seen.positions) >= 100 and handle.running == {1} and is_resting(group))
        assert len(handle.seen.positions) <= 110
        handle.released.set()
        await group.caught_up(10)
    assert len(handle.seen.positions) == 401


async def test_what_no_checkpoint_holds_is_bounded(events: StateStore, state: SqlConsumerStateStore) -> None:
    faulty, seen = FaultyConsumerStore(state), Seen()
    async with running(events, faulty, seen, limits={"observer_window": 100, "observer_unfinished": 10}) as group:
        faulty.error = StoreUnavailable("no")
        await add_many(events, things(400))
        await seen.wait(100)
        await eventually(lambda: faulty.failures >= 2)
        assert 100 <= len(seen.positions) <= 110
        faulty.error = None
        await group.caught_up(10)
    assert sorted(seen.positions) == list(range(1, 401))


# Stopping


async def test_a_stop_lets_running_handlers_end_and_begins_nothing_more(
    events: StateStore, state: SqlConsumerStateStore
) -> None:
    first, second, *_ = names_in_lanes()
    handle = Stuck(1, 2)
    async with running(events, state, handle) as group:
        await add(events, *(ThingAddedEvent(name) for name in (first, second, first, second)))
        await eventually(lambda: handle.running == {1, 2})
        releasing = asyncio.create_task(once_stopping(group, handle.released.set))
    await releasing
    assert sorted(handle.seen.positions) == [1, 2]
    assert (await stored(state)).checkpoint.position == 2
    async with running(events, state, handle, take_over=True) as group:
        await group.caught_up(10)
    assert sorted(handle.seen.positions) == [1, 2, 3, 4]


# Failures


async def test_behind_a_dead_event_its_aggregate_waits_and_the_rest_of_the_lane_goes_on(
    events: StateStore, state: SqlConsumerStateStore
) -> None:
    poisoned, neighbour = names_in_one_lane(2)
    seen, runs, broken = Seen(), Seen(), True

    async def handle(message: EventMessage[Any]) -> None:
        await runs(message)
        if message.position == 2 and broken:
            raise ValueError("poison")
        await seen(message)

    async with running(events, state, handle) as group:
        await add(events, *(ThingAddedEvent(name) for name in (poisoned, poisoned, neighbour, poisoned, neighbour)))
        await add_raw(events, "ThingAddedEvent", neighbour, b'{"thing_id": 7}')
        await add(events, ThingAddedEvent(neighbour), ThingAddedEvent(poisoned))
        await group.caught_up(10)
        (status,) = group.statuses()
        assert (status.dead, status.waiting, status.position) == (2, 3, 8)
        assert seen.positions == [1, 3, 5]
        assert runs.positions.count(2) == 3
        parked = await state.dead_events(PROJECTOR)
        assert [(event.position, event.key, event.waiting) for event in parked] == [
            (2, poisoned, False),
            (4, poisoned, True),
            (6, neighbour, False),
            (7, neighbour, True),
            (8, poisoned, True),
        ]
    # After a restart they still wait; once the cause is mended, the retry handles all of them in their order.
    async with running(events, state, handle, take_over=True) as group:
        await add(events, ThingAddedEvent(poisoned))
        await group.caught_up(10)
        assert group.statuses()[0].waiting == 4
        broken = False
        await group.administration.retry(PROJECTOR, position=2)
        await eventually(lambda: len(seen.positions) == 7)
        await add(events, ThingAddedEvent(poisoned))
        await group.caught_up(10)
        assert (group.statuses()[0].dead, group.statuses()[0].waiting) == (1, 1)
    assert by_thing(seen)[poisoned] == [1, 2, 4, 8, 9, 10]


async def test_what_comes_up_in_its_lane_while_its_key_is_retried_stays_behind(
    events: StateStore, state: SqlConsumerStateStore
) -> None:
    poisoned, neighbour = names_in_one_lane(2)
    seen, broken, entered, leave, hold = Seen(), True, asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def handle(message: EventMessage[Any]) -> None:
        if message.aggregate_id == neighbour:
            await hold.wait()
        elif message.position == 1:
            if broken:
                raise ValueError("poison")
            entered.set()
            await leave.wait()
        await seen(message)

    async with running(events, state, handle) as group:
        await add(events, ThingAddedEvent(poisoned))
        await group.caught_up(10)
        await add(events, *(ThingAddedEvent(name) for name in (neighbour, poisoned, poisoned)))
        await eventually(lambda: has_looked_at(group, 4))  # the lane holds them all
        broken = False
        await group.administration.retry(PROJECTOR, position=1)
        async with asyncio.timeout(10):
            await entered.wait()
        hold.set()
        await seen.wait(1)
        await add(events, *[ThingAddedEvent(poisoned)] * 2)
        await eventually(lambda: group.statuses()[0].head == 6)
        leave.set()
        await seen.wait(6)
        await group.caught_up(10)
        assert (group.statuses()[0].dead, group.statuses()[0].waiting) == (0, 0)
    assert by_thing(seen)[poisoned] == [1, 3, 4, 5, 6]


async def test_a_retry_holds_up_its_lane_and_no_other(events: StateStore, state: SqlConsumerStateStore) -> None:
    poisoned, neighbour = names_in_one_lane(2)
    others = [name for name in names_in_lanes() if name != poisoned]
    down, seen, runs = True, Seen(), Seen()

    async def handle(message: EventMessage[Any]) -> None:
        await runs(message)
        if message.aggregate_id == poisoned and down:
            raise TransientError("the database of this one is down")
        await seen(message)

    async with running(events, state, handle) as group:
        await add(events, ThingAddedEvent(poisoned), ThingAddedEvent(neighbour))
        await add(events, *(ThingAddedEvent(name) for name in others))
        await seen.wait(len(others))
        await eventually(lambda: runs.positions.count(1) >= 3)
        (status,) = group.statuses()
        assert (status.state, status.position, status.dead) == (ConsumerState.RETRYING, 0, 0)
        assert 2 not in seen.positions
        down = False
        await group.caught_up(10)
    assert sorted(seen.positions) == list(range(1, len(others) + 3))


async def test_a_hundred_dead_events_pause_the_lanes(events: StateStore, state: SqlConsumerStateStore) -> None:
    async def fail(message: EventMessage[Any]) -> None:
        raise ValueError("no such table")

    async with running(events, state, fail) as group:
        await add(events, *things(150))
        await eventually(lambda: group.statuses()[0].dead >= 100)
        assert group.statuses()[0].state is ConsumerState.PAUSED
    assert 100 <= (await stored(state)).dead < 100 + LANES
    seen = Seen()
    async with running(events, state, seen) as group:
        await group.caught_up(10)
    assert len(seen.positions) + (await stored(state)).dead == 150


async def test_a_paused_consumer_goes_on_with_what_waits_in_its_lanes(
    events: StateStore, state: SqlConsumerStateStore
) -> None:
    (name,) = names_in_one_lane(1)
    handle = Stuck(1)
    async with running(events, state, handle) as group:
        await add(events, *[ThingAddedEvent(name)] * 5)
        await eventually(lambda: handle.running == {1})
        await group.administration.pause(PROJECTOR)
        await eventually(lambda: group._consumers[PROJECTOR]._signals.paused)
        handle.released.set()
        await handle.seen.wait(1)
        await turns()
        assert handle.seen.positions == [1]
        await group.administration.resume(PROJECTOR)
        await group.caught_up(10)
    assert handle.seen.positions == [1, 2, 3, 4, 5]


# Definitions


class ExactProjector(Projector, version=1):
    @event_handler(executor="lanes")
    async def on_added(self, event: ThingAddedEvent) -> None: ...

    @event_handler
    async def on_ticked(self, event: ClockTickedEvent, connection: AsyncConnection) -> None: ...


class TwofoldObserver(Observer, version=1):
    @event_handler(executor="lanes")
    async def on_added(self, event: ThingAddedEvent) -> None: ...

    @event_handler(executor="other")
    async def on_ticked(self, event: ClockTickedEvent) -> None: ...


@pytest.mark.parametrize(
    ("component", "message"),
    [
        (ExactProjector(), "on_ticked asks for the transaction of the checkpoint"),
        (TwofoldObserver(), "the partitioned executors 'lanes', 'other'"),
    ],
)
async def test_what_lanes_cannot_do_is_refused(
    events: StateStore, state: SqlConsumerStateStore, component: object, message: str
) -> None:
    with pytest.raises(DefinitionError, match=message):
        lanes_group(events, state, component, lanes={"lanes": 2, "other": 2})


async def test_an_unknown_name_is_refused(events: StateStore, state: SqlConsumerStateStore) -> None:
    with pytest.raises(DefinitionError, match="the executor 'lanes', which the bundle does not have"):
        lanes_group(events, state, LaneObserver(Seen()), executors={}, lanes={})
