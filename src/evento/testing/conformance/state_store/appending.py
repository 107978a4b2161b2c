# ruff: noqa: D102, S101 - tests say what they test in their names, and assert
"""Appending one event at a time: order, versions, and the check of the expected version."""

from __future__ import annotations

import asyncio

import pytest

from evento.errors import PayloadError
from evento.state_store import AlreadyStored, Append, Appended, Conflict, StateStore
from evento.testing.conformance.state_store.support import StoreTests, append, new_event, stored

__all__ = ["Appending"]


class Appending(StoreTests):
    """Positions, versions, conflicts."""

    async def test_an_event_is_kept_as_it_was_given(self, store: StateStore) -> None:
        payload = '{ "text": "größe \N{SNOWMAN} \\u0041",\t"number": 1.0e2, "b": 1, "a": 2 }'.encode()
        event = new_event(payload=payload)
        outcome = await store.append(Append(event))
        assert isinstance(outcome, Appended)
        record = outcome.record
        assert (record.position, record.version) == (1, 1)
        for field in event.__struct_fields__:
            assert getattr(record, field) == getattr(event, field), field
        assert list((await store.fetch(0)).events) == [record]
        assert await store.event(1) == record

    async def test_text_that_looks_like_something_else_stays_text(self, store: StateStore) -> None:
        for odd in ("123", "1e5", "null", "'; --", "%", "*", "a b", "\N{SNOWMAN}", '"', "\\"):
            await stored(store, Append(new_event(odd, name=odd, context=odd, command_id=f"c {odd}"), 0, odd, 0))
            [event] = (await store.story(odd, boundary=odd)).events
            assert (event.aggregate_id, event.name, event.context, event.command_id) == (odd, odd, odd, f"c {odd}")
            assert await store.lookup(f"c {odd}") == AlreadyStored(event, odd, odd)

    async def test_positions_count_all_events_and_versions_those_of_an_aggregate(self, store: StateStore) -> None:
        records = await stored(store, [append(f"ORD_{number % 3}") for number in range(9)])
        assert [record.position for record in records] == list(range(1, 10))
        assert [record.version for record in records] == [1, 1, 1, 2, 2, 2, 3, 3, 3]

    async def test_an_event_without_an_aggregate_has_no_version(self, store: StateStore) -> None:
        records = await stored(store, [Append(new_event(None, kind="service")) for _ in range(2)])
        assert [(record.position, record.aggregate_id, record.version) for record in records] == [
            (1, None, None),
            (2, None, None),
        ]

    async def test_an_event_without_an_aggregate_cannot_expect_a_version(self, store: StateStore) -> None:
        with pytest.raises(PayloadError):
            await store.append(Append(new_event(None, kind="service"), expected_version=0))
        assert await store.head() == 0

    async def test_a_service_event_with_a_lock_id_has_versions(self, store: StateStore) -> None:
        records = await stored(store, [Append(new_event("PAY_1", kind="service")) for _ in range(2)])
        assert [(record.aggregate_id, record.version) for record in records] == [("PAY_1", 1), ("PAY_1", 2)]

    async def test_the_expected_version_is_the_current_one(self, store: StateStore) -> None:
        records = await stored(store, [append(expected=0), append(expected=1), append(expected=2)])
        assert [record.version for record in records] == [1, 2, 3]

    async def test_an_append_that_expects_nothing_is_not_checked(self, store: StateStore) -> None:
        records = await stored(store, [append(expected=0), append(), append()])
        assert [record.version for record in records] == [1, 2, 3]

    async def test_an_append_on_an_old_version_is_told_the_current_one(self, store: StateStore) -> None:
        await stored(store, [append(), append("ORD_2"), append(), append()])
        refused = append(expected=1)
        outcome = await store.append(refused)
        assert outcome == Conflict(3, 0)
        assert await store.head() == 4
        assert await store.lookup(refused.event.command_id) is None

    async def test_an_append_on_a_version_that_is_not_yet_is_refused(self, store: StateStore) -> None:
        await stored(store, append())
        assert await store.append(append(expected=2)) == Conflict(1, 0)
        assert await store.append(append("ORD_2", expected=1)) == Conflict(0, 0)
        assert await store.head() == 1

    async def test_of_many_on_one_version_one_wins_each_time(self, store: StateStore) -> None:
        """64 callers that decide again after each conflict end up with versions 1 to 64."""

        async def decide_until_stored() -> int:
            version = 0
            while True:
                outcome = await store.append(append(expected=version))
                if isinstance(outcome, Appended):
                    assert outcome.record.version == version + 1
                    return version + 1
                assert isinstance(outcome, Conflict)
                assert outcome.version > version
                version = outcome.version

        versions = await asyncio.gather(*(decide_until_stored() for _ in range(64)))
        assert sorted(versions) == list(range(1, 65))
        assert await store.head() == 64
        assert (await store.verify()).ok

    async def test_what_was_answered_can_be_read_at_once(self, store: StateStore) -> None:
        for number in range(1, 20):
            [record] = await stored(store, append())
            assert await store.head() == number
            assert list((await store.fetch(number - 1)).events) == [record]
            assert (await store.story("ORD_1")).version == number
