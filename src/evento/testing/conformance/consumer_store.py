# ruff: noqa: D102, S101 - tests say what they test in their names, and assert
"""What every consumer state store must do.

Subclass the suite in your tests and give it a store::

    class TestMyStore(ConsumerStateStoreConformance):
        @pytest.fixture
        async def store(self):
            async with MyStore(...) as store:
                yield store

Each test needs an empty store. Tests run under pytest-asyncio with ``asyncio_mode = "auto"``.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from evento.consumers.port import Checkpoint, ConsumerLease, ConsumerStateStore, SagaChange, StoredSaga
from evento.errors import LeaseLost
from evento.testing.conformance.dead_event_queue import CONSUMER, START, DeadEventQueueConformance, dead_event

__all__ = ["ConsumerStateStoreConformance"]


def change(
    id: str, state: bytes | None, *, added: set[str] | None = None, removed: set[str] | None = None
) -> SagaChange:
    """Return what becomes of a saga."""
    return SagaChange(id, state, frozenset(added or ()), frozenset(removed or ()))


class ConsumerStateStoreConformance(DeadEventQueueConformance):
    """The suite; see the module's text."""

    # Registration

    async def test_an_unknown_consumer_is_not_there(self, store: ConsumerStateStore) -> None:
        assert await store.load(CONSUMER) is None
        assert await store.acquire(CONSUMER, owner="a", ttl=60) is None

    async def test_the_first_initial_position_stands(self, store: ConsumerStateStore) -> None:
        first = await store.register(CONSUMER, Checkpoint(7, "store-1", 3))
        second = await store.register(CONSUMER, Checkpoint(99, "store-2", 4))
        assert first.checkpoint == second.checkpoint == Checkpoint(7, "store-1", 3)
        assert await store.load(CONSUMER) == first

    async def test_one_of_many_that_register_at_once_is_first(self, store: ConsumerStateStore) -> None:
        answers = await asyncio.gather(
            *(store.register(CONSUMER, Checkpoint(position, "store-1", 1)) for position in range(8))
        )
        assert len({answer.checkpoint.position for answer in answers}) == 1

    async def test_each_of_the_four_fields_tells_consumers_apart(self, store: ConsumerStateStore) -> None:
        others = [
            replace(CONSUMER, bundle="shop"),
            replace(CONSUMER, component="eu_Order_Projector"),
            replace(CONSUMER, component="order_projector"),
            replace(CONSUMER, version=11),
            replace(CONSUMER, context="EU"),
            replace(CONSUMER, context="eu"),
            replace(CONSUMER, context="eu "),
        ]
        for position, consumer in enumerate([CONSUMER, *others]):
            await store.register(consumer, Checkpoint(position, "store-1", 1))
        for position, consumer in enumerate([CONSUMER, *others]):
            stored = await store.load(consumer)
            assert stored is not None
            assert stored.checkpoint.position == position

    # Leases

    async def test_one_owner_at_a_time(self, store: ConsumerStateStore, lease: ConsumerLease) -> None:
        assert await store.acquire(CONSUMER, owner="b", ttl=60) is None
        assert await store.release(lease)
        assert await store.acquire(CONSUMER, owner="b", ttl=60) is not None

    async def test_one_of_many_that_ask_at_once_gets_it(self, store: ConsumerStateStore) -> None:
        await store.register(CONSUMER, START)
        leases = await asyncio.gather(*(store.acquire(CONSUMER, owner=f"owner-{n}", ttl=60) for n in range(8)))
        assert len([lease for lease in leases if lease is not None]) == 1

    async def test_leases_of_consumers_are_independent(self, store: ConsumerStateStore, lease: ConsumerLease) -> None:
        other = replace(CONSUMER, context="eu")
        await store.register(other, START)
        assert await store.acquire(other, owner="b", ttl=60) is not None
        assert await store.renew(lease, ttl=60)

    async def test_an_expired_lease_goes_to_the_next(self, store: ConsumerStateStore) -> None:
        await store.register(CONSUMER, START)
        expired = await store.acquire(CONSUMER, owner="a", ttl=0)
        assert expired is not None
        lease = await store.acquire(CONSUMER, owner="b", ttl=60)
        assert lease is not None
        assert lease.token > expired.token
        assert not await store.renew(expired, ttl=60)
        assert not await store.release(expired)
        assert await store.renew(lease, ttl=60)

    async def test_an_expired_lease_that_nobody_took_can_be_renewed(self, store: ConsumerStateStore) -> None:
        await store.register(CONSUMER, START)
        lease = await store.acquire(CONSUMER, owner="a", ttl=0)
        assert lease is not None
        assert await store.renew(lease, ttl=60)
        assert await store.acquire(CONSUMER, owner="b", ttl=60) is None

    async def test_a_take_over_does_not_wait(self, store: ConsumerStateStore, lease: ConsumerLease) -> None:
        taken = await store.acquire(CONSUMER, owner="b", ttl=60, take_over=True)
        assert taken is not None
        assert taken.token > lease.token
        assert not await store.renew(lease, ttl=60)

    async def test_the_holder_that_asks_again_voids_its_old_token(
        self, store: ConsumerStateStore, lease: ConsumerLease
    ) -> None:
        again = await store.acquire(CONSUMER, owner="a", ttl=60)
        assert again is not None
        assert again.token > lease.token
        with pytest.raises(LeaseLost):
            await store.commit(lease, 1)
        await store.commit(again, 1)

    async def test_tokens_rise_across_releases(self, store: ConsumerStateStore) -> None:
        await store.register(CONSUMER, START)
        tokens = []
        for owner in ("a", "b", "a"):
            lease = await store.acquire(CONSUMER, owner=owner, ttl=60)
            assert lease is not None
            tokens.append(lease.token)
            assert await store.release(lease)
        assert tokens == sorted(set(tokens))

    # Checkpoints

    async def test_a_checkpoint_moves_and_keeps_its_store(
        self, store: ConsumerStateStore, lease: ConsumerLease
    ) -> None:
        await store.commit(lease, 2**53 + 1)
        stored = await store.load(CONSUMER)
        assert stored is not None
        assert stored.checkpoint == Checkpoint(2**53 + 1, "store-1", 1)

    async def test_a_lost_lease_commits_nothing(self, store: ConsumerStateStore, lease: ConsumerLease) -> None:
        await store.commit(lease, 5)
        assert await store.acquire(CONSUMER, owner="b", ttl=60, take_over=True)
        with pytest.raises(LeaseLost) as caught:
            await store.commit(lease, 6, parked=[dead_event(6)])
        assert "Order_Projector" in str(caught.value)
        stored = await store.load(CONSUMER)
        assert stored is not None
        assert (stored.checkpoint.position, stored.dead) == (5, 0)
        assert await store.dead_events(CONSUMER) == []

    async def test_a_released_lease_commits_nothing(self, store: ConsumerStateStore, lease: ConsumerLease) -> None:
        await store.release(lease)
        with pytest.raises(LeaseLost):
            await store.commit(lease, 1)

    async def test_errors_are_counted_until_there_is_progress(
        self, store: ConsumerStateStore, lease: ConsumerLease
    ) -> None:
        await store.record_error(lease, "first")
        first = await store.load(CONSUMER)
        await store.record_error(lease, "second \0 \udcff")
        second = await store.load(CONSUMER)
        assert first is not None
        assert second is not None
        assert (first.errors, second.errors) == (1, 2)
        assert second.failing_since == first.failing_since
        assert second.failing_since is not None
        assert (second.last_error or "").startswith("second")
        await store.commit(lease, 1, dead_streak=3)
        third = await store.load(CONSUMER)
        assert third is not None
        assert (third.errors, third.failing_since, third.dead_streak) == (0, None, 3)
        assert third.last_error == second.last_error

    async def test_errors_of_a_lost_lease_are_not_counted(
        self, store: ConsumerStateStore, lease: ConsumerLease
    ) -> None:
        await store.acquire(CONSUMER, owner="b", ttl=60, take_over=True)
        await store.record_error(lease, "late")
        stored = await store.load(CONSUMER)
        assert stored is not None
        assert (stored.errors, stored.last_error) == (0, None)

    # Dead events

    async def test_dead_events_are_kept_with_the_checkpoint(
        self, store: ConsumerStateStore, lease: ConsumerLease
    ) -> None:
        parked = [dead_event(3), dead_event(4, waiting=True), dead_event(5, key=None)]
        await store.commit(lease, 5, parked=parked)
        stored = await store.load(CONSUMER)
        assert stored is not None
        assert (stored.checkpoint.position, stored.dead, stored.waiting) == (5, 2, 1)
        kept = await store.dead_events(CONSUMER)
        assert [replace(event, parked_at=0) for event in kept] == parked
        assert all(event.parked_at > 0 for event in kept)
        assert await store.dead_keys(CONSUMER) == {"ORD_1"}

    async def test_dead_events_are_listed_in_order_and_in_pages(
        self, store: ConsumerStateStore, lease: ConsumerLease
    ) -> None:
        await store.commit(lease, 9, parked=[dead_event(position) for position in (9, 2, 7, 4)])
        first = await store.dead_events(CONSUMER, limit=3)
        rest = await store.dead_events(CONSUMER, after=first[-1].position, limit=3)
        assert [event.position for event in first] == [2, 4, 7]
        assert [event.position for event in rest] == [9]

    async def test_an_event_that_is_parked_again_is_kept_once(
        self, store: ConsumerStateStore, lease: ConsumerLease
    ) -> None:
        await store.commit(lease, 3, parked=[dead_event(3)])
        await store.commit(lease, 3, parked=[replace(dead_event(3), error_message="again")])
        assert [event.error_message for event in await store.dead_events(CONSUMER)] == ["again"]

    async def test_text_that_databases_refuse_is_made_acceptable(
        self, store: ConsumerStateStore, lease: ConsumerLease
    ) -> None:
        await store.commit(lease, 3, parked=[replace(dead_event(3), error_message="a\0b\udcff" + "x" * 10_000_000)])
        (event,) = await store.dead_events(CONSUMER)
        assert event.error_message.startswith("a\\0b\\udcff")
        assert len(event.error_message) < 100_000

    async def test_dead_events_belong_to_one_consumer(self, store: ConsumerStateStore, lease: ConsumerLease) -> None:
        await store.commit(lease, 3, parked=[dead_event(3)])
        other = replace(CONSUMER, version=2)
        await store.register(other, START)
        assert await store.dead_events(other) == []
        assert await store.dead_keys(other) == frozenset()

    # Finished events

    async def test_finished_events_are_remembered_until_the_checkpoint_has_passed_them(
        self, store: ConsumerStateStore, lease: ConsumerLease
    ) -> None:
        assert await store.finished(CONSUMER) == frozenset()
        await store.commit(lease, 3, finished=[5, 2**53 + 1, 7])
        assert await store.finished(CONSUMER) == {5, 7, 2**53 + 1}
        await store.commit(lease, 5, finished=[8, 7])
        assert await store.finished(CONSUMER) == {7, 8, 2**53 + 1}
        await store.commit(lease, 2**54, finished=())
        assert await store.finished(CONSUMER) == frozenset()

    async def test_a_lost_lease_remembers_nothing(self, store: ConsumerStateStore, lease: ConsumerLease) -> None:
        await store.acquire(CONSUMER, owner="b", ttl=60, take_over=True)
        with pytest.raises(LeaseLost):
            await store.commit(lease, 3, finished=[5])
        assert await store.finished(CONSUMER) == frozenset()

    async def test_finished_events_belong_to_one_consumer(
        self, store: ConsumerStateStore, lease: ConsumerLease
    ) -> None:
        other = replace(CONSUMER, version=2)
        await store.register(other, START)
        others = await store.acquire(other, owner="a", ttl=60)
        assert others is not None
        await store.commit(lease, 3, finished=[5])
        await store.commit(others, 9, finished=[12])
        assert await store.finished(CONSUMER) == {5}
        assert await store.finished(other) == {12}

    # Sagas

    async def test_a_saga_is_found_by_each_of_its_associations(
        self, store: ConsumerStateStore, lease: ConsumerLease
    ) -> None:
        state = '{"note": "größe \N{SNOWMAN}"}'.encode()
        await store.commit(lease, 1, sagas=[change("S1", state, added={'order_id="O_1"', "number=7"})])
        for association in ('order_id="O_1"', "number=7"):
            assert await store.find_saga(CONSUMER, association) == StoredSaga("S1", state)
        stored = await store.load(CONSUMER)
        assert stored is not None
        assert stored.checkpoint.position == 1

    async def test_associations_are_compared_to_the_letter(
        self, store: ConsumerStateStore, lease: ConsumerLease
    ) -> None:
        long = "x" * 5_000
        await store.commit(lease, 1, sagas=[change("S1", b"{}", added={'a="x"', "n=1", "t=true", f'long="{long}"'})])
        for other in ('a="X"', 'a="x "', "A=x", 'n="1"', "n=1.0", "t=1", 't="true"', f'long="{long}y"', 'a="x'):
            assert await store.find_saga(CONSUMER, other) is None
        assert await store.find_saga(CONSUMER, f'long="{long}"') == StoredSaga("S1", b"{}")

    async def test_a_saga_changes_its_state_and_associations(
        self, store: ConsumerStateStore, lease: ConsumerLease
    ) -> None:
        await store.commit(lease, 1, sagas=[change("S1", b"1", added={"a=1", "b=1"})])
        await store.commit(lease, 2, sagas=[change("S1", b"2", added={"c=1"}, removed={"a=1"})])
        assert await store.find_saga(CONSUMER, "a=1") is None
        assert (
            await store.find_saga(CONSUMER, "b=1") == await store.find_saga(CONSUMER, "c=1") == StoredSaga("S1", b"2")
        )

    async def test_a_saga_that_has_ended_is_gone_with_its_associations(
        self, store: ConsumerStateStore, lease: ConsumerLease
    ) -> None:
        await store.commit(lease, 1, sagas=[change("S1", b"1", added={"a=1", "b=1"})])
        await store.commit(lease, 2, sagas=[change("S1", None, removed={"a=1", "b=1"})])
        assert await store.find_saga(CONSUMER, "a=1") is None
        assert await store.sagas(CONSUMER) == []
        await store.commit(lease, 3, sagas=[change("S2", b"3", added={"a=1"})])
        assert await store.find_saga(CONSUMER, "a=1") == StoredSaga("S2", b"3")

    async def test_an_association_may_pass_from_one_saga_to_another(
        self, store: ConsumerStateStore, lease: ConsumerLease
    ) -> None:
        await store.commit(lease, 1, sagas=[change("S1", b"1", added={"a=1"}), change("S2", b"2", added={"a=2"})])
        await store.commit(
            lease,
            2,
            sagas=[
                change("S1", b"1", added={"a=2"}, removed={"a=1"}),
                change("S2", b"2", added={"a=1"}, removed={"a=2"}),
            ],
        )
        assert await store.find_saga(CONSUMER, "a=1") == StoredSaga("S2", b"2")
        assert await store.find_saga(CONSUMER, "a=2") == StoredSaga("S1", b"1")

    async def test_an_association_of_two_sagas_is_refused_with_the_checkpoint(
        self, store: ConsumerStateStore, lease: ConsumerLease
    ) -> None:
        await store.commit(lease, 1, sagas=[change("S1", b"1", added={"a=1"})])
        with pytest.raises(IntegrityError):
            await store.commit(lease, 2, sagas=[change("S2", b"2", added={"a=1"})])
        stored = await store.load(CONSUMER)
        assert stored is not None
        assert stored.checkpoint.position == 1
        assert await store.sagas(CONSUMER) == [StoredSaga("S1", b"1")]

    async def test_a_lost_lease_writes_no_saga(self, store: ConsumerStateStore, lease: ConsumerLease) -> None:
        taken = await store.acquire(CONSUMER, owner="b", ttl=60, take_over=True)
        assert taken is not None
        await store.commit(taken, 1, sagas=[change("S1", b"new", added={"a=1"})])
        with pytest.raises(LeaseLost):
            await store.commit(lease, 1, sagas=[change("S2", b"old", added={"a=1"})])
        assert await store.sagas(CONSUMER) == [StoredSaga("S1", b"new")]

    async def test_sagas_belong_to_one_consumer(self, store: ConsumerStateStore, lease: ConsumerLease) -> None:
        other = replace(CONSUMER, version=2)
        await store.register(other, START)
        others = await store.acquire(other, owner="a", ttl=60)
        assert others is not None
        await store.commit(lease, 1, sagas=[change("S1", b"1", added={"a=1"})])
        assert await store.find_saga(other, "a=1") is None
        await store.commit(others, 1, sagas=[change("S1", b"2", added={"a=1"})])
        assert await store.find_saga(CONSUMER, "a=1") == StoredSaga("S1", b"1")
        assert await store.sagas(other) == [StoredSaga("S1", b"2")]

    async def test_sagas_are_listed_in_pages(self, store: ConsumerStateStore, lease: ConsumerLease) -> None:
        await store.commit(lease, 1, sagas=[change(f"S{n}", b"{}", added={f"a={n}"}) for n in (3, 1, 4, 2)])
        first = await store.sagas(CONSUMER, limit=3)
        rest = await store.sagas(CONSUMER, after=first[-1].id, limit=3)
        assert [saga.id for saga in [*first, *rest]] == ["S1", "S2", "S3", "S4"]

    # Transactions of handlers

    async def test_what_handlers_write_commits_with_the_checkpoint(
        self, store: ConsumerStateStore, lease: ConsumerLease
    ) -> None:
        async with store.transaction(lease) as transaction:
            await transaction.connection.execute(text("CREATE TABLE read_model (id INTEGER)"))
            await transaction.commit(1)
        async with store.transaction(lease) as transaction:
            await transaction.connection.execute(text("INSERT INTO read_model VALUES (1)"))
            await transaction.commit(2, parked=[dead_event(2)], dead_streak=1)
        assert await self.rows(store, lease) == 1
        stored = await store.load(CONSUMER)
        assert stored is not None
        assert (stored.checkpoint.position, stored.dead, stored.dead_streak) == (2, 1, 1)

    async def test_a_transaction_that_is_not_committed_leaves_nothing(
        self, store: ConsumerStateStore, lease: ConsumerLease
    ) -> None:
        async with store.transaction(lease) as transaction:
            await transaction.connection.execute(text("CREATE TABLE read_model (id INTEGER)"))
            await transaction.commit(1)
        async with store.transaction(lease) as transaction:
            await transaction.connection.execute(text("INSERT INTO read_model VALUES (1)"))
        with suppress(ZeroDivisionError):
            async with store.transaction(lease) as transaction:
                await transaction.connection.execute(text("INSERT INTO read_model VALUES (2)"))
                raise ZeroDivisionError
        assert await self.rows(store, lease) == 0
        stored = await store.load(CONSUMER)
        assert stored is not None
        assert stored.checkpoint.position == 1

    async def test_a_lost_lease_rolls_back_what_handlers_wrote(
        self, store: ConsumerStateStore, lease: ConsumerLease
    ) -> None:
        async with store.transaction(lease) as transaction:
            await transaction.connection.execute(text("CREATE TABLE read_model (id INTEGER)"))
            await transaction.commit(1)
        taken = await store.acquire(CONSUMER, owner="b", ttl=60, take_over=True)
        assert taken is not None
        async with store.transaction(lease) as transaction:
            await transaction.connection.execute(text("INSERT INTO read_model VALUES (1)"))
            with pytest.raises(LeaseLost):
                await transaction.commit(2)
        assert await self.rows(store, taken) == 0
        stored = await store.load(CONSUMER)
        assert stored is not None
        assert stored.checkpoint.position == 1

    async def test_a_transaction_that_a_handler_has_ended_is_not_open(
        self, store: ConsumerStateStore, lease: ConsumerLease
    ) -> None:
        async with store.transaction(lease) as transaction:
            assert transaction.is_open
            await transaction.connection.commit()
            assert not transaction.is_open

    async def rows(self, store: ConsumerStateStore, lease: ConsumerLease) -> int:
        """Count what handlers wrote."""
        async with store.transaction(lease) as transaction:
            return int(await transaction.connection.scalar(text("SELECT count(*) FROM read_model")) or 0)
