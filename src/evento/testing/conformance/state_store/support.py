# ruff: noqa: S101 - helpers of tests assert
"""The fixtures of the suite, and what its tests are written with."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from itertools import count
from typing import ClassVar, TypeAlias

import pytest
from msgspec.structs import replace

from evento.messages import EventRecord, new_id, now_micros
from evento.state_store import (
    MAX_READ_BYTES,
    Append,
    Appended,
    EventFilter,
    NewEvent,
    StateStore,
    Story,
    story_parts,
)

__all__ = ["Factory", "StoreTests", "append", "filled", "new_event", "stored"]

Factory: TypeAlias = Callable[[], StateStore]
_numbers = count(1)


class StoreTests:
    """The base of the suite's parts."""

    durable: ClassVar[bool] = True
    """Whether a store that is opened again has what it had."""

    @pytest.fixture
    def factory(self) -> Factory:
        """Give a function that returns a store, not yet open, always on the same data: to be overridden."""
        raise NotImplementedError

    @pytest.fixture
    async def store(self, factory: Factory) -> AsyncIterator[StateStore]:
        """Give an open, empty store."""
        async with factory() as store:
            yield store


def new_event(
    aggregate_id: str | None = "ORD_1",
    *,
    name: str = "OrderPlacedEvent",
    context: str = "default",
    command_id: str | None = None,
    payload: bytes | None = None,
    kind: str = "domain",
    timestamp: int | None = None,
) -> NewEvent:
    """Return an event that is like no other."""
    number = next(_numbers)
    command_id = command_id or f"command-{number}"
    return NewEvent(
        context=context,
        aggregate_id=aggregate_id,
        name=name,
        schema_version=1,
        kind=kind,
        payload=payload if payload is not None else b'{"number":%d}' % number,
        metadata=b'{"user":"ann"}',
        event_id=new_id(),
        command_id=command_id,
        correlation_id=f"correlation-{number}",
        causation_id=command_id,
        timestamp=now_micros() if timestamp is None else timestamp,
    )


def append(aggregate_id: str | None = "ORD_1", expected: int | None = None, *, command_id: str | None = None) -> Append:
    """Return an append that expects a version of its aggregate."""
    return Append(new_event(aggregate_id, command_id=command_id), expected)


async def stored(store: StateStore, appends: Append | Iterable[Append]) -> list[EventRecord]:
    """Append one after another and return the events, all of which must be stored."""
    records = []
    for one in [appends] if isinstance(appends, Append) else appends:
        outcome = await store.append(one)
        assert isinstance(outcome, Appended)
        records.append(outcome.record)
    return records


async def whole(
    store: StateStore,
    aggregate_id: str = "ORD_1",
    *,
    boundary: str | None = None,
    fingerprint: str | None = None,
    max_bytes: int = MAX_READ_BYTES,
) -> Story:
    """Read a story to its end and return it as one."""
    parts = story_parts(store, aggregate_id, boundary=boundary, fingerprint=fingerprint, max_bytes=max_bytes)
    stories = [part async for part in parts]
    events = [event for story in stories for event in story.events]
    return replace(stories[-1], snapshot=stories[0].snapshot, events=events)


async def all_found(
    store: StateStore, criteria: EventFilter, *, descending: bool = False, max_bytes: int = MAX_READ_BYTES
) -> list[EventRecord]:
    """Search to the end, however often the search is cut."""
    events: list[EventRecord] = []
    after, before, more = 0, None, True
    while more:
        found = await store.search(
            criteria, after=after, before=before, limit=10_000, descending=descending, max_bytes=max_bytes
        )
        events += found.events
        more = found.more
        if more and descending:
            before = events[-1].position
        elif more:
            after = events[-1].position
    return events


async def filled(store: StateStore, count: int, aggregate_id: str = "ORD_1") -> list[EventRecord]:
    """Append so many events to one aggregate, queued together."""
    outcomes = [await future for future in [store.append(append(aggregate_id)) for _ in range(count)]]
    assert all(isinstance(outcome, Appended) for outcome in outcomes)
    return [outcome.record for outcome in outcomes if isinstance(outcome, Appended)]
