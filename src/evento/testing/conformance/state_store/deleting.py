# ruff: noqa: D102, S101 - tests say what they test in their names, and assert
"""Deleting an aggregate, and purging what is left of it."""

from __future__ import annotations

import pytest

from evento.messages import EventRecord
from evento.state_store import AlreadyStored, Append, Deleted, PurgeReport, Snapshot, StateStore
from evento.testing.conformance.state_store.support import Factory, StoreTests, append, filled, new_event, stored

__all__ = ["Deleting"]


async def deleted(store: StateStore, aggregate_id: str, timestamp: int, *, events: int = 3) -> list[EventRecord]:
    """Store an aggregate of so many events, the last of which deletes it."""
    last = Append(new_event(aggregate_id, timestamp=timestamp), deletes=True)
    return await stored(store, [*(append(aggregate_id) for _ in range(events - 1)), last])


class Deleting(StoreTests):
    """Deleted aggregates stay deleted; a purge takes their events and nothing else."""

    async def test_a_deleted_aggregate_takes_no_event(self, store: StateStore) -> None:
        await deleted(store, "ORD_1", 1000)
        for refused in (append(), append(expected=3), append(expected=0), Append(new_event(), deletes=True)):
            assert await store.append(refused) == Deleted(1000)
        await stored(store, append("ORD_2"))
        assert await store.head() == 4

    async def test_the_mark_is_there_with_the_event(self, store: StateStore) -> None:
        records = await deleted(store, "ORD_1", 1000)
        story = await store.story("ORD_1")
        assert (story.version, story.deleted_at, list(story.events)) == (3, 1000, records)

    async def test_the_mark_shows_with_and_without_a_snapshot(self, store: StateStore) -> None:
        await stored(store, append())
        await store.snapshot(Snapshot("ORD_1", 1, "f", b"{}"))
        await stored(store, Append(new_event(timestamp=1000), deletes=True))
        for fingerprint in ("f", "g", None):
            assert (await store.story("ORD_1", fingerprint=fingerprint, after_version=2)).deleted_at == 1000

    async def test_the_mark_outlives_the_store(self, factory: Factory) -> None:
        if not self.durable:
            pytest.skip("the store forgets when it is closed")
        async with factory() as store:
            await deleted(store, "ORD_1", 1000)
        async with factory() as store:
            assert await store.append(append()) == Deleted(1000)

    async def test_an_event_says_when_its_aggregate_was_deleted(self, store: StateStore) -> None:
        await deleted(store, "ORD_1", 1000, events=2)
        await stored(store, append("ORD_2"))
        found = [await store.event(position) for position in (1, 2, 3)]
        assert [event.deleted_at for event in found if event is not None] == [1000, 1000, None]

    async def test_a_purge_removes_the_events_of_what_was_deleted_before(self, store: StateStore) -> None:
        await deleted(store, "ORD_1", 1000)  # positions 1 to 3
        kept = await filled(store, 2, "ORD_2")  # 4 and 5
        recent = await deleted(store, "ORD_3", 2000)  # 6 to 8
        report = await store.purge(deleted_before=2000)
        assert report == PurgeReport(1, 2, ((1, 2),))
        assert [await store.event(position) for position in (1, 2)] == [None, None]
        left = (await store.fetch(0)).events
        assert [event.position for event in left] == [3, 4, 5, 6, 7, 8]
        assert list((await store.story("ORD_2")).events) == kept
        assert list((await store.story("ORD_3")).events) == recent
        assert (await store.verify()).ok

    async def test_after_a_purge_nothing_can_be_stored_twice(self, store: StateStore) -> None:
        records = await deleted(store, "ORD_1", 1000)
        await store.purge(deleted_before=1001)
        gone = AlreadyStored(None, records[0].name, "ORD_1")
        assert await store.lookup(records[0].command_id) == gone
        assert await store.append(append("ORD_9", command_id=records[0].command_id)) == gone
        last = AlreadyStored(records[2], records[2].name, "ORD_1")
        assert await store.lookup(records[2].command_id) == last
        assert await store.append(append()) == Deleted(1000)
        assert (await store.story("ORD_1")).version == 3

    async def test_positions_go_on_after_a_purge(self, store: StateStore) -> None:
        await deleted(store, "ORD_1", 1000)
        await store.purge(deleted_before=1001)
        [record] = await stored(store, append("ORD_2"))
        assert (record.position, await store.head()) == (4, 4)

    async def test_a_purge_makes_neighbouring_ranges_one(self, store: StateStore) -> None:
        await deleted(store, "ORD_1", 1000)
        await deleted(store, "ORD_2", 3000)
        await deleted(store, "ORD_3", 2000)
        assert (await store.purge(deleted_before=1001)).ranges == ((1, 2),)
        assert (await store.purge(deleted_before=9999)).ranges == ((4, 5), (7, 8))
        info = await store.info()
        assert (info.head, info.events, info.purged_ranges) == (9, 3, 3)
        assert (await store.verify()).ok

    async def test_interleaved_aggregates_are_purged_as_one_range(self, store: StateStore) -> None:
        await stored(store, [append(f"ORD_{number % 2}") for number in range(6)])
        await stored(store, [Append(new_event(f"ORD_{number}", timestamp=1000), deletes=True) for number in range(2)])
        assert await store.purge(deleted_before=1001) == PurgeReport(2, 6, ((1, 6),))
        assert (await store.verify()).ok

    async def test_a_dry_run_says_the_same_and_removes_nothing(self, store: StateStore) -> None:
        await deleted(store, "ORD_1", 1000)
        await filled(store, 3, "ORD_2")
        await deleted(store, "ORD_3", 1000, events=1)
        dry = await store.purge(deleted_before=1001, dry_run=True)
        assert (await store.info()).events == 7
        assert await store.purge(deleted_before=1001) == dry
        assert await store.purge(deleted_before=1001) == PurgeReport(0, 0, ())

    async def test_a_long_purge_tells_how_far_it_is(self, store: StateStore) -> None:
        await filled(store, 1500)
        await stored(store, Append(new_event(timestamp=1000), deletes=True))
        told: list[tuple[int, int]] = []
        report = await store.purge(deleted_before=1001, progress=lambda done, total: told.append((done, total)))
        assert report == PurgeReport(1, 1500, ((1, 1500),))
        assert told == sorted(told)
        assert told[-1] == (1500, 1500)
        assert (await store.verify()).ok
