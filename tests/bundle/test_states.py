"""Loading the state of an aggregate that has a long history."""

from __future__ import annotations

import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

import pytest

from evento import (
    Aggregate,
    AggregateId,
    AggregateState,
    DomainCommand,
    DomainEvent,
    EventoBundle,
    aggregate_command_handler,
    event_sourcing_handler,
)
from evento.messages import new_id, now_micros, seal
from evento.state_store import Append, NewEvent, StateStore

MakeBundle = Callable[..., EventoBundle]

ENTRIES = 40
CHARACTERS = 1_000_000


class DiaryWrittenEvent(DomainEvent):
    diary_id: str
    text: str


class DiaryCountedEvent(DomainEvent):
    diary_id: str
    entries: int
    characters: int


class DiaryCountCommand(DomainCommand[DiaryCountedEvent]):
    diary_id: AggregateId
    lock: str = "D"

    @property
    def lock_id(self) -> str:
        return self.lock


class DiaryState(AggregateState):
    entries: int = 0
    characters: int = 0


class Diary(Aggregate[DiaryState], snapshot_frequency=ENTRIES):
    @aggregate_command_handler
    def count(self, command: DiaryCountCommand, state: DiaryState) -> DiaryCountedEvent:
        return DiaryCountedEvent(command.diary_id, state.entries, state.characters)

    @event_sourcing_handler
    def on_written(self, event: DiaryWrittenEvent, state: DiaryState | None) -> DiaryState:
        state = state or DiaryState()
        state.entries += 1
        state.characters += len(event.text)
        return state


@pytest.fixture
async def bundle(make_bundle: MakeBundle) -> AsyncIterator[EventoBundle]:
    """A bundle with a diary whose state is not in the cache."""
    async with make_bundle(components=[Diary]) as running:
        for _ in range(ENTRIES):
            await _store_of(running).append(_written("D", "x" * CHARACTERS))
        yield running


@pytest.mark.parametrize("lock", ["D", "another"])
async def test_a_state_is_folded_of_all_parts_of_its_story_and_few_of_them_are_in_memory(
    bundle: EventoBundle, lock: str
) -> None:
    with memory_is_below(ENTRIES * CHARACTERS // 2):
        message = await bundle.commands.send_message(DiaryCountCommand("D", lock))
    assert message.version == ENTRIES + 1
    assert message.payload == DiaryCountedEvent("D", ENTRIES, ENTRIES * CHARACTERS)


async def test_a_snapshot_is_due_by_the_events_of_all_parts(bundle: EventoBundle) -> None:
    await bundle.commands.send(DiaryCountCommand("D"))
    assert (await _store_of(bundle).info()).snapshots == 1


@contextmanager
def memory_is_below(limit: int) -> Iterator[None]:
    """Check how much memory a block takes at most."""
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < limit


def _store_of(bundle: EventoBundle) -> StateStore:
    assert bundle._running is not None
    return bundle._running.store


def _written(diary_id: str, text: str) -> Append:
    command_id = new_id()
    event = NewEvent(
        context="default",
        aggregate_id=diary_id,
        name="DiaryWrittenEvent",
        schema_version=1,
        kind="domain",
        payload=seal(DiaryWrittenEvent(diary_id, text))[0],
        metadata=b"{}",
        event_id=new_id(),
        command_id=command_id,
        correlation_id=command_id,
        causation_id=None,
        timestamp=now_micros(),
    )
    return Append(event, boundary=diary_id)
