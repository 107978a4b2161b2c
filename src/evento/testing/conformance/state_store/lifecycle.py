# ruff: noqa: D102, S101 - tests say what they test in their names, and assert
"""Opening, closing, opening again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from evento.errors import ErrorData, StoreUnavailable
from evento.state_store import Appended, EventFilter, Lease, Snapshot, StateStore
from evento.testing.conformance.state_store.support import Factory, StoreTests, append, filled, stored

__all__ = ["Lifecycle"]

OPERATIONS: dict[str, Callable[[StateStore], Awaitable[object]]] = {
    "append": lambda store: store.append(append()),
    "story": lambda store: store.story("ORD_1"),
    "fetch": lambda store: store.fetch(0),
    "head": lambda store: store.head(),
    "wait": lambda store: store.wait(0, 30),
    "snapshot": lambda store: store.snapshot(Snapshot("ORD_1", 1, "f", b"{}")),
    "lookup": lambda store: store.lookup("c1"),
    "reject": lambda store: store.reject("c1", ErrorData("CommandRejected", "CommandRejected", "no")),
    "lock": lambda store: store.lock("PAY_1", owner="a", ttl=60),
    "renew": lambda store: store.renew(Lease("PAY_1", 1), ttl=60),
    "unlock": lambda store: store.unlock(Lease("PAY_1", 1)),
    "search": lambda store: store.search(EventFilter()),
    "event": lambda store: store.event(1),
    "info": lambda store: store.info(),
    "verify": lambda store: store.verify(),
    "purge": lambda store: store.purge(deleted_before=0),
}


class Lifecycle(StoreTests):
    """What opening and closing promise."""

    async def test_a_store_has_an_id_of_its_own(self, store: StateStore) -> None:
        assert store.store_id
        assert store.epoch >= 1

    @pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS.keys())
    async def test_nothing_works_outside_of_async_with(
        self, factory: Factory, operation: Callable[[StateStore], Awaitable[object]]
    ) -> None:
        store = factory()
        with pytest.raises(StoreUnavailable) as caught:
            await operation(store)
        assert caught.value.definite
        async with store:
            pass
        with pytest.raises(StoreUnavailable) as caught:
            await operation(store)
        assert caught.value.definite

    async def test_closing_answers_what_is_queued(self, factory: Factory) -> None:
        async with factory() as store:
            futures = [store.append(append(f"ORD_{number % 5}")) for number in range(500)]
            waiting = asyncio.ensure_future(store.story("ORD_1"))
            await asyncio.sleep(0)
        assert all(future.done() for future in futures)
        assert all(isinstance(future.result(), Appended) for future in futures)
        assert (await waiting).aggregate_id == "ORD_1"

    async def test_closing_ends_waiting(self, factory: Factory) -> None:
        async with factory() as store:
            waiting = asyncio.ensure_future(store.wait(0, timeout=60))
            await asyncio.sleep(0)
        with pytest.raises(StoreUnavailable):
            await waiting

    async def test_a_cancelled_close_still_closes(self, factory: Factory) -> None:
        store = factory()
        await store.__aenter__()
        futures = [store.append(append()) for _ in range(100)]
        closing = asyncio.ensure_future(store.__aexit__(None, None, None))
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert all(isinstance(future.result(), Appended) for future in futures)
        async with factory() as again:
            assert await again.head() == (100 if self.durable else 0)

    async def test_everything_is_there_when_it_is_opened_again(self, factory: Factory) -> None:
        if not self.durable:
            pytest.skip("the store forgets when it is closed")
        async with factory() as store:
            identity = (store.store_id, store.epoch)
            records = await filled(store, 10)
        async with factory() as store:
            assert (store.store_id, store.epoch) == identity
            assert list((await store.fetch(0)).events) == records
            assert (await store.story("ORD_1")).version == 10
            assert (await store.verify()).ok

    async def test_positions_and_versions_go_on(self, factory: Factory) -> None:
        if not self.durable:
            pytest.skip("the store forgets when it is closed")
        for opened in range(3):
            async with factory() as store:
                [record] = await stored(store, append(expected=opened))
                assert (record.position, record.version) == (opened + 1, opened + 1)
