# ruff: noqa: D102, S101 - tests say what they test in their names, and assert
"""Reading the one order: pages, filters, the head, and waiting for it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from evento.messages import EventRecord
from evento.state_store import EVENT_OVERHEAD, Append, StateStore
from evento.testing.conformance.state_store.support import StoreTests, append, filled, new_event, stored

__all__ = ["Reading"]

CONTEXTS = ["default", "eu-north", "eu-west", "us-west", "eu", "EU-north", "eu[1]", "eu?", "e"]


async def read(
    store: StateStore,
    *,
    after: int = 0,
    contexts: Sequence[str] = ("*",),
    names: Sequence[str] | None = None,
    limit: int = 1000,
    max_bytes: int = 4 * 1024 * 1024,
) -> list[EventRecord]:
    """Read page after page up to the head, and check each page's promises."""
    events: list[EventRecord] = []
    while True:
        page = await store.fetch(after, contexts=contexts, names=names, limit=limit, max_bytes=max_bytes)
        assert len(page.events) <= limit
        assert all(after < event.position <= page.scanned_to for event in page.events)
        events += page.events
        if page.scanned_to >= page.head:
            return events
        assert page.scanned_to > after, "a reader must advance"
        after = page.scanned_to


class Reading(StoreTests):
    """Fetching and waiting."""

    async def test_an_empty_store_has_an_empty_page(self, store: StateStore) -> None:
        page = await store.fetch(0)
        assert (list(page.events), page.scanned_to, page.head) == ([], 0, 0)
        assert await store.head() == 0

    async def test_all_events_in_order(self, store: StateStore) -> None:
        records = await stored(store, [append(f"ORD_{number % 3}") for number in range(10)])
        page = await store.fetch(0)
        assert (list(page.events), page.scanned_to, page.head) == (records, 10, 10)
        page = await store.fetch(4)
        assert (list(page.events), page.scanned_to, page.head) == (records[4:], 10, 10)

    async def test_at_the_head_there_is_nothing(self, store: StateStore) -> None:
        await filled(store, 3)
        for after in (3, 99):
            page = await store.fetch(after)
            assert (list(page.events), page.head) == ([], 3)
            assert page.scanned_to >= page.head

    async def test_a_page_is_cut_by_count(self, store: StateStore) -> None:
        records = await filled(store, 10)
        page = await store.fetch(2, limit=4)
        assert (list(page.events), page.scanned_to, page.head) == (records[2:6], 6, 10)
        page = await store.fetch(6, limit=4)
        assert (list(page.events), page.scanned_to, page.head) == (records[6:], 10, 10)

    async def test_a_page_is_cut_by_bytes(self, store: StateStore) -> None:
        payload = b'{"text":"%s"}' % (b"x" * 1000)
        records = await stored(store, [Append(new_event(payload=payload)) for _ in range(10)])
        room = 3 * (len(payload) + len(records[0].metadata) + EVENT_OVERHEAD)
        for max_bytes, expected in ((room, 3), (room - 1, 2)):
            page = await store.fetch(0, max_bytes=max_bytes)
            assert (list(page.events), page.scanned_to, page.head) == (records[:expected], expected, 10)
            assert await read(store, max_bytes=max_bytes) == records

    async def test_one_event_is_returned_however_large_it_is(self, store: StateStore) -> None:
        payload = b'{"text":"%s"}' % (b"x" * 100_000)
        [record, _] = await stored(store, [Append(new_event(payload=payload)), append()])
        for max_bytes in (1, 0, -1):
            page = await store.fetch(0, max_bytes=max_bytes)
            assert (list(page.events), page.scanned_to, page.head) == ([record], 1, 2)
            page = await store.fetch(0, contexts=["def*"], names=["OrderPlacedEvent"], max_bytes=max_bytes)
            assert (list(page.events), page.scanned_to, page.head) == ([record], 1, 2)

    @pytest.mark.parametrize(
        ("patterns", "expected"),
        [
            (["*"], CONTEXTS),
            (["default", "*"], CONTEXTS),
            (["default"], ["default"]),
            (["default", "us-west"], ["default", "us-west"]),
            (["eu-*"], ["eu-north", "eu-west"]),
            (["*-west"], ["eu-west", "us-west"]),
            (["e*-*t"], ["eu-west"]),
            (["eu*"], ["eu-north", "eu-west", "eu", "eu[1]", "eu?"]),
            (["eu[1]"], ["eu[1]"]),
            (["eu?"], ["eu?"]),
            (["*?"], ["eu?"]),
            (["EU*"], ["EU-north"]),
            (["nowhere"], []),
            (["eu_*", "eu%"], []),
            ([], []),
        ],
        ids=" ".join,
    )
    async def test_contexts_and_wildcards(self, store: StateStore, patterns: list[str], expected: list[str]) -> None:
        records = await stored(store, [Append(new_event(context=context)) for context in CONTEXTS * 2])
        wanted = [record for record in records if record.context in expected]
        assert await read(store, contexts=patterns) == wanted
        assert await read(store, contexts=patterns, names=["OrderPlacedEvent"], limit=2) == wanted

    async def test_names(self, store: StateStore) -> None:
        records = await stored(store, [Append(new_event(name=f"Event{number % 5}")) for number in range(50)])
        for names in (["Event1"], ["Event3", "Event1"], ["Event1", "Event1", "Other"], ["Other"], []):
            wanted = [record for record in records if record.name in names]
            assert await read(store, names=names) == wanted
            assert await read(store, names=names, limit=3) == wanted
            assert await read(store, names=names, limit=3, after=20) == [one for one in wanted if one.position > 20]

    async def test_hundreds_of_names(self, store: StateStore) -> None:
        records = await stored(store, [Append(new_event(name=f"Event{number}")) for number in range(50)])
        assert await read(store, names=[f"Event{number}" for number in range(40, 400)]) == records[40:]

    async def test_names_and_contexts_must_both_fit(self, store: StateStore) -> None:
        records = await stored(
            store, [Append(new_event(name=f"Event{n % 3}", context=CONTEXTS[n % 4])) for n in range(48)]
        )
        wanted = [one for one in records if one.name in ("Event0", "Event2") and one.context.startswith("eu-")]
        assert await read(store, names=["Event0", "Event2"], contexts=["eu-*"]) == wanted
        assert await read(store, names=["Event0", "Event2"], contexts=["eu-north", "eu-west"], limit=2) == wanted
        assert await read(store, names=["Event0", "Event2"], contexts=["eu-*"], max_bytes=1) == wanted

    async def test_a_selective_reader_advances_where_nothing_matches(self, store: StateStore) -> None:
        await filled(store, 500)
        [rare] = await stored(store, Append(new_event(name="RareEvent", context="rare")))
        await filled(store, 500)
        assert await read(store, names=["RareEvent"], limit=5) == [rare]
        assert await read(store, contexts=["rare"], limit=5) == [rare]
        assert await read(store, names=["OrderPlacedEvent", "RareEvent"], contexts=["rare"], limit=5) == [rare]
        assert await read(store, names=["NoEvent"], contexts=["nowhere"], limit=5) == []

    async def test_who_has_seen_a_position_has_seen_all_before(self, store: StateStore) -> None:
        """A reader beside many writers never has to go back."""
        futures = [store.append(append(f"ORD_{number % 9}")) for number in range(1000)]
        after, seen = 0, []
        while after < 1000:
            page = await store.fetch(after, limit=100)
            seen += [event.position for event in page.events]
            after = page.scanned_to
        assert seen == list(range(1, 1001))
        await asyncio.gather(*futures)

    async def test_waiting_ends_with_the_next_event(self, store: StateStore) -> None:
        waiting = [asyncio.ensure_future(store.wait(0, timeout=30)) for _ in range(5)]
        await asyncio.sleep(0)
        await stored(store, append())
        assert [await head >= 1 for head in waiting] == [True] * 5

    async def test_what_is_there_is_not_waited_for(self, store: StateStore) -> None:
        await filled(store, 3)
        assert await store.wait(2, timeout=30) == 3
        assert await store.wait(0, timeout=0) == 3

    async def test_waiting_ends_in_time(self, store: StateStore) -> None:
        await filled(store, 3)
        assert await store.wait(3, timeout=0.01) == 3
        assert await store.wait(99, timeout=0.01) == 3
        assert await store.wait(3, timeout=0) == 3

    async def test_waiting_goes_on_until_the_position_asked_for(self, store: StateStore) -> None:
        waiting = asyncio.ensure_future(store.wait(2, timeout=30))
        for _ in range(2):
            await stored(store, append())
            assert not waiting.done()
        await stored(store, append())
        assert await waiting == 3

    async def test_waiting_can_be_cancelled(self, store: StateStore) -> None:
        waiting = asyncio.ensure_future(store.wait(0, timeout=30))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await stored(store, append())
