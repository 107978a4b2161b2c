# ruff: noqa: D102, S101 - tests say what they test in their names, and assert
"""Command ids: one has one outcome, an event or a tombstone, whatever else is asked of it."""

from __future__ import annotations

import asyncio

import pytest

from evento.errors import ErrorData
from evento.state_store import AlreadyStored, Append, Appended, Refused, StateStore
from evento.testing.conformance.state_store.support import Factory, StoreTests, append, new_event, stored

__all__ = ["Commands"]

FULL = ErrorData(
    code="CommandRejected", type="ListFull", message="the list is full \N{SNOWMAN}", data={"size": 5, "of": [1, None]}
)


class Commands(StoreTests):
    """Lookups and tombstones."""

    async def test_an_unknown_command_id_has_no_outcome(self, store: StateStore) -> None:
        assert await store.lookup("nobody") is None

    async def test_a_stored_one_has_its_event(self, store: StateStore) -> None:
        records = await stored(store, [append(command_id="c1"), Append(new_event(None, command_id="c2"))])
        assert await store.lookup("c1") == AlreadyStored(records[0], records[0].name, "ORD_1")
        assert await store.lookup("c2") == AlreadyStored(records[1], records[1].name, None)

    async def test_it_comes_before_all_other_checks(self, store: StateStore) -> None:
        """Sent again, a command gets its event back: also where it would now conflict or be refused."""
        [record] = await stored(store, append(expected=0, command_id="c1"))
        await stored(store, Append(new_event(), deletes=True))
        known = AlreadyStored(record, record.name, "ORD_1")
        assert await store.append(append(expected=0, command_id="c1")) == known
        assert await store.append(append(expected=99, command_id="c1")) == known
        assert await store.append(append("ORD_2", 0, command_id="c1")) == known
        assert await store.head() == 2

    async def test_many_resends_at_once_add_nothing(self, store: StateStore) -> None:
        records = await stored(store, [append(expected=number, command_id=f"c{number}") for number in range(64)])
        resent = [append(expected=number, command_id=f"c{number}") for number in range(64)]
        outcomes = await asyncio.gather(*[store.append(one) for one in resent])
        assert outcomes == [AlreadyStored(record, record.name, "ORD_1") for record in records]
        assert await store.head() == 64

    async def test_a_tombstone_refuses_a_late_append(self, store: StateStore) -> None:
        assert await store.reject("c1", FULL) is None
        assert await store.append(append(command_id="c1")) == Refused(FULL)
        assert await store.lookup("c1") == Refused(FULL)
        assert await store.head() == 0

    async def test_a_tombstone_does_not_replace_an_outcome(self, store: StateStore) -> None:
        [record] = await stored(store, append(command_id="c1"))
        assert await store.reject("c1", FULL) == AlreadyStored(record, record.name, "ORD_1")
        await store.reject("c2", FULL)
        assert await store.reject("c2", ErrorData("CommandRejected", "Other", "other")) == Refused(FULL)

    async def test_a_tombstone_is_of_one_command_id(self, store: StateStore) -> None:
        await store.reject("c1", FULL)
        await stored(store, append(command_id="c2"))

    async def test_an_append_that_was_queued_before_a_tombstone_wins(self, store: StateStore) -> None:
        future = store.append(append(command_id="c1"))
        known = await store.reject("c1", FULL)
        assert isinstance(known, AlreadyStored)
        assert isinstance(await future, Appended)

    async def test_an_append_that_was_queued_after_a_tombstone_is_refused(self, store: StateStore) -> None:
        rejecting = asyncio.ensure_future(store.reject("c1", FULL))
        await asyncio.sleep(0)  # it is queued now
        assert await store.append(append(command_id="c1")) == Refused(FULL)
        assert await rejecting is None

    async def test_outcomes_outlive_the_store(self, factory: Factory) -> None:
        if not self.durable:
            pytest.skip("the store forgets when it is closed")
        async with factory() as store:
            [record] = await stored(store, append(command_id="c1"))
            await store.reject("c2", FULL)
        async with factory() as store:
            assert await store.lookup("c1") == AlreadyStored(record, record.name, "ORD_1")
            assert await store.append(append(command_id="c2")) == Refused(FULL)
