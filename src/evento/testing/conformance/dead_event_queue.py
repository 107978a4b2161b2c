# ruff: noqa: D102, S101 - tests say what they test in their names, and assert
"""What every consumer state store must do with dead events and with what operators ask for.

Part of the suite in :mod:`evento.testing.conformance.consumer_store`.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import text

from evento.consumers.port import (
    Checkpoint,
    ConsumerId,
    ConsumerLease,
    ConsumerStateStore,
    DeadEvent,
    DeadEventFilter,
    Directions,
)
from evento.errors import LeaseLost

__all__ = ["CONSUMER", "START", "DeadEventQueueConformance", "dead_event"]

CONSUMER = ConsumerId("shop_eu", "Order_Projector", 1, "*")
START = Checkpoint(0, "store-1", 1)


def dead_event(position: int, *, key: str | None = "ORD_1", waiting: bool = False, **changes: Any) -> DeadEvent:
    """Return a dead event as a consumer parks it."""
    event = DeadEvent(
        position=position,
        event_id=f"event-{position}",
        event_name="OrderPlacedEvent",
        context="default",
        aggregate_id=key,
        key=key,
        waiting=waiting,
        error_type="" if waiting else "ValueError",
        error_message="" if waiting else "no such column: größe \N{SNOWMAN}",
        traceback="" if waiting else "Traceback ...",
        attempts=0 if waiting else 4,
    )
    return replace(event, **changes)


class DeadEventQueueConformance:
    """The suite; see the module's text."""

    @pytest.fixture
    def store(self) -> ConsumerStateStore:
        """Give an open, empty store: to be overridden, usually by an async fixture."""
        raise NotImplementedError

    @pytest.fixture
    async def lease(self, store: ConsumerStateStore) -> ConsumerLease:
        """Register a consumer and take its lease for a minute."""
        await store.register(CONSUMER, START)
        lease = await store.acquire(CONSUMER, owner="a", ttl=60)
        assert lease is not None
        return lease

    # The queue

    async def test_dead_events_are_filtered_by_all_that_is_given(
        self, store: ConsumerStateStore, lease: ConsumerLease
    ) -> None:
        parked = [
            dead_event(1, key="A"),
            dead_event(2, key="A", waiting=True),
            dead_event(3, key="B", error_type="KeyError"),
            dead_event(4, key=None, event_name="OrderPaidEvent"),
        ]
        await store.commit(lease, 4, parked=parked)
        await store.mark(CONSUMER, DeadEventFilter(position=3), retry=True)
        expected = {
            DeadEventFilter(): [1, 2, 3, 4],
            DeadEventFilter(key="A"): [1, 2],
            DeadEventFilter(key="a"): [],
            DeadEventFilter(key="A", waiting=False): [1],
            DeadEventFilter(waiting=True): [2],
            DeadEventFilter(event_name="OrderPaidEvent"): [4],
            DeadEventFilter(error_type="KeyError"): [3],
            DeadEventFilter(error_type="KeyError", key="A"): [],
            DeadEventFilter(retry=True): [3],
            DeadEventFilter(position=2): [2],
        }
        for criteria, positions in expected.items():
            found = await store.dead_events(CONSUMER, criteria)
            assert [event.position for event in found] == positions, criteria

    async def test_what_is_retryable(self, store: ConsumerStateStore, lease: ConsumerLease) -> None:
        await store.commit(
            lease,
            9,
            parked=[
                dead_event(1, key="A"),
                dead_event(2, key="B"),
                dead_event(3, key="A", waiting=True),
                dead_event(4, key="B", waiting=True),
                dead_event(5, key=None),
                dead_event(6, key=None),
                dead_event(7, key="C", waiting=True),
                dead_event(8, key="C"),
                dead_event(9, key="C", waiting=True),
            ],
        )
        assert await self.retryable(store) == [7]
        assert await store.mark(CONSUMER, DeadEventFilter(key="A"), retry=True) == 1
        assert await store.mark(CONSUMER, DeadEventFilter(position=6), retry=True) == 1
        assert await self.retryable(store) == [1, 3, 6, 7]
        assert await self.retryable(store, after=1, limit=2) == [3, 6]
        stored = await store.load(CONSUMER)
        assert stored is not None
        assert (stored.dead, stored.waiting, stored.retrying) == (5, 4, 4)
        assert await store.mark(CONSUMER, DeadEventFilter(), retry=False) == 5
        assert await self.retryable(store) == [7]

    async def test_keys_are_compared_to_the_letter(self, store: ConsumerStateStore, lease: ConsumerLease) -> None:
        keys = ["ORD_1", "ord_1", "ORD_1 ", " ORD_1", "ORD_\u00e9", "ORD_e\u0301", ""]
        await store.commit(lease, 9, parked=[dead_event(number, key=key) for number, key in enumerate(keys, 1)])
        assert await store.dead_keys(CONSUMER) == set(keys)
        for number, key in enumerate(keys, 1):
            assert [event.position for event in await store.dead_events(CONSUMER, DeadEventFilter(key=key))] == [number]
        await store.mark(CONSUMER, DeadEventFilter(key="ORD_1 "), retry=True)
        assert [event.key for event in await store.retryable(CONSUMER)] == ["ORD_1 "]

    async def test_waiting_events_are_not_marked(self, store: ConsumerStateStore, lease: ConsumerLease) -> None:
        await store.commit(lease, 2, parked=[dead_event(1), dead_event(2, waiting=True)])
        assert await store.mark(CONSUMER, DeadEventFilter(position=2), retry=True) == 0
        assert await self.retryable(store) == []

    async def test_resolved_events_leave_with_the_checkpoint(
        self, store: ConsumerStateStore, lease: ConsumerLease
    ) -> None:
        await store.commit(lease, 3, parked=[dead_event(1), dead_event(2), dead_event(3)], dead_streak=3)
        await store.commit(lease, 3, resolved=[2], dead_streak=None)
        assert [event.position for event in await store.dead_events(CONSUMER)] == [1, 3]
        stored = await store.load(CONSUMER)
        assert stored is not None
        assert (stored.checkpoint.position, stored.dead_streak) == (3, 3)

    async def test_a_lost_lease_resolves_nothing(self, store: ConsumerStateStore, lease: ConsumerLease) -> None:
        await store.commit(lease, 1, parked=[dead_event(1)])
        await store.acquire(CONSUMER, owner="b", ttl=60, take_over=True)
        with pytest.raises(LeaseLost):
            await store.commit(lease, 1, resolved=[1], dead_streak=None)
        with pytest.raises(LeaseLost):
            await store.put_back(lease, dead_event(1, error_type="KeyError"))
        (event,) = await store.dead_events(CONSUMER)
        assert event.error_type == "ValueError"

    async def test_resolved_events_leave_in_the_transaction_of_the_handler(
        self, store: ConsumerStateStore, lease: ConsumerLease
    ) -> None:
        await store.commit(lease, 2, parked=[dead_event(1), dead_event(2)])
        async with store.transaction(lease) as transaction:
            await transaction.connection.execute(text("CREATE TABLE read_model (id INTEGER)"))
            await transaction.commit(2, resolved=[1], dead_streak=None)
        async with store.transaction(lease) as transaction:
            await transaction.connection.execute(text("INSERT INTO read_model VALUES (2)"))
        assert [event.position for event in await store.dead_events(CONSUMER)] == [2]

    async def test_a_failed_retry_puts_its_error_on_the_event(
        self, store: ConsumerStateStore, lease: ConsumerLease
    ) -> None:
        await store.commit(lease, 2, parked=[dead_event(1), dead_event(2, waiting=True)])
        await store.mark(CONSUMER, DeadEventFilter(), retry=True)
        await store.put_back(lease, dead_event(1, error_type="KeyError", error_message="'a\0b'", attempts=5))
        await store.put_back(lease, dead_event(2))
        first, second = await store.dead_events(CONSUMER)
        assert (first.error_type, first.error_message, first.attempts) == ("KeyError", "'a\\0b'", 5)
        assert (first.retry, second.retry, second.waiting) == (False, False, False)
        assert await self.retryable(store) == []

    async def test_a_failed_retry_does_not_bring_back_what_was_discarded(
        self, store: ConsumerStateStore, lease: ConsumerLease
    ) -> None:
        await store.commit(lease, 1, parked=[dead_event(1)])
        await store.discard(CONSUMER, DeadEventFilter(position=1))
        await store.put_back(lease, dead_event(1))
        assert await store.dead_events(CONSUMER) == []

    async def test_what_waits_behind_a_discarded_event_is_retryable(
        self, store: ConsumerStateStore, lease: ConsumerLease
    ) -> None:
        await store.commit(lease, 3, parked=[dead_event(1), dead_event(2, waiting=True), dead_event(3, key="B")])
        (gone,) = await store.discard(CONSUMER, DeadEventFilter(position=1))
        assert replace(gone, parked_at=0) == dead_event(1)
        assert await self.retryable(store) == [2]
        assert await store.dead_keys(CONSUMER) == {"ORD_1", "B"}

    async def test_events_are_discarded_in_batches(self, store: ConsumerStateStore, lease: ConsumerLease) -> None:
        await store.commit(lease, 5, parked=[dead_event(n, key=f"K_{n}", waiting=n == 2) for n in range(1, 6)])
        criteria = DeadEventFilter(waiting=False)
        batches = [await store.discard(CONSUMER, criteria, limit=3) for _ in range(3)]
        assert [[event.position for event in batch] for batch in batches] == [[1, 3, 4], [5], []]
        assert [event.position for event in await store.dead_events(CONSUMER)] == [2]

    async def test_a_queue_is_one_consumers_own(self, store: ConsumerStateStore, lease: ConsumerLease) -> None:
        await store.commit(lease, 1, parked=[dead_event(1)])
        other = replace(CONSUMER, context="eu")
        await store.register(other, START)
        assert await store.mark(other, DeadEventFilter(), retry=True) == 0
        assert await store.discard(other, DeadEventFilter()) == []
        assert len(await store.dead_events(CONSUMER)) == 1

    # What operators ask for

    async def test_all_consumers_are_listed(self, store: ConsumerStateStore, lease: ConsumerLease) -> None:
        other = replace(CONSUMER, bundle="shop_us")
        await store.register(other, START)
        assert await store.consumers() == [CONSUMER, other]
        assert await store.consumers(bundle="shop_us") == [other]

    async def test_who_holds_the_lease_is_seen_from_outside(
        self, store: ConsumerStateStore, lease: ConsumerLease
    ) -> None:
        held = await store.load(CONSUMER)
        assert held is not None
        assert held.leased
        await store.release(lease)
        free = await store.load(CONSUMER)
        assert free is not None
        assert not free.leased

    async def test_every_request_lets_the_revision_rise(self, store: ConsumerStateStore, lease: ConsumerLease) -> None:
        assert await store.directions("shop_eu") == {}
        await store.commit(lease, 1, parked=[dead_event(1)], dead_streak=7)
        await store.set_paused(CONSUMER, True)
        first = (await store.directions("shop_eu"))[CONSUMER]
        assert (first.paused, first.dead_streak) == (True, 7)
        seen = [first.revision]
        await store.mark(CONSUMER, DeadEventFilter(), retry=True)
        seen.append((await store.directions("shop_eu"))[CONSUMER].revision)
        await store.discard(CONSUMER, DeadEventFilter())
        last = (await store.directions("shop_eu"))[CONSUMER]
        seen.append(last.revision)
        assert seen == sorted(set(seen))
        assert last.paused
        assert await store.directions("shop_us") == {}

    async def test_requests_at_the_same_time_all_count(self, store: ConsumerStateStore, lease: ConsumerLease) -> None:
        await asyncio.gather(*(store.set_paused(CONSUMER, True) for _ in range(8)))
        assert (await store.directions("shop_eu"))[CONSUMER].revision == 8

    async def test_resuming_ends_the_streak_of_dead_events(
        self, store: ConsumerStateStore, lease: ConsumerLease
    ) -> None:
        await store.commit(lease, 1, dead_streak=100)
        await store.set_paused(CONSUMER, False)
        stored = await store.load(CONSUMER)
        assert stored is not None
        assert stored.dead_streak == 0
        assert not stored.directions.paused

    async def test_a_pause_before_the_registration_does_not_change_the_start(self, store: ConsumerStateStore) -> None:
        await store.set_paused(CONSUMER, True)
        assert await store.load(CONSUMER) is None
        assert await store.consumers() == []
        stored = await store.register(CONSUMER, Checkpoint(41, "store-1", 1))
        assert stored.checkpoint.position == 41
        assert stored.directions == Directions(revision=1, paused=True)

    async def retryable(self, store: ConsumerStateStore, **page: int) -> list[int]:
        """Return the positions of the events that are to be handled again."""
        return [event.position for event in await store.retryable(CONSUMER, **page)]
