# ruff: noqa: D102, S101 - tests say what they test in their names, and assert
"""Writing snapshots."""

from __future__ import annotations

import pytest

from evento.messages import now_micros
from evento.state_store import Append, Snapshot, StateStore
from evento.testing.conformance.state_store.support import Factory, StoreTests, filled, new_event, stored

__all__ = ["Snapshots"]


def snapshot(version: int, fingerprint: str = "f", aggregate_id: str = "ORD_1") -> Snapshot:
    """Return a snapshot whose state says what it is."""
    return Snapshot(aggregate_id, version, fingerprint, f'{{"{fingerprint}": {version}}}'.encode())


async def kept(store: StateStore, fingerprint: str = "f", aggregate_id: str = "ORD_1") -> int | None:
    """Return the version of the kept snapshot."""
    found = (await store.story(aggregate_id, fingerprint=fingerprint)).snapshot
    return None if found is None else found.version


class Snapshots(StoreTests):
    """The newest of each fingerprint, two fingerprints an aggregate."""

    async def test_a_snapshot_is_kept_as_it_was_given(self, store: StateStore) -> None:
        await filled(store, 2)
        state = '{ "text": "größe \N{SNOWMAN}" }'.encode()
        before = now_micros()
        assert await store.snapshot(Snapshot("ORD_1", 2, "f", state))
        found = (await store.story("ORD_1", fingerprint="f")).snapshot
        assert found is not None
        assert (found.aggregate_id, found.version, found.fingerprint, found.state) == ("ORD_1", 2, "f", state)
        assert abs(found.updated_at - before) < 60_000_000

    async def test_a_newer_one_replaces_the_older(self, store: StateStore) -> None:
        await filled(store, 5)
        assert await store.snapshot(snapshot(2))
        assert await store.snapshot(snapshot(4))
        assert await kept(store) == 4
        assert (await store.info()).snapshots == 1

    async def test_an_older_one_does_not_replace_the_newer(self, store: StateStore) -> None:
        await filled(store, 5)
        assert await store.snapshot(snapshot(4))
        assert not await store.snapshot(snapshot(3))
        assert await kept(store) == 4

    async def test_fingerprints_do_not_get_in_each_others_way(self, store: StateStore) -> None:
        """In a rolling deployment old and new software both keep theirs."""
        await filled(store, 5)
        assert await store.snapshot(snapshot(4, "new"))
        assert await store.snapshot(snapshot(3, "old"))
        assert await store.snapshot(snapshot(5, "new"))
        assert (await kept(store, "old"), await kept(store, "new")) == (3, 5)

    async def test_the_two_written_last_are_kept(self, store: StateStore) -> None:
        await filled(store, 5)
        for version, fingerprint in ((5, "a"), (4, "b"), (3, "c")):
            assert await store.snapshot(snapshot(version, fingerprint))
        assert [await kept(store, fingerprint) for fingerprint in "abc"] == [None, 4, 3]
        assert await store.snapshot(snapshot(5, "b"))
        assert await store.snapshot(snapshot(2, "d"))
        assert [await kept(store, fingerprint) for fingerprint in "abcd"] == [None, 5, None, 2]

    async def test_aggregates_do_not_share_the_two(self, store: StateStore) -> None:
        for number in range(4):
            await filled(store, 2, f"ORD_{number}")
            assert await store.snapshot(snapshot(2, aggregate_id=f"ORD_{number}"))
        assert [await kept(store, aggregate_id=f"ORD_{number}") for number in range(4)] == [2, 2, 2, 2]

    async def test_a_deleted_aggregate_takes_no_snapshot(self, store: StateStore) -> None:
        await filled(store, 2)
        await stored(store, Append(new_event(), deletes=True))
        assert not await store.snapshot(snapshot(2))
        assert await kept(store) is None

    async def test_a_snapshot_beyond_the_events_is_refused(self, store: StateStore) -> None:
        await filled(store, 2)
        assert not await store.snapshot(snapshot(3))
        assert not await store.snapshot(snapshot(1, aggregate_id="ORD_2"))

    async def test_snapshots_outlive_the_store(self, factory: Factory) -> None:
        if not self.durable:
            pytest.skip("the store forgets when it is closed")
        async with factory() as store:
            await filled(store, 3)
            await store.snapshot(snapshot(2))
        async with factory() as store:
            assert await kept(store) == 2
