# ruff: noqa: D102, S101 - tests say what they test in their names, and assert
"""What a store says of itself."""

from __future__ import annotations

import asyncio

from evento.state_store import Append, Snapshot, StateStore
from evento.testing.conformance.state_store.support import StoreTests, append, filled, new_event, stored

__all__ = ["Verifying"]


class Verifying(StoreTests):
    """Descriptions, and the check of all invariants."""

    async def test_an_empty_store_is_in_order(self, store: StateStore) -> None:
        report = await store.verify()
        assert (report.events, report.aggregates, report.problems, report.ok) == (0, 0, (), True)

    async def test_a_used_store_is_in_order(self, store: StateStore) -> None:
        await stored(store, [Append(new_event(f"ORD_{n % 3}"), n // 3, f"LOCK_{n % 2}") for n in range(9)])
        await stored(store, [append(None), Append(new_event("ORD_1", timestamp=1000), deletes=True)])
        await store.append(append("ORD_2", expected=0))
        await store.snapshot(Snapshot("ORD_2", 2, "f", b"{}"))
        await store.lock("PAY_1", owner="a", ttl=60)
        report = await store.verify()
        assert (report.events, report.aggregates, report.problems) == (11, 3, ())

    async def test_verifying_tells_how_far_it_is(self, store: StateStore) -> None:
        await filled(store, 100)
        told: list[tuple[int, int]] = []
        await store.verify(lambda read, head: told.append((read, head)))
        assert told == sorted(told)
        assert told[-1] == (100, 100)

    async def test_verifying_beside_writers_sees_one_instant(self, store: StateStore) -> None:
        futures = [store.append(append(f"ORD_{number % 5}")) for number in range(500)]
        while not all(future.done() for future in futures):
            assert (await store.verify()).problems == ()
        await asyncio.gather(*futures)

    async def test_a_store_describes_itself(self, store: StateStore) -> None:
        await filled(store, 4, "ORD_1")
        await store.snapshot(Snapshot("ORD_1", 2, "f", b"{}"))
        await stored(store, [append("ORD_2"), append(None)])
        await stored(store, Append(new_event("ORD_2"), deletes=True))
        info = await store.info()
        assert (info.store_id, info.epoch, info.head, info.events) == (store.store_id, store.epoch, 7, 7)
        assert (info.aggregates, info.deleted_aggregates, info.snapshots, info.purged_ranges) == (2, 1, 1, 0)
        assert info.schema_version >= 1
        assert info.size > 0
        assert info.location
