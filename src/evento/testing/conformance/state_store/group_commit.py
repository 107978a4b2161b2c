# ruff: noqa: D102, S101 - tests say what they test in their names, and assert
"""Appends that are queued together: each sees the earlier ones, and none suffers from another."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from evento.errors import PayloadError
from evento.state_store import AlreadyStored, Append, Appended, Conflict, Deleted, StateStore
from evento.testing.conformance.state_store.support import StoreTests, append, new_event

__all__ = ["GroupCommit"]


class GroupCommit(StoreTests):
    """What holds inside of a batch."""

    async def test_each_sees_the_earlier_ones(self, store: StateStore) -> None:
        outcomes = await asyncio.gather(*[store.append(append(expected=version)) for version in range(10)])
        assert [outcome.record.version for outcome in outcomes if isinstance(outcome, Appended)] == list(range(1, 11))

    async def test_a_refused_one_leaves_no_trace(self, store: StateStore) -> None:
        appends = [append(expected=0), append(expected=7), append(expected=1)]
        first, refused, second = await asyncio.gather(*[store.append(one) for one in appends])
        assert isinstance(first, Appended)
        assert isinstance(second, Appended)
        assert isinstance(refused, Conflict)
        assert [first.record.position, second.record.position] == [1, 2]
        assert [first.record.version, second.record.version] == [1, 2]
        assert await store.lookup(appends[1].event.command_id) is None
        assert await store.head() == 2

    async def test_a_conflict_tells_the_versions_that_the_earlier_ones_made(self, store: StateStore) -> None:
        appends = [Append(new_event(), expected, "ORD_1", expected) for expected in (0, 0, 1, 1)]
        first, refused, second, again = await asyncio.gather(*[store.append(one) for one in appends])
        assert isinstance(first, Appended)
        assert isinstance(second, Appended)
        assert (refused, again) == (Conflict(1, 1), Conflict(2, 2))

    async def test_one_command_id_has_one_event(self, store: StateStore) -> None:
        outcomes = await asyncio.gather(*[store.append(append(expected=0, command_id="twice")) for _ in range(3)])
        first, *others = outcomes
        assert isinstance(first, Appended)
        assert others == [AlreadyStored(first.record, first.record.name, "ORD_1")] * 2
        assert await store.head() == 1

    async def test_a_command_id_that_was_refused_is_free(self, store: StateStore) -> None:
        appends = [append(expected=5, command_id="again"), append(expected=0, command_id="again")]
        refused, second = await asyncio.gather(*[store.append(one) for one in appends])
        assert isinstance(refused, Conflict)
        assert isinstance(second, Appended)

    async def test_a_deleted_aggregate_takes_none_of_the_later_ones(self, store: StateStore) -> None:
        deleting = Append(new_event("ORD_1"), deletes=True)
        appends = [append("ORD_1"), deleting, append("ORD_1"), append("ORD_2")]
        first, last, late, other = await asyncio.gather(*[store.append(one) for one in appends])
        assert isinstance(first, Appended)
        assert isinstance(last, Appended)
        assert late == Deleted(deleting.event.timestamp)
        assert isinstance(other, Appended)
        assert other.record.position == 3

    @pytest.mark.parametrize("bad", [{"payload": b"\xff\xfe"}, {"timestamp": 2**70}], ids=["no-text", "too-large"])
    async def test_what_cannot_be_stored_fails_alone(self, store: StateStore, bad: dict[str, object]) -> None:
        appends = [append(f"ORD_{number % 2}") for number in range(9)]
        appends[4] = Append(msgspec.structs.replace(appends[4].event, **bad))
        outcomes = await asyncio.gather(*[store.append(one) for one in appends], return_exceptions=True)
        error = outcomes.pop(4)
        assert isinstance(error, PayloadError)
        assert error.definite
        assert [outcome.record.position for outcome in outcomes if isinstance(outcome, Appended)] == list(range(1, 9))
        assert (await store.verify()).ok

    async def test_thousands_at_once_are_stored_in_their_order(self, store: StateStore) -> None:
        appends = [append(f"ORD_{number % 7}", number // 7) for number in range(3000)]
        outcomes = await asyncio.gather(*[store.append(one) for one in appends])
        records = [outcome.record for outcome in outcomes if isinstance(outcome, Appended)]
        assert [record.position for record in records] == list(range(1, 3001))
        assert [record.event_id for record in records] == [one.event.event_id for one in appends]
        assert (await store.verify()).ok

    async def test_a_cancelled_caller_does_not_hold_up_the_others(self, store: StateStore) -> None:
        futures = [store.append(append(f"ORD_{number}")) for number in range(10)]
        for future in futures[::2]:
            future.cancel()
        outcomes = await asyncio.gather(*futures[1::2])
        assert all(isinstance(outcome, Appended) for outcome in outcomes)

    async def test_cancelling_does_not_withdraw(self, store: StateStore) -> None:
        cancelled = append(command_id="cancelled")
        store.append(cancelled).cancel()
        outcome = await store.append(append(expected=1))
        assert isinstance(outcome, Appended)
        found = await store.lookup("cancelled")
        assert isinstance(found, AlreadyStored)
        assert found.record is not None
        assert found.record.event_id == cancelled.event.event_id
