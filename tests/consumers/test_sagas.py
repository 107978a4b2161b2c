"""Sagas: which state an event finds, what becomes of it, and what waits behind a dead event."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import msgspec
import pytest
from streams import TICK, FaultyConsumerStore, add, add_raw, group_of
from waiting import eventually

from evento import (
    DefinitionError,
    DomainEvent,
    EventMessage,
    Metadata,
    Saga,
    SagaState,
    ServiceEvent,
    StoreUnavailable,
    TransientError,
    saga_event_handler,
)
from evento.consumers import ConsumerGroup, ConsumerId, SqlConsumerStateStore, StoredConsumer
from evento.consumers.sagas import association_of
from evento.state_store import StateStore

TRIPS = ConsumerId("test_bundle", "TripSaga", 1, "*")


class TripBookedEvent(DomainEvent, domain="Trip"):
    thing_id: str
    hotel: int | None = None


class TripRebookedEvent(DomainEvent, domain="Trip"):
    thing_id: str
    hotel: int


class HotelConfirmedEvent(ServiceEvent, domain="Hotel"):
    hotel: int


class TripEndedEvent(DomainEvent, domain="Trip"):
    thing_id: str


class TripState(SagaState):
    steps: list[str] = []


Hook = Callable[[EventMessage[Any], TripState], Awaitable[None]]


async def nothing(message: EventMessage[Any], state: TripState) -> None:
    """Do nothing."""


class TripSaga(Saga[TripState], version=1):
    """Writes each step into its state, then calls the test's hook, which may spoil everything."""

    def __init__(self, hook: Hook = nothing) -> None:
        self._hook = hook

    @saga_event_handler(init=True, association_property="thing_id", retry=1, retry_delay=TICK)
    async def on_booked(
        self, event: TripBookedEvent, message: EventMessage[TripBookedEvent], state: TripState | None
    ) -> TripState:
        state = state or TripState()
        state.set_association("thing_id", event.thing_id)
        if event.hotel is not None:
            state.set_association("hotel", event.hotel)
        await self._step(message, state)
        return state

    @saga_event_handler(association_property="thing_id", retry=1, retry_delay=TICK)
    async def on_rebooked(
        self, event: TripRebookedEvent, state: TripState, message: EventMessage[TripRebookedEvent]
    ) -> None:
        state.set_association("hotel", event.hotel)
        await self._step(message, state)

    @saga_event_handler(association_property="hotel", retry=1, retry_delay=TICK)
    async def on_confirmed(
        self, event: HotelConfirmedEvent, state: TripState, message: EventMessage[HotelConfirmedEvent]
    ) -> None:
        await self._step(message, state)

    @saga_event_handler(association_property="thing_id", retry=1, retry_delay=TICK)
    async def on_ended(self, event: TripEndedEvent, state: TripState, message: EventMessage[TripEndedEvent]) -> None:
        await self._step(message, state)
        state.end()

    async def _step(self, message: EventMessage[Any], state: TripState) -> None:
        state.steps.append(f"{message.name.removesuffix('Event')}@{message.position}")
        await self._hook(message, state)


@asynccontextmanager
async def running(events: StateStore, state: Any, *sagas: Saga[Any], **options: Any) -> AsyncIterator[ConsumerGroup]:
    """Run sagas; those that are new begin with the next event."""
    async with group_of(events, state, *sagas, **options) as group:
        await group.ready()
        yield group


async def trips(state: SqlConsumerStateStore, consumer: ConsumerId = TRIPS) -> dict[str, list[str]]:
    """Return the stored steps of each saga, by its thing_id."""
    found = [msgspec.json.decode(saga.state, type=TripState) for saga in await state.sagas(consumer)]
    return {str(saga.get_association("thing_id")): saga.steps for saga in found}


async def stored(state: SqlConsumerStateStore) -> StoredConsumer:
    found = await state.load(TRIPS)
    assert found is not None
    return found


# Finding


async def test_an_event_finds_its_saga_by_any_of_its_associations(
    events: StateStore, state: SqlConsumerStateStore
) -> None:
    async with running(events, state, TripSaga()) as group:
        await add(
            events,
            TripBookedEvent("A", 7),
            TripBookedEvent("B", 8),
            HotelConfirmedEvent(8),
            HotelConfirmedEvent(9),
            TripRebookedEvent("A", 9),
            HotelConfirmedEvent(7),
            HotelConfirmedEvent(9),
            TripRebookedEvent("C", 1),
        )
        await group.caught_up(10)
    assert await trips(state) == {
        "A": ["TripBooked@1", "TripRebooked@5", "HotelConfirmed@7"],
        "B": ["TripBooked@2", "HotelConfirmed@3"],
    }
    assert (await stored(state)).checkpoint.position == 8


async def test_a_second_init_event_gets_the_existing_saga(events: StateStore, state: SqlConsumerStateStore) -> None:
    async with running(events, state, TripSaga()) as group:
        await add(events, TripBookedEvent("A"))
        await group.caught_up(10)
        await add(events, TripBookedEvent("A"), TripBookedEvent("A"))
        await group.caught_up(10)
    assert await trips(state) == {"A": ["TripBooked@1", "TripBooked@2", "TripBooked@3"]}


async def test_a_saga_that_has_ended_is_found_no_more(events: StateStore, state: SqlConsumerStateStore) -> None:
    async with running(events, state, TripSaga()) as group:
        await add(events, TripBookedEvent("A", 7))
        await group.caught_up(10)
        await add(events, TripEndedEvent("A"), HotelConfirmedEvent(7), TripRebookedEvent("A", 8))
        await group.caught_up(10)
        assert await state.sagas(TRIPS) == []
        assert await state.find_saga(TRIPS, "hotel=7") is None
        await add(events, TripBookedEvent("A", 7), TripEndedEvent("A"), TripBookedEvent("A", 7))
        await group.caught_up(10)
    assert await trips(state) == {"A": ["TripBooked@7"]}


async def test_a_new_saga_begins_at_the_head_and_goes_on_where_it_was(
    events: StateStore, state: SqlConsumerStateStore
) -> None:
    await add(events, TripBookedEvent("A"))
    async with running(events, state, TripSaga()) as group:
        await group.caught_up(10)
    await add(events, TripBookedEvent("B"))  # while it does not run
    async with running(events, state, TripSaga()) as group:
        await group.caught_up(10)
    assert await trips(state) == {"B": ["TripBooked@2"]}


async def test_a_new_version_begins_anew_at_the_head(events: StateStore, state: SqlConsumerStateStore) -> None:
    async with running(events, state, TripSaga()) as group:
        await add(events, TripBookedEvent("A"))
        await group.caught_up(10)

    class NextTripSaga(TripSaga, version=2):
        pass

    async with running(events, state, NextTripSaga()) as group:
        await add(events, TripRebookedEvent("A", 1), TripBookedEvent("B"))
        await group.caught_up(10)
    assert await trips(state, ConsumerId("test_bundle", "NextTripSaga", 2, "*")) == {"B": ["TripBooked@3"]}
    assert await trips(state) == {"A": ["TripBooked@1"]}


class Colour(Enum):
    RED = "red"


class EverythingHappenedEvent(ServiceEvent):
    text: str | None
    number: int = 7
    flag: bool = True
    uuid: UUID = UUID("6b0d4d83-6d0c-5c6a-8f2e-0d5f6f0c4c6e")
    price: Decimal = Decimal("1.50")
    colour: Colour = Colour.RED


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("7", 'p="7"'),
        (7, "p=7"),
        (True, "p=true"),
        (Decimal("1.50"), 'p="1.50"'),
        (Colour.RED, 'p="red"'),
        (UUID(int=1), 'p="00000000-0000-0000-0000-000000000001"'),
        ("größe", 'p="größe"'),
        (None, None),
        (msgspec.UNSET, None),
    ],
)
def test_values_are_compared_as_json(value: object, text: str | None) -> None:
    assert association_of("p", value) == text


@pytest.mark.parametrize("name", ["text", "number", "flag", "uuid", "price", "colour"])
async def test_any_scalar_finds_a_saga(events: StateStore, state: SqlConsumerStateStore, name: str) -> None:
    class EverySaga(Saga[TripState], version=1):
        @saga_event_handler(init=True, association_property=name)
        def on_everything(self, event: EverythingHappenedEvent, state: TripState | None) -> TripState:
            state = state or TripState()
            state.set_association(name, getattr(event, name))
            state.steps.append("seen")
            return state

    async with running(events, state, EverySaga()) as group:
        await add(events, EverythingHappenedEvent("7"), EverythingHappenedEvent("7"))
        await group.caught_up(10)
    (saga,) = await state.sagas(ConsumerId("test_bundle", "EverySaga", 1, "*"))
    assert msgspec.json.decode(saga.state)["steps"] == ["seen", "seen"]


async def test_an_event_without_a_value_is_ignored(events: StateStore, state: SqlConsumerStateStore) -> None:
    class TextSaga(Saga[TripState], version=1):
        @saga_event_handler(init=True, association_property="text")
        def on_everything(self, event: EverythingHappenedEvent) -> TripState:
            raise AssertionError

    async with running(events, state, TextSaga()) as group:
        await add(events, EverythingHappenedEvent(None))
        await group.caught_up(10)
        assert group.statuses()[0].dead == 0


def test_an_association_property_that_the_event_lacks_is_refused_with_the_class() -> None:
    with pytest.raises(DefinitionError, match="'order_id' is no field of TripBookedEvent"):

        class WrongSaga(Saga[TripState], version=1):
            @saga_event_handler(init=True, association_property="order_id")
            def on_booked(self, event: TripBookedEvent) -> TripState:
                return TripState()


async def test_sagas_of_two_contexts_know_nothing_of_each_other(
    events: StateStore, state: SqlConsumerStateStore
) -> None:
    async with running(events, state, TripSaga(), contexts=["eu", "us"]) as group:
        await add(
            events,
            TripBookedEvent("A", context="eu"),
            TripRebookedEvent("A", 1, context="us"),
            TripBookedEvent("A", context="us"),
        )
        await group.caught_up(10)
    assert await trips(state, ConsumerId("test_bundle", "TripSaga", 1, "eu")) == {"A": ["TripBooked@1"]}
    assert await trips(state, ConsumerId("test_bundle", "TripSaga", 1, "us")) == {"A": ["TripBooked@3"]}


async def test_what_a_handler_may_ask_for(events: StateStore, state: SqlConsumerStateStore) -> None:
    seen: list[object] = []

    class AskingSaga(Saga[TripState], version=1):
        @saga_event_handler(init=True, association_property="thing_id")
        async def on_booked(
            self,
            event: TripBookedEvent,
            at: datetime,
            metadata: Metadata,
            state: TripState | None,
            message: EventMessage[TripBookedEvent],
        ) -> TripState:
            seen.extend([at == message.timestamp, metadata["user"], state, message.position])
            made = TripState()
            made.set_association("thing_id", event.thing_id)
            return made

    async with running(events, state, AskingSaga()) as group:
        await add(events, TripBookedEvent("A"), metadata=b'{"user":"ann"}')
        await group.caught_up(10)
    assert seen == [True, "ann", None, 1]


# What becomes of the state


async def test_a_returned_state_takes_the_place_of_the_old_one(
    events: StateStore, state: SqlConsumerStateStore
) -> None:
    class ReplacingSaga(TripSaga, version=1):
        @saga_event_handler(association_property="thing_id")
        def on_rebooked(self, event: TripRebookedEvent, state: TripState) -> TripState:  # type: ignore[override]
            return TripState(associations={"hotel": event.hotel}, steps=["anew"])

    consumer = ConsumerId("test_bundle", "ReplacingSaga", 1, "*")
    async with running(events, state, ReplacingSaga()) as group:
        await add(events, TripBookedEvent("A", 1), TripRebookedEvent("A", 2), TripRebookedEvent("A", 3))
        await group.caught_up(10)
    (saga,) = await state.sagas(consumer)
    assert msgspec.json.decode(saga.state, type=TripState) == TripState(associations={"hotel": 2}, steps=["anew"])
    assert await state.find_saga(consumer, 'thing_id="A"') is None
    assert await state.find_saga(consumer, "hotel=1") is None


async def test_a_failed_attempt_leaves_nothing_of_what_it_changed(
    events: StateStore, state: SqlConsumerStateStore
) -> None:
    failures = [ValueError(), TransientError(), TransientError()]

    async def fail(message: EventMessage[Any], state: TripState) -> None:
        if message.position == 2 and failures:
            state.set_association("hotel", 99)
            raise failures.pop()

    async with running(events, state, TripSaga(fail)) as group:
        await add(events, TripBookedEvent("A", 7), HotelConfirmedEvent(7), HotelConfirmedEvent(99))
        await group.caught_up(10)
    assert await trips(state) == {"A": ["TripBooked@1", "HotelConfirmed@2"]}
    assert await state.find_saga(TRIPS, "hotel=7") is not None


async def dead_error(events: StateStore, state: SqlConsumerStateStore, hook: Hook, *given: Any) -> str:
    """Return the error with which the last of the given events has died."""
    async with running(events, state, TripSaga(hook)) as group:
        last = await add(events, *given)
        await group.caught_up(10)
    (dead,) = [event for event in await state.dead_events(TRIPS) if not event.waiting]
    assert dead.position == last
    return f"{dead.error_type}: {dead.error_message}"


async def test_an_association_of_another_saga_is_refused(events: StateStore, state: SqlConsumerStateStore) -> None:
    error = await dead_error(
        events, state, nothing, TripBookedEvent("A", 7), TripBookedEvent("B", 8), TripRebookedEvent("B", 7)
    )
    assert error.startswith("SagaError: TripSaga.on_rebooked has set the association hotel=7, which another saga has")
    assert await trips(state) == {"A": ["TripBooked@1"], "B": ["TripBooked@2"]}
    assert await state.find_saga(TRIPS, "hotel=8") is not None


async def test_a_state_that_json_cannot_hold_is_refused(events: StateStore, state: SqlConsumerStateStore) -> None:
    async def spoil(message: EventMessage[Any], state: TripState) -> None:
        state.steps.append(7)  # type: ignore[arg-type]

    error = await dead_error(events, state, spoil, TripBookedEvent("A"))
    assert error.startswith("PayloadError: state of TripSaga.on_booked: Expected `str`, got `int`")
    assert await state.sagas(TRIPS) == []


async def test_a_saga_without_an_association_is_refused(events: StateStore, state: SqlConsumerStateStore) -> None:
    async def forget(message: EventMessage[Any], state: TripState) -> None:
        state.unset_association("thing_id")

    error = await dead_error(events, state, forget, TripBookedEvent("A"))
    assert "no event will ever find it: call state.set_association(...), or state.end()" in error


class ForgetfulSaga(Saga[TripState], version=1):
    @saga_event_handler(init=True, association_property="thing_id", retry=0)
    def on_booked(self, event: TripBookedEvent) -> TripState | None:
        return None

    @saga_event_handler(init=True, association_property="thing_id", retry=0)
    def on_rebooked(self, event: TripRebookedEvent) -> Any:
        return "a state"


async def test_a_begun_saga_must_be_returned(events: StateStore, state: SqlConsumerStateStore) -> None:
    async with running(events, state, ForgetfulSaga()) as group:
        await add(events, TripBookedEvent("A"), TripRebookedEvent("B", 1))
        await group.caught_up(10)
    first, second = await state.dead_events(ConsumerId("test_bundle", "ForgetfulSaga", 1, "*"))
    assert "has begun a saga, but returned no state: return a TripState" in first.error_message
    assert "has returned 'a state': return a TripState" in second.error_message


# State and checkpoint


async def test_states_commit_with_the_checkpoint_in_batches(events: StateStore, state: SqlConsumerStateStore) -> None:
    faulty = FaultyConsumerStore(state)
    async with running(events, faulty, TripSaga(), checkpoint_interval=timedelta(hours=1)) as group:
        before = faulty.commits
        await add(events, TripBookedEvent("A", 7), *[HotelConfirmedEvent(7)] * 20, TripBookedEvent("B"))
        await eventually(lambda: (group.statuses()[0].head, group.statuses()[0].lag_events) == (22, 0))
        assert await state.sagas(TRIPS) == []
        await group.caught_up(10)
        assert faulty.commits == before + 1
    assert {name: len(steps) for name, steps in (await trips(state)).items()} == {"A": 21, "B": 1}


async def test_a_checkpoint_that_fails_takes_the_states_back(events: StateStore, state: SqlConsumerStateStore) -> None:
    faulty = FaultyConsumerStore(state)
    runs: list[int] = []

    async def count(message: EventMessage[Any], state: TripState) -> None:
        runs.append(message.position)

    async with running(events, faulty, TripSaga(count), checkpoint_interval=timedelta(0)) as group:
        await add(events, TripBookedEvent("A", 7))
        await group.caught_up(10)
        faulty.error = StoreUnavailable("no")
        await add(events, HotelConfirmedEvent(7))
        await eventually(lambda: runs.count(2) >= 2)
        faulty.error = None
        await add(events, HotelConfirmedEvent(7))
        await group.caught_up(10)
    assert await trips(state) == {"A": ["TripBooked@1", "HotelConfirmed@2", "HotelConfirmed@3"]}


async def test_a_handler_that_is_cancelled_at_the_stop_leaves_its_event_and_state(
    events: StateStore, state: SqlConsumerStateStore
) -> None:
    started = asyncio.Event()

    async def hang(message: EventMessage[Any], state: TripState) -> None:
        if message.position == 2:
            started.set()
            await asyncio.Event().wait()

    async with running(events, state, TripSaga(hang), stop_timeout=TICK) as group:
        await add(events, TripBookedEvent("A", 7))
        await group.caught_up(10)
        await add(events, HotelConfirmedEvent(7))
        await started.wait()
    assert await trips(state) == {"A": ["TripBooked@1"]}
    async with running(events, state, TripSaga(), take_over=True) as group:
        await group.caught_up(10)
    assert await trips(state) == {"A": ["TripBooked@1", "HotelConfirmed@2"]}


# Behind a dead event


def poison(*positions: int) -> Hook:
    async def fail(message: EventMessage[Any], state: TripState) -> None:
        if message.position in positions:
            raise ValueError("poison")

    return fail


async def test_later_events_of_the_saga_wait_by_whichever_association_they_come(
    events: StateStore, state: SqlConsumerStateStore
) -> None:
    async with running(events, state, TripSaga(poison(3))) as group:
        await add(
            events,
            TripBookedEvent("A", 7),
            TripBookedEvent("B", 8),
            TripRebookedEvent("A", 9),
            HotelConfirmedEvent(7),
            HotelConfirmedEvent(8),
            TripEndedEvent("A"),
        )
        await group.caught_up(10)
        (status,) = group.statuses()
        assert (status.dead, status.waiting) == (1, 2)
    expected = [(3, 'thing_id="A"', False), (4, 'thing_id="A"', True), (6, 'thing_id="A"', True)]
    assert [(e.position, e.key, e.waiting) for e in await state.dead_events(TRIPS)] == expected
    # ... also after a restart
    async with running(events, state, TripSaga()) as group:
        await add(events, HotelConfirmedEvent(7), HotelConfirmedEvent(8))
        await group.caught_up(10)
    expected.append((7, 'thing_id="A"', True))
    assert [(e.position, e.key, e.waiting) for e in await state.dead_events(TRIPS)] == expected
    assert await trips(state) == {
        "A": ["TripBooked@1"],
        "B": ["TripBooked@2", "HotelConfirmed@5", "HotelConfirmed@8"],
    }


async def test_events_of_a_saga_that_could_not_begin_wait(events: StateStore, state: SqlConsumerStateStore) -> None:
    async with running(events, state, TripSaga(poison(1))) as group:
        await add(events, TripBookedEvent("A"), TripRebookedEvent("A", 1), TripBookedEvent("B"))
        await group.caught_up(10)
    assert [(e.position, e.waiting) for e in await state.dead_events(TRIPS)] == [(1, False), (2, True)]
    assert await trips(state) == {"B": ["TripBooked@3"]}


async def test_an_undecodable_event_holds_its_saga_back(events: StateStore, state: SqlConsumerStateStore) -> None:
    async with running(events, state, TripSaga()) as group:
        await add(events, TripBookedEvent("A", 7))
        await add_raw(events, "TripRebookedEvent", "A", b'{"thing_id": "A", "hotel": "seven"}')
        await add_raw(events, "TripRebookedEvent", "A", b"no JSON")
        await add(events, HotelConfirmedEvent(7))
        await group.caught_up(10)
    assert [(e.position, e.key, e.waiting) for e in await state.dead_events(TRIPS)] == [
        (2, 'thing_id="A"', False),
        (3, None, False),
        (4, 'thing_id="A"', True),
    ]


async def test_a_stored_state_that_fits_no_more_is_a_failure_of_its_own_saga(
    events: StateStore, state: SqlConsumerStateStore
) -> None:
    async with running(events, state, TripSaga()) as group:
        await add(events, TripBookedEvent("A", 7), TripBookedEvent("B"))
        await group.caught_up(10)

    class ChangedState(SagaState):
        steps: int = 0

    class ChangedSaga(Saga[ChangedState], version=1):
        @saga_event_handler(association_property="hotel", retry=0)
        def on_confirmed(self, event: HotelConfirmedEvent, state: ChangedState) -> None:
            raise AssertionError

    ChangedSaga.__evento_component__ = replace(ChangedSaga.__evento_component__, name="TripSaga")
    async with running(events, state, ChangedSaga()) as group:
        await add(events, HotelConfirmedEvent(7))
        await group.caught_up(10)
    (dead,) = await state.dead_events(TRIPS)
    assert "no ChangedState any more" in dead.error_message


# Order while dead events are retried


def unbooking(*poisoned: int, between: Callable[[], Awaitable[Any]] | None = None) -> Hook:
    """Return a hook that takes the first association off with the event at 2, and fails at some positions."""

    async def hook(message: EventMessage[Any], state: TripState) -> None:
        if message.position in poisoned:
            raise ValueError("poison")
        if message.position == 2:
            state.unset_association("thing_id")
            if between is not None:
                await between()

    return hook


async def _steps(state: SqlConsumerStateStore) -> list[str]:
    (saga,) = await state.sagas(TRIPS)
    return msgspec.json.decode(saga.state, type=TripState).steps


async def test_the_saga_stays_held_when_a_retry_takes_off_the_association_it_is_held_by(
    events: StateStore, state: SqlConsumerStateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evento.consumers.retries.TURN_SECONDS", 0.0)  # the stream goes on behind each retried event
    async with running(events, state, TripSaga(unbooking(2))) as group:
        await add(events, TripBookedEvent("A", 7), TripRebookedEvent("A", 7), HotelConfirmedEvent(7))
        await group.caught_up(10)

    async def arrive() -> None:
        await add(events, HotelConfirmedEvent(7))

    async with running(events, state, TripSaga(unbooking(between=arrive))) as group:
        await group.administration.retry(TRIPS, all=True)
        await group.caught_up(10)
    assert await _steps(state) == ["TripBooked@1", "TripRebooked@2", "HotelConfirmed@3", "HotelConfirmed@4"]


async def test_the_saga_stays_held_so_after_a_restart(events: StateStore, state: SqlConsumerStateStore) -> None:
    async with running(events, state, TripSaga(unbooking(2))) as group:
        await add(events, TripBookedEvent("A", 7), TripRebookedEvent("A", 7), HotelConfirmedEvent(7))
        await group.caught_up(10)
    async with running(events, state, TripSaga(unbooking(3))) as group:
        await group.administration.retry(TRIPS, all=True)  # of which the one at 3 fails again
        await group.caught_up(10)
    async with running(events, state, TripSaga(unbooking())) as group:
        await add(events, HotelConfirmedEvent(7))
        await group.caught_up(10)
        assert (await stored(state)).waiting == 1
        await group.administration.retry(TRIPS, all=True)
        await group.caught_up(10)
    assert await _steps(state) == ["TripBooked@1", "TripRebooked@2", "HotelConfirmed@3", "HotelConfirmed@4"]
