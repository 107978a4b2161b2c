"""Random batches against a model that handles one append after another: batching changes no outcome."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from appending_worker import event
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evento.errors import ErrorData
from evento.messages import EventRecord, new_id
from evento.state_store import (
    AlreadyStored,
    Append,
    Appended,
    Conflict,
    Deleted,
    EventFilter,
    Lease,
    LeaseIsLost,
    NewEvent,
    Refused,
    StateStore,
)
from evento.state_store.postgres import PostgresStateStore
from evento.state_store.sqlite import SqliteStateStore
from evento.testing.postgres import PostgresServer

ERROR = ErrorData("CommandRejected", "CommandRejected", "no")
IDS = st.sampled_from(["A", "B", "C"])
ABOUT = st.sampled_from([None, 0, 0, 0, 1, -1])
"""What an append expects: nothing, the current version, or one beside it."""


@dataclass
class Wish:
    """An append before it is known which versions are current."""

    aggregate_id: str | None
    command: int
    version: int | None
    boundary: str | None
    boundary_version: int | None
    deletes: bool
    holds_lease: bool | None


@dataclass
class Model:
    """What a store is, one event after another."""

    events: list[EventRecord] = field(default_factory=list)
    boundaries: dict[str, int] = field(default_factory=dict)
    deleted: dict[str, int] = field(default_factory=dict)
    purged: set[str] = field(default_factory=set)
    commands: dict[str, Any] = field(default_factory=dict)

    def version(self, aggregate_id: str | None) -> int:
        return sum(event.aggregate_id == aggregate_id for event in self.events) if aggregate_id is not None else 0

    def append_of(self, wish: Wish, lease: Lease) -> Append:
        new = event("-")
        fields = {name: getattr(new, name) for name in new.__struct_fields__}
        fields |= {"aggregate_id": wish.aggregate_id, "command_id": f"c{wish.command}"}
        known = wish.aggregate_id is not None
        return Append(
            NewEvent(**fields),
            max(0, self.version(wish.aggregate_id) + wish.version) if known and wish.version is not None else None,
            wish.boundary,
            max(0, self.boundaries.get(wish.boundary or "", 0) + wish.boundary_version)
            if wish.boundary_version is not None
            else None,
            wish.deletes and known,
            None if wish.holds_lease is None else lease if wish.holds_lease else Lease("L", lease.token - 1),
        )

    def decide(self, append: Append, lease: Lease) -> type:
        """Return which outcome an append has, and apply it."""
        new, aggregate_id = append.event, append.event.aggregate_id
        if new.command_id in self.commands:
            return Refused if self.commands[new.command_id] is ERROR else AlreadyStored
        if append.lease not in (None, lease):
            return LeaseIsLost
        if aggregate_id in self.deleted:
            return Deleted
        if append.expected_version not in (None, self.version(aggregate_id)):
            return Conflict
        counted = self.boundaries.get(append.boundary or "", 0)
        if append.boundary is not None and append.expected_boundary_version not in (None, counted):
            return Conflict
        if append.boundary is not None:
            self.boundaries[append.boundary] = counted + 1
        if append.deletes and aggregate_id is not None:
            self.deleted[aggregate_id] = new.timestamp
        version = self.version(aggregate_id) + 1 if aggregate_id is not None else None
        fields = {name: getattr(new, name) for name in new.__struct_fields__}
        record = EventRecord(position=len(self.events) + 1, version=version, **fields)
        self.events.append(record)
        self.commands[new.command_id] = record
        return Appended

    def left(self) -> list[EventRecord]:
        """Return the events that no purge has removed."""
        newest = {event.aggregate_id: event.position for event in self.events}
        return [
            one
            for one in self.events
            if one.aggregate_id not in self.purged or newest[one.aggregate_id] == one.position
        ]


wishes = st.builds(
    Wish,
    aggregate_id=st.none() | IDS | IDS,
    command=st.integers(0, 30),
    version=ABOUT,
    boundary=st.none() | IDS | st.just("LOCK"),
    boundary_version=ABOUT,
    deletes=st.sampled_from([False] * 7 + [True]),
    holds_lease=st.sampled_from([None, None, None, True, False]),
)
steps = st.lists(
    st.lists(wishes, min_size=1, max_size=8) | st.integers(0, 30) | st.just("purge"), min_size=1, max_size=12
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps)
def test_batches_have_the_outcomes_of_single_appends(steps: list[list[Wish] | int | str]) -> None:
    asyncio.run(run(steps, SqliteStateStore(None)))


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps)
def test_batches_on_postgresql_too(postgres: PostgresServer, steps: list[list[Wish] | int | str]) -> None:
    schema = f"model_{new_id()}"
    asyncio.run(run(steps, PostgresStateStore(postgres.url, schema=schema, connections=1)))


async def run(steps: list[list[Wish] | int | str], opened: StateStore) -> None:
    model = Model()
    async with opened as store:
        lease = await store.lock("L", owner="a", ttl=3600)
        assert lease is not None
        for step in steps:
            if isinstance(step, list):
                await append_all(store, model, [model.append_of(wish, lease) for wish in step], lease)
            elif isinstance(step, int):
                known = await store.reject(f"c{step}", ERROR)
                assert (known is None) == (f"c{step}" not in model.commands)
                model.commands.setdefault(f"c{step}", ERROR)
            else:
                await store.purge(deleted_before=2**62)
                model.purged |= model.deleted.keys()
        await check(store, model)


async def append_all(store: StateStore, model: Model, appends: list[Append], lease: Lease) -> None:
    outcomes = await asyncio.gather(*map(store.append, appends))
    for append, outcome in zip(appends, outcomes, strict=True):
        assert type(outcome) is model.decide(append, lease)
        if isinstance(outcome, Conflict):
            versions = model.version(append.event.aggregate_id), model.boundaries.get(append.boundary or "", 0)
            assert outcome == Conflict(*versions)
        if isinstance(outcome, Appended):
            assert outcome.record == model.commands[append.event.command_id]
        if isinstance(outcome, AlreadyStored) and outcome.record is not None:
            assert outcome.record == model.commands[append.event.command_id]


async def check(store: StateStore, model: Model) -> None:
    report = await store.verify()
    assert report.problems == ()
    assert await store.head() == len(model.events)
    assert list((await store.fetch(0)).events) == model.left()
    for aggregate_id in ("A", "B", "C", "LOCK"):
        story = await store.story(aggregate_id, boundary=aggregate_id)
        assert story.version == model.version(aggregate_id)
        assert story.boundary_version == model.boundaries.get(aggregate_id, 0)
        assert story.deleted_at == model.deleted.get(aggregate_id)
        found = await store.search(EventFilter(aggregate_id=aggregate_id), limit=1000)
        assert [one.position for one in found.events] == [
            one.position for one in model.left() if one.aggregate_id == aggregate_id
        ]
    for command_id, outcome in model.commands.items():
        looked_up = await store.lookup(command_id)
        assert isinstance(looked_up, Refused if outcome is ERROR else AlreadyStored)
