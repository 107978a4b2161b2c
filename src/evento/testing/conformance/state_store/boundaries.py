# ruff: noqa: D102, S101 - tests say what they test in their names, and assert
"""Boundaries: the lock ids under which commands are decided, each with a version of its own."""

from __future__ import annotations

import asyncio

from evento.state_store import Append, Appended, Conflict, StateStore
from evento.testing.conformance.state_store.support import StoreTests, new_event, stored

__all__ = ["Boundaries"]


class Boundaries(StoreTests):
    """The second version that an append can be checked against."""

    async def test_the_boundary_of_most_is_the_aggregate_itself(self, store: StateStore) -> None:
        for number in range(3):
            outcome = await store.append(Append(new_event("ORD_1"), number, "ORD_1", number))
            assert isinstance(outcome, Appended)
            assert outcome.boundary_version == number + 1
        story = await store.story("ORD_1", boundary="ORD_1")
        assert (story.version, story.boundary_version) == (3, 3)

    async def test_an_append_without_a_boundary_counts_at_none(self, store: StateStore) -> None:
        outcome = await store.append(Append(new_event("ORD_1")))
        assert isinstance(outcome, Appended)
        assert outcome.boundary_version == 0
        story = await store.story("ORD_1", boundary="ORD_1")
        assert (story.version, story.boundary_version) == (1, 0)

    async def test_one_boundary_for_two_aggregates(self, store: StateStore) -> None:
        """Deciding on ORD_1 knowing of ORD_2 fails when ORD_2 changed under the same boundary."""
        await stored(store, Append(new_event("ORD_1"), 0, "CUSTOMER_7", 0))
        await stored(store, Append(new_event("ORD_2"), 0, "CUSTOMER_7", 1))
        outcome = await store.append(Append(new_event("ORD_1"), 1, "CUSTOMER_7", 1))
        assert outcome == Conflict(1, 2)
        await stored(store, Append(new_event("ORD_1"), 1, "CUSTOMER_7", 2))
        assert (await store.story("ORD_2", boundary="CUSTOMER_7")).boundary_version == 3

    async def test_two_boundaries_on_one_aggregate_still_share_its_version(self, store: StateStore) -> None:
        """Commands under different lock ids, or none, never both decide on one state of the aggregate."""
        outcomes = await asyncio.gather(
            store.append(Append(new_event("ORD_1"), 0, "A", 0)),
            store.append(Append(new_event("ORD_1"), 0, "B", 0)),
            store.append(Append(new_event("ORD_1"), 0)),
        )
        assert [type(outcome) for outcome in outcomes] == [Appended, Conflict, Conflict]
        assert (await store.story("ORD_1", boundary="B")).boundary_version == 0

    async def test_an_unchecked_boundary_is_still_counted(self, store: StateStore) -> None:
        await stored(store, [Append(new_event("ORD_1"), boundary="A") for _ in range(2)])
        assert await store.append(Append(new_event("ORD_2"), 0, "A", 0)) == Conflict(0, 2)

    async def test_a_refused_append_is_not_counted(self, store: StateStore) -> None:
        await stored(store, Append(new_event("ORD_1"), 0, "A", 0))
        await store.append(Append(new_event("ORD_1"), 0, "A", 1))
        await store.append(Append(new_event("ORD_1"), 1, "A", 0))
        story = await store.story("ORD_1", boundary="A")
        assert (story.version, story.boundary_version) == (1, 1)

    async def test_queued_together_each_sees_the_earlier_counts(self, store: StateStore) -> None:
        outcomes = await asyncio.gather(
            *[store.append(Append(new_event(f"ORD_{number}"), 0, "A", number)) for number in range(10)]
        )
        assert [outcome.boundary_version for outcome in outcomes if isinstance(outcome, Appended)] == list(range(1, 11))

    async def test_an_event_without_an_aggregate_can_have_a_boundary(self, store: StateStore) -> None:
        outcome = await store.append(Append(new_event(None, kind="service"), boundary="A"))
        assert isinstance(outcome, Appended)
        assert outcome.boundary_version == 1
        assert await store.append(Append(new_event(None), None, "A", 0)) == Conflict(0, 1)

    async def test_a_boundary_is_no_aggregate(self, store: StateStore) -> None:
        await stored(store, Append(new_event("ORD_1"), 0, "A", 0))
        story = await store.story("A", boundary="A")
        assert (story.version, story.boundary_version, list(story.events)) == (0, 1, [])
        assert (await store.info()).aggregates == 1
        outcome = await store.append(Append(new_event("A"), 0, "A", 1))
        assert isinstance(outcome, Appended)
        assert (outcome.record.version, outcome.boundary_version) == (1, 2)
