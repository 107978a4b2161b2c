"""Leases: one replica works, the others stand by; whoever has lost its lease stops and writes nothing more."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from streams import (
    FaultyConsumerStore,
    Handle,
    RowProjector,
    Seen,
    ThingProjector,
    add,
    group_of,
    make_rows,
    rows,
    things,
)
from waiting import eventually

from evento import EventMessage
from evento.consumers import Checkpoint, ConsumerGroup, ConsumerId, ConsumerLease, ConsumerState, SqlConsumerStateStore
from evento.consumers.port import StoredConsumer
from evento.errors import ReadModelBehind, StoreUnavailable
from evento.state_store import StateStore

THINGS = ConsumerId("test_bundle", "ThingProjector", 1, "*")
QUICK = timedelta(milliseconds=150)
STEADY = timedelta(seconds=3)
"""Of a lease that must not run out while others want it, however busy the machine is: it is renewed every second."""


def state_of(group: ConsumerGroup) -> ConsumerState:
    return group.statuses()[0].state


async def steal(events: StateStore, state: SqlConsumerStateStore, *, ttl: float = 3600) -> ConsumerLease:
    """Take the lease of a consumer as another process would."""
    await state.register(THINGS, Checkpoint(0, events.store_id, events.epoch))
    lease = await state.acquire(THINGS, owner="thief", ttl=ttl, take_over=True)
    assert lease is not None
    return lease


async def test_one_of_two_groups_works_and_the_other_takes_over(
    events: StateStore, state: SqlConsumerStateStore
) -> None:
    first, second = Seen(), Seen()
    active = group_of(events, state, ThingProjector(first), lease_ttl=STEADY)
    standby = group_of(events, state, ThingProjector(second), lease_ttl=STEADY)
    async with standby:
        async with active:
            states = {ConsumerState.RUNNING, ConsumerState.STANDBY}
            await eventually(lambda: {state_of(active), state_of(standby)} == states)
            if state_of(active) is ConsumerState.STANDBY:
                active, standby, first, second = standby, active, second, first
            await add(events, *things(5))
            await first.wait(5)
            # The standby sees how far the other one is, also for those who ask it.
            await standby.wait_for(None, 5, asyncio.get_running_loop().time() + 10)
            await eventually(lambda: standby.statuses()[0].head_reached)
            assert second.positions == []
            assert standby.statuses()[0].healthy
        await add(events, *things(5))
        await eventually(lambda: len(first.positions) + len(second.positions) >= 10)
    assert sorted(first.positions + second.positions) == list(range(1, 11))


async def test_a_standby_answers_from_the_checkpoint_of_the_active_one(
    events: StateStore, state: SqlConsumerStateStore
) -> None:
    active = await steal(events, state)
    await add(events, *things(3))
    never = timedelta(hours=1)  # it does not look unless somebody waits
    async with group_of(events, state, ThingProjector(Seen()), lease_ttl=never) as group:
        await eventually(lambda: state_of(group) is ConsumerState.STANDBY)
        waiting = asyncio.create_task(group.wait_for(None, 3, asyncio.get_running_loop().time() + 60))
        await asyncio.sleep(0)
        await state.commit(active, 3)
        async with asyncio.timeout(20):
            await waiting


async def test_who_asks_a_standby_in_vain_is_told(events: StateStore, state: SqlConsumerStateStore) -> None:
    await steal(events, state)
    await add(events, *things(1))
    async with group_of(events, state, ThingProjector(Seen())) as group:
        await eventually(lambda: state_of(group) is ConsumerState.STANDBY)
        with pytest.raises(ReadModelBehind, match=r"at 0 \(standby\)"):
            await group.caught_up(0.2)


async def test_all_who_ask_a_standby_share_a_look_and_none_waits_for_it_beyond_the_deadline(
    events: StateStore, state: SqlConsumerStateStore
) -> None:
    class SlowStore(FaultyConsumerStore):
        answers = asyncio.Event()
        looking = most = 0

        async def register(self, *arguments: Any) -> StoredConsumer:
            self.looking += 1
            self.most = max(self.most, self.looking)
            try:
                await self.answers.wait()
                return await self._store.register(*arguments)
            finally:
                self.looking -= 1

    await steal(events, state)
    await add(events, *things(1))
    store = SlowStore(state)
    store.answers.set()
    async with group_of(events, store, ThingProjector(Seen())) as group:
        await eventually(lambda: state_of(group) is ConsumerState.STANDBY)
        store.answers.clear()
        deadline = asyncio.get_running_loop().time() + 0.5
        waits = [group.wait_for(None, 1, deadline) for _ in range(50)]
        async with asyncio.timeout(10):
            outcomes = await asyncio.gather(*waits, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {ReadModelBehind}
        assert store.most <= 2  # that of the consumer itself, and one for all
        store.answers.set()


async def test_the_lease_of_a_dead_replica_runs_out(events: StateStore, state: SqlConsumerStateStore) -> None:
    await steal(events, state, ttl=0.3)
    await add(events, *things(3))
    seen = Seen()
    async with group_of(events, state, ThingProjector(seen), lease_ttl=QUICK) as group:
        await group.caught_up(10)
    assert seen.positions == [1, 2, 3]


async def test_an_embedded_bundle_takes_its_leases_back_at_once(
    events: StateStore, state: SqlConsumerStateStore
) -> None:
    await steal(events, state)
    await add(events, *things(3))
    seen = Seen()
    async with group_of(events, state, ThingProjector(seen), take_over=True) as group, asyncio.timeout(10):
        await group.caught_up(10)
    assert seen.positions == [1, 2, 3]


class CountingRenewals(FaultyConsumerStore):
    renewals = 0

    async def renew(self, lease: ConsumerLease, *, ttl: float) -> bool:
        self.renewals += 1
        return await self._store.renew(lease, ttl=ttl)


async def test_a_lease_is_renewed_while_a_handler_runs(events: StateStore, state: SqlConsumerStateStore) -> None:
    await add(events, *things(1))
    running, go_on = asyncio.Event(), asyncio.Event()

    async def wait(message: object) -> None:
        running.set()
        await go_on.wait()

    store = CountingRenewals(state)
    async with group_of(events, store, ThingProjector(wait), lease_ttl=STEADY) as group:
        await running.wait()

        async def renewed_and_kept() -> bool:
            assert await state.acquire(THINGS, owner="thief", ttl=60) is None
            return store.renewals >= 5  # well beyond the lease's time

        await eventually(renewed_and_kept)
        go_on.set()
        await group.caught_up(10)


@pytest.mark.parametrize("take_over", [False, True])
async def test_a_lost_lease_cancels_the_handler_and_commits_nothing(
    events: StateStore, state: SqlConsumerStateStore, take_over: bool
) -> None:
    await add(events, *things(3))
    cancelled = asyncio.Event()
    seen = Seen()

    async def handle(message: EventMessage[Any]) -> None:
        await seen(message)
        if message.position == 2 and not cancelled.is_set():
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

    async with group_of(events, state, ThingProjector(handle), lease_ttl=QUICK, take_over=take_over) as group:
        await seen.wait(2)
        thief = await steal(events, state)
        await asyncio.wait_for(cancelled.wait(), 10)
        if not take_over:
            await eventually(lambda: state_of(group) is ConsumerState.STANDBY)
            assert seen.positions == [1, 2]
            await state.release(thief)
        await group.caught_up(10)
    assert seen.positions[-2:] == [2, 3]


async def test_a_lease_that_cannot_be_renewed_in_time_is_given_up(
    events: StateStore, state: SqlConsumerStateStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody says that it is lost, but the others may think so."""

    class Unreachable(FaultyConsumerStore):
        async def renew(self, lease: ConsumerLease, *, ttl: float) -> bool:
            self.fail()
            return await state.renew(lease, ttl=ttl)

    store = Unreachable(state)
    cancelled = asyncio.Event()
    await add(events, *things(1))
    caplog.set_level(logging.WARNING, "evento.consumers")

    async def handle(message: object) -> None:
        if not cancelled.is_set():
            store.error = StoreUnavailable("the network is down")
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()
                store.error = None

    async with group_of(events, store, ThingProjector(handle), lease_ttl=QUICK) as group:
        await asyncio.wait_for(cancelled.wait(), 10)
        await group.caught_up(10)
    assert "could not be renewed in time" in caplog.text
    assert "is worked for by another process" not in caplog.text  # nobody has said so


async def test_behind_an_own_transaction_that_nobody_can_pass_no_lease_is_given_up(
    events: StateStore, tmp_path: Path
) -> None:
    """On SQLite who has the writer keeps all others from writing, also from being granted a lease."""

    class CountingLooks(FaultyConsumerStore):
        looks = 0

        @property
        def holds_writer(self) -> bool:
            self.looks += 1
            return self._store.holds_writer

    url = f"sqlite+aiosqlite:///{tmp_path}/consumers.db"
    both, go_on = asyncio.Barrier(3), asyncio.Event()
    runs: list[str] = []

    def hold(name: str) -> Handle:
        async def handle(message: object) -> None:
            runs.append(name)
            if len(runs) <= 2:
                await both.wait()
                await go_on.wait()

        return handle

    async with SqlConsumerStateStore(url) as state, SqlConsumerStateStore(url, read_only=True) as reader:
        await make_rows(state)
        store = CountingLooks(state)
        holding = RowProjector(hold("in a transaction")), ThingProjector(hold("beside it"))
        async with group_of(events, store, *holding, lease_ttl=QUICK) as group:
            await eventually(lambda: all(status.state is ConsumerState.RUNNING for status in group.statuses()))
            await add(events, *things(1))
            await both.wait()

            async def lapsed() -> bool:
                stored = await reader.load(THINGS)
                return stored is not None and not stored.leased and store.looks >= 20  # both keepers, beyond their time

            await eventually(lapsed)
            assert sorted(runs) == ["beside it", "in a transaction"]
            assert {status.state for status in group.statuses()} == {ConsumerState.RUNNING}
            go_on.set()
            await group.caught_up(10)
        assert await rows(state) == [1]


async def test_alone_with_the_file_a_slow_database_is_no_reason_to_stop(
    events: StateStore, state: SqlConsumerStateStore
) -> None:
    class Unreachable(FaultyConsumerStore):
        async def renew(self, lease: ConsumerLease, *, ttl: float) -> bool:
            self.failures += 1
            raise StoreUnavailable("busy")

    store = Unreachable(state)
    go_on = asyncio.Event()
    await add(events, *things(1))
    seen = Seen()

    async def handle(message: EventMessage[Any]) -> None:
        await go_on.wait()
        await seen(message)

    async with group_of(events, store, ThingProjector(handle), lease_ttl=QUICK, take_over=True) as group:
        await eventually(lambda: store.failures >= 6)
        go_on.set()
        await group.caught_up(10)
    assert seen.positions == [1]


async def test_a_checkpoint_under_an_old_token_is_refused(events: StateStore, state: SqlConsumerStateStore) -> None:
    """The handler does not notice that the lease is lost while it runs: the database does."""
    await add(events, *things(2))
    thieves: list[ConsumerLease] = []

    async def handle(message: EventMessage[Any]) -> None:
        if message.position == 1 and not thieves:
            thieves.append(await steal(events, state))

    async with group_of(events, state, ThingProjector(handle)) as group:
        await eventually(lambda: state_of(group) is ConsumerState.STANDBY and bool(thieves))
        stored = await state.load(THINGS)
        assert stored is not None
        assert stored.checkpoint.position == 0
        await state.commit(thieves[0], 1)
        await state.release(thieves[0])
        await group.caught_up(10)


async def test_two_groups_hammering_one_read_model_write_each_row_once(
    events: StateStore, state: SqlConsumerStateStore
) -> None:
    await add(events, *things(200))
    groups = [
        group_of(events, state, RowProjector(Seen()), lease_ttl=QUICK, take_over=True, fetch_size=7) for _ in range(2)
    ]
    async with groups[0], groups[1]:
        await groups[0].caught_up(20)
    assert await rows(state) == list(range(1, 201))
