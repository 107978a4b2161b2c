# ruff: noqa: D102, S101 - tests say what they test in their names, and assert
"""Stories: what an aggregate's state is made of."""

from __future__ import annotations

from evento.state_store import Append, Snapshot, StateStore, Story
from evento.testing.conformance.state_store.support import StoreTests, append, filled, new_event, stored

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

    async def test_a_long_story_is_whole(self, store: StateStore) -> None:
        records = await filled(store, 2500)
        assert list((await store.story("ORD_1")).events) == records

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
