"""Checkpoints: in batches, in time, at once for those who wait, and never ahead of what was handled."""

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
    ThingAddedEvent,
    ThingProjector,
    ThingRenamedEvent,
    add,
    add_many,
    group_of,
    things,
)
from waiting import eventually

from evento import EventMessage
from evento.components import Role, component_definition
from evento.consumers import (
    Checkpoint,
    Consumer,
    ConsumerId,
    ConsumerState,
    SqlConsumerStateStore,
    consumer,
    progress,
)
from evento.consumers.delivery import ProjectorDelivery
from evento.consumers.head import HeadWatch
from evento.consumers.settings import ConsumerSettings
from evento.consumers.status import Standing
from evento.errors import DefinitionError, ReadModelBehind, StoreMismatch
from evento.state_store import StateStore
from evento.state_store.sqlite import SqliteStateStore

THINGS = ConsumerId("test_bundle", "ThingProjector", 1, "*")
NEVER = timedelta(hours=1)


async def position(state: SqlConsumerStateStore) -> int:
    stored = await state.load(THINGS)
    assert stored is not None
    return stored.checkpoint.position


async def test_a_restart_goes_on_behind_the_checkpoint(events: StateStore, state: SqlConsumerStateStore) -> None:
    await add(events, *things(10))
    seen = Seen()
    async with group_of(events, state, ThingProjector(seen)) as group:
        await group.caught_up(10)
    await add(events, *things(5))
    async with group_of(events, state, ThingProjector(seen)) as group:
        await group.caught_up(10)
    assert seen.positions == list(range(1, 16))


async def test_a_checkpoint_is_committed_although_nobody_waits(
    events: StateStore, state: SqlConsumerStateStore
) -> None:
    async with group_of(events, state, ThingProjector(Seen())):
        await add(events, *things(3))
        await eventually(lambda: _is_at(state, 3))


async def _is_at(state: SqlConsumerStateStore, wanted: int) -> bool:
    return await position(state) == wanted


async def test_events_are_committed_in_batches(events: StateStore, state: SqlConsumerStateStore) -> None:
    await add_many(events, things(3000))
    store = FaultyConsumerStore(state)
    async with group_of(events, store, ThingProjector(Seen()), fetch_size=100) as group:
        await eventually(lambda: group.statuses()[0].head_reached)
        await group.caught_up(30)
    assert store.commits < 300


async def test_those_who_wait_need_not_wait_for_the_interval(events: StateStore, state: SqlConsumerStateStore) -> None:
    async with group_of(events, state, ThingProjector(Seen()), checkpoint_interval=NEVER) as group:
        for _ in range(3):
            head = await add(events, *things(2))
            await group.wait_for(["ThingProjector"], head, asyncio.get_running_loop().time() + 10)
            assert await position(state) == head


async def test_those_who_wait_are_told_at_the_commit(
    events: StateStore, state: SqlConsumerStateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer, "WAIT", 3600.0)  # no waiter looks by itself
    seen = Seen()
    async with group_of(events, state, ThingProjector(seen), checkpoint_interval=NEVER) as group:
        head = await add(events, *things(2))
        await seen.wait(2)
        async with asyncio.timeout(20):
            await group.wait_for(None, head, asyncio.get_running_loop().time() + 3600)


async def test_those_who_wait_need_not_wait_for_the_rest_of_the_page(
    events: StateStore, state: SqlConsumerStateStore
) -> None:
    go_on, blocked = asyncio.Event(), asyncio.Event()

    async def handle(message: EventMessage[Any]) -> None:
        if message.position == 1:
            await go_on.wait()
        if message.position == 3:
            await blocked.wait()

    await add(events, *things(3))
    async with group_of(events, state, ThingProjector(handle), checkpoint_interval=NEVER) as group:
        waiting = asyncio.create_task(group.wait_for(None, 2, asyncio.get_running_loop().time() + 60))
        await asyncio.sleep(0)
        go_on.set()
        await asyncio.wait_for(waiting, 10)
        assert await position(state) == 2
        blocked.set()


async def test_a_stop_commits_what_is_handled(events: StateStore, state: SqlConsumerStateStore) -> None:
    seen = Seen()
    async with group_of(events, state, ThingProjector(seen), checkpoint_interval=NEVER):
        await add(events, *things(4))
        await seen.wait(4)
        assert await position(state) == 0
    assert await position(state) == 4


async def test_a_selective_consumer_passes_what_does_not_concern_it(
    events: StateStore, state: SqlConsumerStateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "SCAN_INTERVAL", 3600.0)
    await add(events, *(ThingRenamedEvent(f"T_{number}") for number in range(50)))
    async with group_of(events, state, ThingProjector(Seen()), fetch_size=3) as group:
        await group.caught_up(10)
        assert await position(state) == 50
        await add(events, ThingRenamedEvent("T"))
        await eventually(lambda: (group.statuses()[0].head, group.statuses()[0].lag_events) == (51, 0))
        assert await position(state) == 50  # not worth a write yet
    assert await position(state) == 51


async def test_initial_positions_are_stored_before_the_start_returns(
    events: StateStore, state: SqlConsumerStateStore
) -> None:
    async with group_of(events, state, ThingProjector(Seen())):
        stored = await state.load(THINGS)
        assert stored is not None
        assert stored.checkpoint == Checkpoint(0, events.store_id, events.epoch)


async def test_a_consumer_may_start_at_the_head(events: StateStore, state: SqlConsumerStateStore) -> None:
    await add(events, *things(3))
    seen, standing = Seen(), Standing()
    projector = ThingProjector(seen)
    for expected in ([4], [4, 5]):
        async with HeadWatch(events, poll=1.0) as watch:
            delivery = ProjectorDelivery(
                THINGS, component_definition(ThingProjector), projector, standing=standing, head=lambda: 0
            )
            following = Consumer(
                THINGS,
                Role.PROJECTOR,
                delivery,
                owner="a",
                state_store=events,
                consumer_store=state,
                watch=watch,
                standing=standing,
                settings=ConsumerSettings(),
                from_head=True,
            )
            async with following:
                await add(events, *things(1))
                await seen.wait(len(expected))
        assert seen.positions == expected


# Mismatches


async def test_a_checkpoint_beyond_the_head_refuses_to_start(events: StateStore, state: SqlConsumerStateStore) -> None:
    await state.register(THINGS, Checkpoint(812, events.store_id, events.epoch))
    with pytest.raises(StoreMismatch) as caught:
        async with group_of(events, state, ThingProjector(Seen())):
            pass
    text = str(caught.value)
    assert "ThingProjector v1 [*] of test_bundle" in text
    assert "812" in text
    assert "ends at 0" in text
    assert "Restore the consumer state" in text
    assert caught.value.data["position"] == 812


@pytest.mark.parametrize(("store_id", "epochs"), [("another-store", 0), (None, 1)])
async def test_a_checkpoint_of_another_history_refuses_to_start(
    events: StateStore, state: SqlConsumerStateStore, store_id: str | None, epochs: int
) -> None:
    await state.register(THINGS, Checkpoint(0, store_id or events.store_id, events.epoch + epochs))
    with pytest.raises(StoreMismatch, match=r"ThingProjector v1 .* was replaced, or restored"):
        async with group_of(events, state, ThingProjector(Seen())):
            pass


async def test_nothing_is_started_when_one_consumer_does_not_fit(
    events: StateStore, state: SqlConsumerStateStore
) -> None:
    await add(events, *things(3))
    seen = Seen()
    await state.register(ConsumerId("test_bundle", "ThingProjector", 1, "us"), Checkpoint(9, events.store_id, 1))
    with pytest.raises(StoreMismatch):
        async with group_of(events, state, ThingProjector(seen), contexts=["*", "us"]):
            pass
    assert seen.positions == []


async def test_a_new_version_reads_everything_anew(events: StateStore, state: SqlConsumerStateStore) -> None:
    class Second(ThingProjector, version=2):
        pass

    await add(events, *things(3))
    first, second = Seen(), Seen()
    async with group_of(events, state, ThingProjector(first)) as group:
        await group.caught_up(10)
    async with group_of(events, state, ThingProjector(first), Second(second)) as group:
        await group.caught_up(10)
    assert first.positions == second.positions == [1, 2, 3]


async def test_a_replaced_event_store_is_noticed(state: SqlConsumerStateStore) -> None:
    for expected_error in (False, True):
        async with SqliteStateStore(None) as events:
            await add(events, *things(3))
            group = group_of(events, state, ThingProjector(Seen()))
            if expected_error:
                with pytest.raises(StoreMismatch, match="another event store"):
                    await group.__aenter__()
            else:
                async with group:
                    await group.caught_up(10)


async def test_a_replica_that_runs_ahead_is_no_mismatch(events: StateStore, state: SqlConsumerStateStore) -> None:
    """Its checkpoint may be newer than the head that was read just before."""

    class StaleOnce(FaultyStateStore):
        heads = 0

        async def head(self) -> int:
            self.heads += 1
            return 0 if self.heads == 2 else await self._store.head()

    await add(events, *things(3))
    await state.register(THINGS, Checkpoint(3, events.store_id, events.epoch))
    store = StaleOnce(events)
    async with group_of(store, state, ThingProjector(Seen())) as group:
        await group.caught_up(10)
    assert store.heads > 2


# Waiting


async def test_who_is_behind_is_named(events: StateStore, state: SqlConsumerStateStore) -> None:
    class QuickProjector(ThingProjector, version=1):
        pass

    begun, blocked = asyncio.Event(), asyncio.Event()

    async def wait(message: object) -> None:
        begun.set()
        await blocked.wait()

    await add(events, *things(3))
    async with group_of(events, state, ThingProjector(wait), QuickProjector(Seen())) as group:
        loop = asyncio.get_running_loop()
        await begun.wait()  # before, it would not be running
        await group.wait_for(["QuickProjector"], 3, loop.time() + 10)
        with pytest.raises(ReadModelBehind) as caught:
            await group.wait_for(None, 3, loop.time() + 0.05)
        assert str(caught.value) == (
            "not all consumers have reached position 3: ThingProjector v1 [*] of test_bundle is at 0 (running)"
        )
        assert caught.value.data["behind"] == {"ThingProjector v1 [*] of test_bundle": 0}
        with pytest.raises(ReadModelBehind, match="ThingProjector"):
            await group.caught_up(0.05)
        blocked.set()
        await group.caught_up(10)


async def test_all_contexts_of_a_projector_are_waited_for(events: StateStore, state: SqlConsumerStateStore) -> None:
    seen = Seen()
    async with group_of(events, state, ThingProjector(seen), contexts=["eu", "us"]) as group:
        head = await add(events, ThingAddedEvent("A", context="eu"), ThingAddedEvent("B", context="us"))
        await group.wait_for(["ThingProjector"], head, asyncio.get_running_loop().time() + 10)
        assert sorted(seen.positions) == [1, 2]


async def test_waiting_for_an_unknown_projector_is_an_error(events: StateStore, state: SqlConsumerStateStore) -> None:
    async with group_of(events, state, ThingProjector(Seen())) as group:
        with pytest.raises(DefinitionError, match="NoProjector is no projector of test_bundle"):
            await group.wait_for(["NoProjector"], 0, 0.0)


async def test_a_stop_releases_those_who_wait(
    events: StateStore, state: SqlConsumerStateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer, "WAIT", 3600.0)  # no waiter looks by itself
    group = group_of(events, state, ThingProjector(Seen()))
    async with group:
        waiting = asyncio.create_task(group.wait_for(None, 99, asyncio.get_running_loop().time() + 3600))
        await asyncio.sleep(0)
    with pytest.raises(ReadModelBehind):
        async with asyncio.timeout(20):
            await waiting


async def test_caught_up_waits_for_what_is_in_flight(events: StateStore, state: SqlConsumerStateStore) -> None:
    in_flight = 1
    seen = Seen()
    async with group_of(events, state, ThingProjector(seen)) as group:
        with pytest.raises(ReadModelBehind, match="in flight"):
            await group.caught_up(0.05, idle=lambda: in_flight == 0)
        waiting = asyncio.create_task(group.caught_up(10, idle=lambda: in_flight == 0))
        await asyncio.sleep(0)
        await add(events, *things(2))
        in_flight = 0
        await waiting
        assert seen.positions == [1, 2]


async def test_caught_up_waits_for_what_the_last_look_did_not_see(
    events: StateStore, state: SqlConsumerStateStore
) -> None:
    """A request that begins and ends while the consumers are waited for has left a new event."""
    left = 3

    async def cascade(message: object) -> None:
        nonlocal left
        if left:
            left -= 1
            await add(events, *things(1))

    seen = Seen()

    class Counting(ThingProjector, version=1):
        pass

    async with group_of(events, state, ThingProjector(cascade), Counting(seen)) as group:
        await add(events, *things(1))
        await group.caught_up(10)
        assert seen.positions == [1, 2, 3, 4]


# The head


class GateProjector(ThingProjector, version=1, wait_for_head_reached=True):
    pass


async def test_the_gate_opens_at_the_head(
    events: StateStore, state: SqlConsumerStateStore, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = asyncio.Event()
    seen = Seen()

    async def handle(message: object) -> None:
        await blocked.wait()
        await seen(message)  # type: ignore[arg-type]

    await add(events, *things(5))
    with caplog.at_level(logging.INFO, "evento.consumers"):
        async with group_of(events, state, GateProjector(handle), ThingProjector(Seen()), fetch_size=2) as group:
            gate = asyncio.create_task(group.ready())
            await eventually(lambda: group.statuses()[1].head_reached)
            assert not gate.done()
            blocked.set()
            await gate
            assert seen.positions == [1, 2, 3, 4, 5]
            await add(events, *things(3))
            await group.caught_up(10)
    reached = [record.getMessage() for record in caplog.records if "head reached" in record.getMessage()]
    assert sorted(reached) == [
        "Projector head reached: GateProjector - Version: 1 - Context: *",
        "Projector head reached: ThingProjector - Version: 1 - Context: *",
    ]


async def test_the_gate_of_an_empty_store_is_open(events: StateStore, state: SqlConsumerStateStore) -> None:
    async with group_of(events, state, GateProjector(Seen())) as group, asyncio.timeout(10):
        await group.ready()


async def test_the_status_of_a_stopped_group_says_so(events: StateStore, state: SqlConsumerStateStore) -> None:
    await add(events, *things(2))
    group = group_of(events, state, ThingProjector(Seen()))
    async with group:
        await group.caught_up(10)
        (status,) = group.statuses()
        assert (status.state, status.position, status.head, status.lag_events) == (ConsumerState.RUNNING, 2, 2, 0)
        assert status.healthy
    (status,) = group.statuses()
    assert status.state is ConsumerState.STOPPED
    assert not status.healthy
