"""Observers: side by side, at least once, and nobody waits for anybody."""

from __future__ import annotations

import asyncio
import logging
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
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
from waiting import eventually

from evento import EventMessage, Metadata, Observer, StoreUnavailable, TransientError, event_handler
from evento.consumers import ConsumerGroup, ConsumerId, ConsumerState, SqlConsumerStateStore, StoredConsumer
from evento.state_store import StateStore
from evento.state_store.sqlite import SqliteStateStore

WATCHER = ConsumerId("test_bundle", "ThingObserver", 1, "*")


class ThingObserver(Observer, version=1):
    """Hands every message to the test's function."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle

    @event_handler(retry=2, retry_delay=TICK)
    async def on_added(self, event: ThingAddedEvent, message: EventMessage[ThingAddedEvent]) -> None:
        await self._handle(message)

    @event_handler(retry=2, retry_delay=timedelta(hours=1))
    async def on_ticked(self, event: ClockTickedEvent, message: EventMessage[ClockTickedEvent]) -> None:
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


@asynccontextmanager
async def running(events: StateStore, state: Any, handle: Handle, **options: Any) -> AsyncIterator[ConsumerGroup]:
    """Run the observer."""
    async with group_of(events, state, ThingObserver(handle), **options) as group:
        await group.ready()
        yield group


def limited(group: ConsumerGroup, **settings: Any) -> None:
    """Change the settings of a group that is not started."""
    group._settings = replace(group._settings, **settings)
    for consumer in group._consumers.values():
        consumer._settings = group._settings


async def stored(state: SqlConsumerStateStore) -> StoredConsumer:
    found = await state.load(WATCHER)
    assert found is not None
    return found


# Side by side


async def test_events_are_handled_side_by_side_within_a_bound(events: StateStore, state: SqlConsumerStateStore) -> None:
    handle = Stuck(*range(1, 101))
    async with running(events, state, handle) as group:
        await add_many(events, things(100))
        await eventually(lambda: len(handle.running) >= 32 and is_resting(group))
        assert handle.running == set(range(1, 33))
        handle.released.set()
        await group.caught_up(10)
    assert sorted(handle.seen.positions) == list(range(1, 101))
    assert handle.most == 32


async def test_a_bound_of_its_own(events: StateStore, state: SqlConsumerStateStore) -> None:
    handle = Stuck(*range(1, 11))
    async with running(events, state, handle, observer_concurrency=1) as group:
        await add(events, *things(10))
        await eventually(lambda: len(handle.running) > 0)
        handle.released.set()
        await group.caught_up(10)
    assert (handle.most, handle.seen.positions) == (1, list(range(1, 11)))


async def test_a_new_observer_begins_at_the_head_and_goes_on_where_it_was(
    events: StateStore, state: SqlConsumerStateStore
) -> None:
    await add(events, *things(3))
    seen = Seen()
    async with running(events, state, seen) as group:
        await group.caught_up(10)
    await add(events, *things(2))  # while it does not run
    async with running(events, state, seen) as group:
        await group.caught_up(10)
    assert sorted(seen.positions) == [4, 5]


async def test_events_that_do_not_concern_it_move_its_checkpoint(
    events: StateStore, state: SqlConsumerStateStore
) -> None:
    seen = Seen()
    async with running(events, state, seen) as group:
        await add(events, ThingRenamedEvent("A"), ThingAddedEvent("A"), *[ThingRenamedEvent("A")] * 5)
        await group.caught_up(10)
        assert (await stored(state)).checkpoint.position == 7
    assert seen.positions == [2]


async def test_what_a_handler_may_ask_for(events: StateStore, state: SqlConsumerStateStore) -> None:
    found: list[tuple[int, int, str, bool]] = []

    class AskingObserver(Observer, version=1):
        @event_handler
        def on_added(
            self, event: ThingAddedEvent, at: datetime, metadata: Metadata, message: EventMessage[ThingAddedEvent]
        ) -> None:
            found.append((message.position, event.number, metadata["n"], at == message.timestamp))

    async with group_of(events, state, AskingObserver()) as group:
        await group.ready()
        for number in range(3):
            await add(events, ThingAddedEvent("A", number), metadata=b'{"n":"%d"}' % number)
        await group.caught_up(10)
    assert sorted(found) == [(1, 0, "0", True), (2, 1, "1", True), (3, 2, "2", True)]


# At least once


async def test_a_restart_repeats_the_unfinished_event_and_no_other(
    events: StateStore, state: SqlConsumerStateStore
) -> None:
    handle = Stuck(3, 7)
    async with running(events, state, handle, stop_timeout=TICK, checkpoint_interval=TICK):
        await add(events, ThingRenamedEvent("x"), *things(10))
        await handle.seen.wait(8)
        await eventually(lambda: _remembered(state, {4, 5, 6, 8, 9, 10, 11}))
    found = await stored(state)
    assert (found.checkpoint.position, found.dead) == (2, 0)
    seen = Seen()
    async with running(events, state, seen, take_over=True) as group:
        await group.caught_up(10)
        assert await state.finished(WATCHER) == frozenset()
    assert sorted(seen.positions) == [3, 7]
    assert (await stored(state)).checkpoint.position == 11


async def _remembered(state: SqlConsumerStateStore, positions: set[int]) -> bool:
    return await state.finished(WATCHER) == positions


async def test_a_stop_waits_for_running_handlers(events: StateStore, state: SqlConsumerStateStore) -> None:
    handle = Stuck(1, 2)
    async with running(events, state, handle) as group:
        await add(events, *things(3))
        await eventually(lambda: handle.running == {1, 2} and handle.seen.positions == [3])
        releasing = asyncio.create_task(once_stopping(group, handle.released.set))
    await releasing
    assert sorted(handle.seen.positions) == [1, 2, 3]
    assert (await stored(state)).checkpoint.position == 3


async def test_a_stop_begins_nothing_more(events: StateStore, state: SqlConsumerStateStore) -> None:
    handle = Stuck(1, 2)
    async with running(events, state, handle, observer_concurrency=2) as group:
        await add(events, *things(50))
        await eventually(lambda: handle.running == {1, 2})
        releasing = asyncio.create_task(once_stopping(group, handle.released.set))
    await releasing
    assert sorted(handle.seen.positions) == [1, 2]
    assert (await stored(state)).checkpoint.position == 2


async def test_a_checkpoint_that_fails_disturbs_no_handler(events: StateStore, state: SqlConsumerStateStore) -> None:
    faulty = FaultyConsumerStore(state)
    seen = Seen()
    async with running(events, faulty, seen, checkpoint_interval=timedelta(0)) as group:
        faulty.error = StoreUnavailable("no")
        await add(events, *things(50))
        await seen.wait(50)
        await eventually(lambda: faulty.failures >= 2)
        faulty.error = None
        await group.caught_up(10)
    assert sorted(seen.positions) == list(range(1, 51))


VICTIM = """
import asyncio, os, signal, sys
sys.path[:0] = [{support!r}, {here!r}]
from datetime import timedelta
from streams import group_of, things, add
from test_observers import WATCHER, ThingObserver
from waiting import eventually
from evento.consumers import SqlConsumerStateStore
from evento.state_store.sqlite import SqliteStateStore

ended = []

async def others_have_ended(state):  # and their checkpoint is written, where it is due
    stored = await state.load(WATCHER)
    return len(ended) >= 10 and stored.checkpoint.position == (0 if {interval} else 6)

async def handle(message):
    with open({log!r}, "a") as log:
        log.write(f"{{message.position}}\\n")
    if message.position == 7:
        async with SqlConsumerStateStore({state!r}) as state:
            await eventually(lambda: others_have_ended(state))
        os.kill(os.getpid(), signal.SIGKILL)
    ended.append(message.position)

async def main():
    async with SqliteStateStore({events!r}) as events, SqlConsumerStateStore({state!r}) as state:
        interval = timedelta(seconds={interval})
        async with group_of(events, state, ThingObserver(handle), checkpoint_interval=interval) as group:
            await group.ready()
            await add(events, *things(50))
            await group.caught_up(30)

asyncio.run(main())
"""


@pytest.mark.parametrize("interval", [0, 3600])
async def test_an_observer_that_is_killed_in_its_handler_handles_the_event_again(tmp_path: Path, interval: int) -> None:
    path, url, log = tmp_path / "events.db", f"sqlite+aiosqlite:///{tmp_path / 'state.db'}", tmp_path / "log"
    program = VICTIM.format(
        support=str(Path(__file__).parent.parent / "support"),
        here=str(Path(__file__).parent),
        log=str(log),
        events=str(path),
        state=url,
        interval=interval,
    )
    victim = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", program], timeout=50)
    assert victim.returncode == -signal.SIGKILL
    before = [int(line) for line in log.read_text().splitlines()]
    seen = Seen()
    async with SqliteStateStore(path) as events, SqlConsumerStateStore(url) as state:
        async with running(events, state, seen, take_over=True) as group:
            await group.caught_up(20)
        stored_events = await events.head()
    assert 7 in seen.positions
    assert set(before) | set(seen.positions) == set(range(1, stored_events + 1))
    if interval == 0:  # what ended before the crash was remembered
        assert seen.positions[0] == 7
        assert len(set(seen.positions) & set(before)) <= 32


# Failures


async def test_a_retry_holds_nobody_up(events: StateStore, state: SqlConsumerStateStore) -> None:
    failing = Seen()

    async def handle(message: EventMessage[Any]) -> None:
        if message.name == "ClockTickedEvent":
            await failing(message)
            raise ValueError("not now")
        await seen(message)

    seen = Seen()
    async with running(events, state, handle, observer_concurrency=2, checkpoint_interval=TICK) as group:
        await add(events, *(ClockTickedEvent(number) for number in range(5)), *things(20))
        await seen.wait(20)
        await failing.wait(5)
        (status,) = group.statuses()
        assert (status.state, status.position, status.dead) == (ConsumerState.RETRYING, 0, 0)
    # A stop in the middle of the retries neither parks nor skips.
    assert (await stored(state)).dead == 0
    assert await state.finished(WATCHER) == set(range(6, 26))
    seen = Seen()
    async with running(events, state, handle):
        await failing.wait(10)
    assert sorted(failing.positions) == sorted([*range(1, 6)] * 2)
    assert seen.messages == []


async def test_a_dead_event_holds_nothing_back(events: StateStore, state: SqlConsumerStateStore) -> None:
    seen, runs = Seen(), Seen()

    async def handle(message: EventMessage[Any]) -> None:
        await runs(message)
        if message.position == 2:
            raise ValueError("größe is missing")
        await seen(message)

    async with running(events, state, handle) as group:
        await add(events, *[ThingAddedEvent("A")] * 5)
        await add_raw(events, "ThingAddedEvent", "A", b'{"thing_id": 7}')
        await group.caught_up(10)
        (status,) = group.statuses()
        assert (status.dead, status.waiting, status.position) == (2, 0, 6)
        assert status.last_error is not None
    assert sorted(seen.positions) == [1, 3, 4, 5]
    assert runs.positions.count(2) == 3
    first, second = await state.dead_events(WATCHER)
    assert (first.position, first.key, first.error_type, first.attempts) == (2, None, "ValueError", 3)
    assert (second.position, second.error_type, second.attempts) == (6, "PayloadError", 1)
    async with running(events, state, handle) as group:
        await add(events, ThingAddedEvent("A"))
        await group.caught_up(10)
    assert runs.positions.count(2) == 3
    assert 7 in seen.positions


async def test_an_outage_is_waited_for_and_nothing_dies(events: StateStore, state: SqlConsumerStateStore) -> None:
    down, seen, runs = True, Seen(), Seen()

    async def handle(message: EventMessage[Any]) -> None:
        await runs(message)
        if down:
            raise TransientError("the mail server is down")
        await seen(message)

    async with running(events, state, handle) as group:
        await add(events, *things(40))
        await runs.wait(200)
        (status,) = group.statuses()
        assert (status.state, status.healthy, status.dead) == (ConsumerState.RETRYING, False, 0)
        down = False
        await group.caught_up(20)
        assert group.statuses()[0].healthy
    assert sorted(seen.positions) == list(range(1, 41))
    assert (await stored(state)).dead == 0


async def test_a_hundred_dead_events_pause_the_observer(
    events: StateStore, state: SqlConsumerStateStore, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(message: EventMessage[Any]) -> None:
        raise ValueError("no such table")

    with caplog.at_level(logging.CRITICAL, "evento.consumers"):
        async with running(events, state, fail, observer_concurrency=1) as group:
            await add(events, *things(150))
            await eventually(lambda: group.statuses()[0].dead >= 100)
            (status,) = group.statuses()
            assert (status.state, status.healthy) == (ConsumerState.PAUSED, False)
        assert 100 <= (await stored(state)).dead <= 101
    seen = Seen()
    async with running(events, state, seen) as group:
        await group.caught_up(10)
    assert len(seen.positions) + (await stored(state)).dead == 150


async def test_a_late_failure_does_not_undo_that_the_observer_was_resumed(
    events: StateStore, state: SqlConsumerStateStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "evento.consumers")
    late, begun, seen = asyncio.Event(), asyncio.Event(), Seen()

    async def handle(message: EventMessage[Any]) -> None:
        if message.position == 1:
            begun.set()
            await late.wait()
        if message.position <= 4:
            raise ValueError("no")
        await seen(message)

    class HastyObserver(Observer, version=1):
        @event_handler(retry=0)
        async def on_added(self, event: ThingAddedEvent, message: EventMessage[ThingAddedEvent]) -> None:
            await handle(message)

    hasty = ConsumerId("test_bundle", "HastyObserver", 1, "*")
    group = group_of(events, state, HastyObserver(), fetch_delay=timedelta(hours=1))
    limited(group, max_dead_streak=3, checkpoint_interval=0.0)
    async with group:
        await group.ready()
        await add(events, *things(4))
        await begun.wait()

        async def paused() -> bool:
            found = await state.load(hasty)
            return found is not None and found.dead_streak == 3

        await eventually(paused)
        await state.set_paused(hasty, False)  # by another process, of which this one has not heard yet
        late.set()
        await eventually(lambda: group.statuses()[0].dead == 4)
        await group._directions.look()
        await add(events, *things(1))
        await group.caught_up(10)
    assert seen.positions == [5]


async def test_one_stuck_event_does_not_let_the_window_grow(events: StateStore, state: SqlConsumerStateStore) -> None:
    handle = Stuck(1)
    group = group_of(events, state, ThingObserver(handle))
    limited(group, observer_window=100)
    async with group:
        await group.ready()
        await add_many(events, things(400))
        await eventually(lambda: len(handle.seen.positions) >= 100 and handle.running == {1} and is_resting(group))
        assert len(handle.seen.positions) <= 132
        handle.released.set()
        await group.caught_up(10)
    assert len(handle.seen.positions) == 400


async def test_events_that_wait_for_another_attempt_are_bounded(
    events: StateStore, state: SqlConsumerStateStore
) -> None:
    runs = Seen()

    async def fail(message: EventMessage[Any]) -> None:
        await runs(message)
        raise TransientError("not now")

    group = group_of(events, state, ThingObserver(fail))
    limited(group, observer_unfinished=50)
    async with group:
        await group.ready()
        await add_many(events, things(400))
        await runs.wait(150)
        assert max(runs.positions) == 50
