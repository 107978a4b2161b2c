# ruff: noqa: D102, S101 - tests say what they test in their names, and assert
"""Looking for events by what they are."""

from __future__ import annotations

from typing import cast

import pytest

from evento.state_store import Append, EventFilter, StateStore
from evento.testing.conformance.state_store.support import StoreTests, all_found, append, filled, new_event, stored

__all__ = ["Searching"]

EVENTS = [
    new_event(
        f"ORD_{number % 4}",
        name=f"Event{number % 3}",
        context=("eu", "us")[number % 2],
        # Times do not rise with positions: clocks of several senders.
        timestamp=1000 + 10 * (number ^ 1),
    )
    for number in range(60)
]
FILTERS = [
    EventFilter(),
    EventFilter(name="Event1"),
    EventFilter(name="Nothing"),
    EventFilter(aggregate_id="ORD_3"),
    EventFilter(aggregate_id="ORD_99"),
    EventFilter(context="eu"),
    EventFilter(context="e*"),
    EventFilter(since=1200),
    EventFilter(until=1200),
    EventFilter(since=1100, until=1300),
    EventFilter(since=1300, until=1300),
    EventFilter(name="Event2", context="us"),
    EventFilter(name="Event2", aggregate_id="ORD_1", context="us", since=1100, until=1500),
]


def matches(criteria: EventFilter, number: int) -> bool:
    """Say whether an event of the list fits."""
    event = EVENTS[number]
    return (
        criteria.name in (None, event.name)
        and criteria.aggregate_id in (None, event.aggregate_id)
        and criteria.context in (None, event.context)
        and (criteria.since is None or criteria.since <= event.timestamp)
        and (criteria.until is None or event.timestamp < criteria.until)
    )


class Searching(StoreTests):
    """Filters, directions, pages."""

    @pytest.mark.parametrize("criteria", FILTERS, ids=str)
    async def test_all_conditions_hold(self, store: StateStore, criteria: EventFilter) -> None:
        await stored(store, [Append(event) for event in EVENTS])
        wanted = [number + 1 for number in range(60) if matches(criteria, number)]

        async def positions(**options: int | bool | None) -> list[int]:
            found = await store.search(criteria, **options)  # type: ignore[arg-type]
            assert found.more or options.get("limit") is None or len(found.events) < cast(int, options["limit"])
            return [event.position for event in found.events]

        assert await positions() == wanted
        assert await positions(descending=True) == wanted[::-1]
        assert await positions(limit=3) == wanted[:3]
        assert await positions(limit=3, descending=True) == wanted[::-1][:3]
        between = [position for position in wanted if 10 < position < 50]
        assert await positions(after=10, before=50) == between
        assert await positions(after=10, before=50, limit=2) == between[:2]
        assert await positions(after=10, before=50, limit=2, descending=True) == between[::-1][:2]

    @pytest.mark.parametrize("criteria", FILTERS, ids=str)
    async def test_a_find_is_cut_by_bytes(self, store: StateStore, criteria: EventFilter) -> None:
        await stored(store, [Append(event) for event in EVENTS])
        wanted = [number + 1 for number in range(60) if matches(criteria, number)]
        for max_bytes in (0, 2000):
            found = await store.search(criteria, max_bytes=max_bytes)
            assert len(found.events) == min(len(wanted), 1 if max_bytes == 0 else 3)
            assert found.more or len(found.events) == len(wanted)
            for descending in (False, True):
                events = await all_found(store, criteria, max_bytes=max_bytes, descending=descending)
                assert [event.position for event in events] == (wanted[::-1] if descending else wanted)

    async def test_a_find_says_whether_it_was_cut(self, store: StateStore) -> None:
        records = await filled(store, 5)
        for limit, expected in ((5, 5), (4, 4), (1, 1), (0, 0), (-1, 0)):
            found = await store.search(EventFilter(), limit=limit)
            assert (list(found.events), found.more) == (records[:expected], expected > 0)
        for limit in (6, 100):
            found = await store.search(EventFilter(), limit=limit)
            assert (list(found.events), found.more) == (records, False)

    async def test_an_event_by_its_position(self, store: StateStore) -> None:
        records = await filled(store, 3)
        assert [await store.event(position) for position in (0, 1, 2, 3, 4)] == [None, *records, None]

    async def test_found_events_say_when_their_aggregate_was_deleted(self, store: StateStore) -> None:
        await stored(store, [append("ORD_1"), append("ORD_2"), append(None)])
        await stored(store, Append(new_event("ORD_1", timestamp=1000), deletes=True))
        found = await store.search(EventFilter())
        assert [event.deleted_at for event in found.events] == [1000, None, None, 1000]
