# ruff: noqa: D102, S101 - tests say what they test in their names, and assert
"""Leased locks: one holder at a time, by the store's clock, each grant with a higher token."""

from __future__ import annotations

import asyncio

import pytest

from evento.state_store import AlreadyStored, Append, Appended, Lease, LeaseIsLost, StateStore
from evento.testing.conformance.state_store.support import Factory, StoreTests, new_event, stored

__all__ = ["Locking"]

LONG = 60.0
SHORT = 0.02


async def granted(store: StateStore, lock_id: str, *, owner: str = "a", ttl: float = LONG) -> Lease:
    """Ask for a lock until it is granted: an older lease may have to end first."""
    async with asyncio.timeout(10):
        while (lease := await store.lock(lock_id, owner=owner, ttl=ttl)) is None:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(SHORT / 4)
    return lease


def under(lease: Lease, command_id: str | None = None) -> Append:
    """Return an append that needs a lease."""
    return Append(new_event("PAY_1", kind="service", command_id=command_id), lease=lease)


class Locking(StoreTests):
    """Grants, renewals, fencing."""

    async def test_one_grant_one_holder(self, store: StateStore) -> None:
        lease = await store.lock("PAY_1", owner="a", ttl=LONG)
        assert lease is not None
        assert lease.lock_id == "PAY_1"
        assert await store.lock("PAY_1", owner="b", ttl=LONG) is None
        assert await store.lock("PAY_1", owner="a", ttl=LONG) is None
        assert await store.lock("PAY_2", owner="b", ttl=LONG) is not None

    async def test_a_request_that_is_sent_again_gets_the_same_lease(self, store: StateStore) -> None:
        lease = await store.lock("PAY_1", owner="a", ttl=LONG, request="1")
        assert lease is not None
        assert await store.lock("PAY_1", owner="a", ttl=LONG, request="1") == lease
        assert await store.lock("PAY_1", owner="a", ttl=LONG, request="2") is None
        assert await store.renew(lease, ttl=LONG)
        assert await store.unlock(lease)
        assert await store.lock("PAY_1", owner="b", ttl=LONG, request="2") is not None

    async def test_of_many_that_ask_at_once_one_gets_it(self, store: StateStore) -> None:
        leases = await asyncio.gather(*(store.lock("PAY_1", owner=f"o{n}", ttl=LONG) for n in range(16)))
        assert len([lease for lease in leases if lease is not None]) == 1

    async def test_what_was_given_back_is_free_and_its_token_rises(self, store: StateStore) -> None:
        first = await granted(store, "PAY_1")
        assert await store.unlock(first)
        second = await granted(store, "PAY_1", owner="b")
        assert second.token > first.token
        assert not await store.unlock(first)
        assert await store.renew(second, ttl=LONG)

    async def test_a_lease_ends_by_itself(self, store: StateStore) -> None:
        first = await granted(store, "PAY_1", ttl=SHORT)
        second = await granted(store, "PAY_1", owner="b")
        assert second.token > first.token
        assert not await store.renew(first, ttl=LONG)
        assert not await store.unlock(first)
        assert await store.lock("PAY_1", owner="c", ttl=LONG) is None

    async def test_a_lease_that_ended_is_lost_even_if_nobody_took_it(self, store: StateStore) -> None:
        lease = await granted(store, "PAY_1", ttl=0)
        assert not await store.renew(lease, ttl=LONG)
        assert not await store.unlock(lease)

    async def test_a_renewed_lease_lasts(self, store: StateStore) -> None:
        lease = await granted(store, "PAY_1", ttl=5)
        assert await store.renew(lease, ttl=LONG)
        assert await store.renew(lease, ttl=0)
        assert not await store.renew(lease, ttl=LONG)

    async def test_a_holder_appends(self, store: StateStore) -> None:
        lease = await granted(store, "PAY_1")
        assert isinstance(await store.append(under(lease)), Appended)
        assert await store.renew(lease, ttl=LONG)

    async def test_who_lost_the_lease_does_not_append(self, store: StateStore) -> None:
        first = await granted(store, "PAY_1")
        await store.unlock(first)
        assert await store.append(under(first)) == LeaseIsLost()
        second = await granted(store, "PAY_1")
        assert await store.append(under(first)) == LeaseIsLost()
        assert isinstance(await store.append(under(second)), Appended)
        ended = await granted(store, "PAY_2", ttl=0)
        assert await store.append(under(ended)) == LeaseIsLost()
        assert await store.append(under(Lease("never", 1))) == LeaseIsLost()
        assert await store.head() == 1

    async def test_a_stored_command_stays_stored_without_the_lease(self, store: StateStore) -> None:
        lease = await granted(store, "PAY_1")
        [record] = await stored(store, under(lease, "c1"))
        await store.unlock(lease)
        assert await store.append(under(lease, "c1")) == AlreadyStored(record, record.name, "PAY_1")

    async def test_a_lost_lease_fails_alone(self, store: StateStore) -> None:
        lease = await granted(store, "PAY_1")
        outcomes = await asyncio.gather(
            store.append(under(lease)), store.append(under(Lease("PAY_1", lease.token - 1))), store.append(under(lease))
        )
        assert [type(outcome) for outcome in outcomes] == [Appended, LeaseIsLost, Appended]

    async def test_locks_have_nothing_to_do_with_aggregates(self, store: StateStore) -> None:
        await granted(store, "ORD_1")
        await stored(store, Append(new_event("ORD_1"), 0, "ORD_1", 0))

    async def test_tokens_rise_on_when_the_store_is_opened_again(self, factory: Factory) -> None:
        """Whether a lease outlives the store is its own affair, but it never lets two holders append."""
        if not self.durable:
            pytest.skip("the store forgets when it is closed")
        async with factory() as store:
            held = await granted(store, "PAY_1", ttl=1)
            given_back = await granted(store, "PAY_2")
            await store.unlock(given_back)
        async with factory() as store:
            assert (await granted(store, "PAY_2")).token > given_back.token
            assert (await granted(store, "PAY_1")).token > held.token
            assert await store.append(under(held)) == LeaseIsLost()
            assert not await store.renew(held, ttl=LONG)
