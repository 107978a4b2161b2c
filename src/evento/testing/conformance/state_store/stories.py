# ruff: noqa: D102, S101 - tests say what they test in their names, and assert
"""Stories: what an aggregate's state is made of."""

from __future__ import annotations

import pytest

from evento.state_store import EVENT_OVERHEAD, Append, Snapshot, StateStore, Story, story_parts
from evento.testing.conformance.state_store.support import StoreTests, append, filled, new_event, stored, whole

__all__ = ["Stories"]


class Stories(StoreTests):
    """Loading an aggregate."""

    async def test_an_aggregate_without_events(self, store: StateStore) -> None:
        story = await store.story("ORD_1", boundary="ORD_1", fingerprint="f")
        assert (story.aggregate_id, story.version, story.boundary_version) == ("ORD_1", 0, 0)
        assert (story.deleted_at, story.snapshot, list(story.events)) == (None, None, [])

    async def test_all_events_of_one_aggregate_in_order(self, store: StateStore) -> None:
        records = await stored(store, [append(f"ORD_{number % 3}") for number in range(9)])
        story = await store.story("ORD_1")
        assert (story.version, list(story.events)) == (3, records[1::3])

    async def test_a_long_story_comes_whole_in_parts(self, store: StateStore) -> None:
        records = await filled(store, 2500)
        story = await whole(store)
        assert (story.version, list(story.events)) == (2500, records)

    async def test_a_story_is_cut_by_bytes(self, store: StateStore) -> None:
        payload = b'{"text":"%s"}' % (b"x" * 1000)
        records = await stored(store, [Append(new_event(payload=payload), boundary="B") for _ in range(10)])
        room = 3 * (len(payload) + len(records[0].metadata) + EVENT_OVERHEAD)
        for max_bytes, after, expected in ((room, 0, 3), (room - 1, 0, 2), (room, 6, 3), (room, 7, 3), (room, 8, 2)):
            story = await store.story("ORD_1", boundary="B", after_version=after, max_bytes=max_bytes)
            assert list(story.events) == records[after : after + expected]
            assert (story.told, story.version, story.boundary_version) == (after + expected, 10, 10)
            assert story.is_cut == (after + expected < 10)
        assert (await whole(store, max_bytes=room)).events == records

    @pytest.mark.parametrize("max_bytes", [-1, 0, 1])
    async def test_each_part_has_an_event_however_large_it_is(self, store: StateStore, max_bytes: int) -> None:
        records = await stored(store, [Append(new_event(payload=b'{"t":"%s"}' % (b"x" * 50_000))), append(), append()])
        parts = [part async for part in story_parts(store, "ORD_1", max_bytes=max_bytes)]
        assert [list(part.events) for part in parts] == [[record] for record in records]
        assert [part.is_cut for part in parts] == [True, True, False]

    @pytest.mark.parametrize("max_bytes", [0, 1000, 5100, 6000, 8000, 1_000_000])
    async def test_a_snapshot_counts_and_may_come_alone(self, store: StateStore, max_bytes: int) -> None:
        records = await filled(store, 9)
        await store.snapshot(Snapshot("ORD_1", 3, "f", b'{"text":"%s"}' % (b"x" * 5000)))
        story = await store.story("ORD_1", fingerprint="f", max_bytes=max_bytes)
        assert story.snapshot is not None
        assert 512 * len(story.events) <= max(0, max_bytes - 5000)
        assert (story.told, story.version) == (3 + len(story.events), 9)
        assert len(story.events) == {0: 0, 1000: 0, 5100: 0, 6000: 1, 8000: 5, 1_000_000: 6}[max_bytes]
        story = await whole(store, fingerprint="f", max_bytes=max_bytes)
        assert story.snapshot is not None
        assert list(story.events) == records[3:]

    async def test_parts_that_are_read_beside_appends_make_a_story_of_one_instant(self, store: StateStore) -> None:
        futures = [store.append(Append(new_event("ORD_1"), n, "A", n)) for n in range(300)]
        stories: list[Story] = []
        while not all(future.done() for future in futures):
            stories.append(await whole(store, boundary="A", max_bytes=20_000))
        stories.append(await whole(store, boundary="A", max_bytes=20_000))
        for story in stories:
            assert [event.version for event in story.events] == list(range(1, story.version + 1))
            assert story.boundary_version == story.version
        assert stories[-1].version == 300

    async def test_a_snapshot_that_is_written_between_parts_repeats_nothing(self, store: StateStore) -> None:
        records = await filled(store, 5)
        parts = story_parts(store, "ORD_1", fingerprint="f", max_bytes=0)
        first = await anext(parts)
        assert await store.snapshot(Snapshot("ORD_1", 4, "f", b"{}"))
        rest = [part async for part in parts]
        assert [part.snapshot for part in (first, *rest)] == [None] * 5
        assert [event for part in (first, *rest) for event in part.events] == records

    async def test_what_is_deleted_between_parts_says_so(self, store: StateStore) -> None:
        """Also when its events are purged: what is left of them ends the story."""
        for purging in (False, True):
            name = f"ORD_{purging}"
            await filled(store, 5, name)
            parts = story_parts(store, name, max_bytes=0)
            assert (await anext(parts)).deleted_at is None
            await stored(store, Append(new_event(name, timestamp=1000), deletes=True))
            if purging:
                await store.purge(deleted_before=1001)
            rest = [part async for part in parts]
            assert {part.deleted_at for part in rest} == {1000}
            assert rest[-1].told == rest[-1].version == 6

    async def test_only_the_events_after_a_version(self, store: StateStore) -> None:
        records = await filled(store, 5)
        story = await store.story("ORD_1", after_version=3)
        assert (story.version, story.snapshot, list(story.events)) == (5, None, records[3:])
        for beyond in (5, 6):
            story = await store.story("ORD_1", after_version=beyond)
            assert (story.version, list(story.events)) == (5, [])

    async def test_a_snapshot_and_the_events_after_it(self, store: StateStore) -> None:
        records = await filled(store, 5)
        await store.snapshot(Snapshot("ORD_1", 3, "f", b'{"state": 3}'))
        story = await store.story("ORD_1", fingerprint="f")
        assert story.snapshot is not None
        assert (story.snapshot.version, story.snapshot.state) == (3, b'{"state": 3}')
        assert list(story.events) == records[3:]

    async def test_a_snapshot_of_another_fingerprint_is_not_used(self, store: StateStore) -> None:
        records = await filled(store, 3)
        await store.snapshot(Snapshot("ORD_1", 2, "f", b"{}"))
        for fingerprint in ("g", None):
            story = await store.story("ORD_1", fingerprint=fingerprint)
            assert (story.snapshot, list(story.events)) == (None, records)

    async def test_a_snapshot_older_than_what_is_known_is_not_used(self, store: StateStore) -> None:
        records = await filled(store, 5)
        await store.snapshot(Snapshot("ORD_1", 3, "f", b"{}"))
        story = await store.story("ORD_1", fingerprint="f", after_version=4)
        assert (story.snapshot, list(story.events)) == (None, records[4:])

    async def test_boundary_and_aggregate_are_of_one_instant(self, store: StateStore) -> None:
        """While appends run, no story shows an event without its count, or a count without its event."""
        futures = [store.append(Append(new_event("ORD_1"), n, "A", n)) for n in range(300)]
        stories: list[Story] = []
        while not all(future.done() for future in futures):
            stories.append(await store.story("ORD_1", boundary="A"))
        stories.append(await store.story("ORD_1", boundary="A"))
        for story in stories:
            assert story.version == story.boundary_version == len(story.events)
        assert stories[-1].version == 300
